"""A study's figures for Prometheus, on the metrics port of the Ray node that its driver runs on.

Ray's own metrics are scraped there anyway, so nothing more has to be opened or found. Ray puts `ray_` before each name
(`ray_gapwise_trials`), and drops a gauge that is not set again: all are, whenever the driver renews its place on the
cluster. Few names, and labels that cannot grow with the number of trials. A private cluster has no such port.
"""

import threading
from collections import Counter as Count
from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from gapwise.tuning.assignment import PHASES, Assignment, Outcome, count_states
from gapwise.tuning.events import Event
from gapwise.tuning.reading import TrialRecord

_RUNNING = Outcome("running", None, 0, {}, 0.0)


class Meters:
    """Sees a study's events and its slots; `earlier` is what drivers before this one left on record."""

    def __init__(self, study: str, earlier: Iterable[TrialRecord] = ()) -> None:
        self._seen: dict[str, tuple[Assignment, Outcome]] = {
            one.assignment.key: (one.assignment, one.outcome) for one in earlier
        }
        self._lock = threading.Lock()
        labels = ("study",)
        self._trials = Gauge("gapwise_trials", "Trials by phase and state.", ("study", "phase", "state"))
        self._best = Gauge("gapwise_best_objective", "Lowest objective of a complete search trial.", ("study", "model"))
        self._wanted = Gauge("gapwise_slots_wanted", "Trials that the study would run at once.", labels)
        self._held = Gauge("gapwise_slots_held", "Trials that it may run at once.", labels)
        self._epochs = Counter("gapwise_epochs", "Epochs trained and reported.", labels)
        self._failures = Counter("gapwise_failures", "Trials that failed.", labels)
        for one in (self._trials, self._best, self._wanted, self._held, self._epochs, self._failures):
            one.set_default_tags({"study": study})

    def see(self, events: list[Event]) -> None:
        """What has happened is counted now; what stands is set by `stands`."""
        count: Count[str] = Count(event.kind for event in events)
        ended = [(event.assignment, Outcome(**event.body)) for event in events if event.kind == "finished"]
        failed = count_states(outcome for _, outcome in ended)["failed"]
        with self._lock:
            begun = {event.assignment.key: (event.assignment, _RUNNING) for event in events if event.kind == "started"}
            self._seen |= begun | {assignment.key: (assignment, outcome) for assignment, outcome in ended}
        if count["reported"]:
            self._epochs.inc(count["reported"])
        if failed:
            self._failures.inc(failed)

    def stands(self, wanted: int, held: int, waits: str) -> None:
        del waits
        self._wanted.set(wanted)
        self._held.set(held)
        with self._lock:
            seen = list(self._seen.values())
        for phase in PHASES:
            counted = count_states(outcome for assignment, outcome in seen if assignment.phase == phase)
            for state, trials in counted.items():
                self._trials.set(trials, {"phase": phase, "state": state})
        for model, best in _best(seen).items():
            self._best.set(best, {"model": model})


def _best(seen: list[tuple[Assignment, Outcome]]) -> dict[str, float]:
    """By model, as far as one is complete."""
    best: dict[str, float] = {}
    for assignment, outcome in seen:
        if assignment.phase == "search" and outcome.eligible and outcome.cost is not None:
            best[assignment.arm] = min(outcome.cost, best.get(assignment.arm, outcome.cost))
    return best
