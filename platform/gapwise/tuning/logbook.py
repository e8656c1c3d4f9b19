"""MLflow's view of a study: the book's events as child runs, a trial at a time."""

import logging

from gapwise.tracking.client import TrackingRefused
from gapwise.tracking.runs import NOTE_TAG, Point, curve_points
from gapwise.tracking.study_run import StudyRun
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.events import Event

_log = logging.getLogger(__name__)


class Logbook:
    """The recipient that writes one child run a trial."""

    def __init__(self, run: StudyRun, metric: str) -> None:
        self.run_id = run.run_id
        self._run, self._runs, self._metric = run, run.trials, metric
        self._refused: set[str] = set()

    def see(self, events: list[Event]) -> None:
        """What the server refuses is left out, and said once a trial: the others must not wait for ever."""
        key = events[0].assignment.key
        try:
            self._write(key, events)
        except TrackingRefused as refused:
            if key not in self._refused:
                _log.warning("the tracking server refused events of trial %s: %s", key, refused)
            self._refused.add(key)

    def end(self, status: str) -> None:
        self._runs.settle()
        self._run.end(status)

    def _write(self, key: str, events: list[Event]) -> None:
        first = events[0]
        params, tags = _params(first.assignment), _tags(first.assignment)
        run_id = self._runs.run_of(key, began=first.time, params=params, tags=tags)
        points = [point for event in events for point in self._points(event)]
        if points:
            self._runs.log(run_id, points)
        for ending in (event for event in events if event.kind == "finished"):
            failed = ending.body["state"] == "failed"
            self._runs.close(run_id, failed=failed, tags=_last_words(ending), ended=ending.time)

    def _points(self, event: Event) -> list[Point]:
        if event.kind == "reported":
            return self._epoch_points(event)
        return _final_points(event) if event.kind == "finished" else []

    def _epoch_points(self, event: Event) -> list[Point]:
        body = event.body
        curve = {f"valid/{self._metric}/{condition}": value for condition, value in body["curve"].items()}
        losses = {f"train/{name}": value for name, value in body["losses"].items()}
        plain = {"valid/objective": body["cost"], "train/samples_per_second": body["samples_per_second"]}
        plain |= {f"valid/objectives/{name}": cost for name, cost in body.get("objectives", {}).items()}
        return [Point(name, value, body["epoch"], event.time) for name, value in (plain | curve | losses).items()]


def _final_points(event: Event) -> list[Point]:
    """The kept epoch's curves and diagnostics, and what was measured for the constraints."""
    curves = curve_points("curve", event.body["metrics"], time=event.time)
    measured = event.body.get("constraints", {})
    constraints = [Point(f"constraints/{name}", value, 0, event.time) for name, value in measured.items()]
    return curves + constraints + curve_points("diagnostics", event.body.get("diagnostics", {}), time=event.time)


def _params(assignment: Assignment) -> dict[str, object]:
    return {"arm": assignment.arm, "seed": assignment.seed, **assignment.values}


def _tags(assignment: Assignment) -> dict[str, str]:
    return {"gapwise.arm": assignment.arm, "gapwise.phase": assignment.phase, "gapwise.source": str(assignment.source)}


def _last_words(ending: Event) -> dict[str, str]:
    body = ending.body
    said = {
        "state": body["state"],
        "reason": body["reason"],
        "micro_batch": str(ending.assignment.micro_batch or ""),
        "objective_changed": "true" if body.get("objective_changed") else "",
    }
    return {f"gapwise.{name}": value for name, value in said.items() if value} | {NOTE_TAG: _note(ending)}


_PHASES = {"search": "Trial of the search", "seeds": "Second phase: one more training seed of a configuration"}


def _note(ending: Event) -> str:
    """What the UI says of a trial, in a line."""
    body, one = ending.body, ending.assignment
    of = f"{_PHASES[one.phase]}, {one.arm} number {one.source}, seed {one.seed}: {body['state']}"
    if body["cost"] is None:
        return f"{of}. {body['reason']}"
    return f"{of}. Objective {body['cost']:.4f} (as a cost, lower is better) at epoch {body['best_epoch']}."
