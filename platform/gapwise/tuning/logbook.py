"""MLflow's view of a study: the book's events as child runs, in one request a trial and poll."""

from typing import Any

from gapwise.tracking.runs import Point, TrialRuns, curve_points
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.book import Event


class Logbook:
    """A watcher that writes one child run a trial."""

    def __init__(self, runs: TrialRuns, metric: str) -> None:
        self._runs, self._metric = runs, metric

    def see(self, events: list[Event]) -> None:
        """Group by trial, so that several epochs of a fast trial cost one request."""
        grouped: dict[str, list[Event]] = {}
        for event in events:
            grouped.setdefault(event.assignment.key, []).append(event)
        for key, group in grouped.items():
            self._write(key, group)

    def _write(self, key: str, events: list[Event]) -> None:
        assignment = events[0].assignment
        run_id = self._runs.run_of(key, params=_params(assignment), tags=_tags(assignment))
        points = [point for event in events if event.kind == "reported" for point in self._points(event)]
        ending = next((event.body for event in events if event.kind == "finished"), None)
        if ending is not None:
            points += _final_points(ending)
        if points:
            self._runs.log(run_id, points)
        if ending is not None:
            tags = {"gapwise.state": ending["state"], "gapwise.reason": ending["reason"]}
            self._runs.close(run_id, failed=ending["state"] == "failed", tags={k: v for k, v in tags.items() if v})

    def _points(self, event: Event) -> list[Point]:
        body, epoch = event.body, event.body["epoch"]
        curve = [Point(f"valid/{self._metric}/{condition}", value, epoch) for condition, value in body["curve"].items()]
        losses = [Point(f"train/{name}", value, epoch) for name, value in body["losses"].items()]
        speed = Point("train/samples_per_second", body["samples_per_second"], epoch)
        return [Point("valid/objective", body["cost"], epoch), speed, *curve, *losses]


def _final_points(ending: dict[str, Any]) -> list[Point]:
    """The kept epoch's curves and diagnostics."""
    return curve_points("curve", ending["metrics"]) + curve_points("diagnostics", ending.get("diagnostics", {}))


def _params(assignment: Assignment) -> dict[str, object]:
    return {"arm": assignment.arm, "seed": assignment.seed, **assignment.values}


def _tags(assignment: Assignment) -> dict[str, str]:
    return {"gapwise.arm": assignment.arm, "gapwise.phase": assignment.phase, "gapwise.source": str(assignment.source)}
