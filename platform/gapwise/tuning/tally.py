"""A study under way, counted from the book's events: what a progress display shows.

Told by several threads (stages by the driver, refits by the file's reader, trials by the observer) and read by another,
so every method takes the lock. It draws nothing.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Finished, Outcome, Phase, count_states, stopped_early
from gapwise.tuning.events import Event
from gapwise.tuning.reading import TrialRecord
from gapwise.tuning.selection import Standing, first_of, standings


class ArmTally(NamedTuple):
    """One model in the present phase."""

    counts: dict[str, int]
    best: tuple[str, float] | None
    """Its complete trial with the lowest objective."""


class Tally(NamedTuple):
    """Everything at one moment."""

    stage: str
    finished: int
    total: int
    seconds: float
    """Since the stage began."""
    seconds_left: float | None
    """Of this stage, at the pace so far; None before there is one."""
    epochs_saved: int
    """Epochs that pruned trials were not trained for, earlier drivers' included."""
    arms: dict[str, ArmTally]
    leaders: dict[str, tuple[Standing | None, Standing | None]]
    """By condition: the best searched model so far, and the baseline."""


@dataclass(slots=True)
class _Seen:
    """A trial as far as it was heard of."""

    assignment: Assignment
    outcome: Outcome
    epoch: int = 0
    epochs: int = 0

    @property
    def share(self) -> float:
        return self.epoch / self.epochs if self.epochs else 0.0


class Counter:
    """Counts; `earlier` is what the journal has from drivers before."""

    def __init__(
        self,
        space: SearchSpec,
        earlier: Iterable[TrialRecord] = (),
        *,
        search_budget_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space, self._budget, self._clock = space, search_budget_seconds, clock
        self._lock = threading.Lock()
        self._stage, self._total, self._finished, self._began = "", 0, 0, clock()
        self._seen = {
            one.assignment.key: _Seen(one.assignment, one.outcome, one.epochs or 0, space.train.epochs)
            for one in earlier
            if one.outcome.state != "running"
        }

    def stage(self, name: str, total: int) -> None:
        with self._lock:
            self._stage, self._total, self._finished, self._began = name, total, 0, self._clock()

    def done(self) -> None:
        with self._lock:
            self._finished += 1

    def note(self, event: Event) -> None:
        with self._lock:
            running = Outcome("running", None, 0, {}, 0.0)
            seen = self._seen.setdefault(event.assignment.key, _Seen(event.assignment, running))
            if event.kind == "reported":
                seen.epoch, seen.epochs = event.body["epoch"], event.body["epochs"]
            if event.kind == "finished":
                seen.outcome = Outcome(**event.body)
                self._finished += 1

    def progress(self) -> str:
        """The stage, and how many of its runs have ended."""
        with self._lock:
            return f"{self._stage} {self._finished}/{self._total}"

    def now(self) -> Tally:
        with self._lock:
            seconds = self._clock() - self._began
            phase: Phase = "search" if self._stage == "search" else "seeds"
            present = [one for one in self._seen.values() if one.assignment.phase == phase]
            return Tally(
                stage=self._stage,
                finished=self._finished,
                total=self._total,
                seconds=seconds,
                seconds_left=self._left(seconds, present),
                epochs_saved=sum(one.epochs - one.epoch for one in self._seen.values() if stopped_early(one.outcome)),
                arms={
                    arm: _arm([one for one in present if one.assignment.arm == arm]) for arm in self._space.arm_names()
                },
                leaders=self._leaders(phase, present),
            )

    def _left(self, seconds: float, present: list[_Seen]) -> float | None:
        under_way = 0.0 if self._stage == "refit" else sum(one.share for one in present if _runs(one))
        worked = self._finished + under_way
        if not worked:
            return None
        left = seconds * max(0.0, self._total - worked) / worked
        if self._stage == "search" and self._budget is not None:
            return min(left, max(0.0, self._budget - seconds))
        return left

    def _leaders(self, phase: Phase, present: list[_Seen]) -> dict[str, tuple[Standing | None, Standing | None]]:
        seeds = 1 if phase == "search" else self._space.second_phase.seeds
        runs = [Finished(one.assignment, one.outcome) for one in present]
        table = standings(runs, self._space.train.objective.metric, seeds)
        return {
            condition: (first_of(rows, baseline=False), first_of(rows, baseline=True))
            for condition, rows in table.items()
        }


def _runs(one: _Seen) -> bool:
    return one.outcome.state == "running"


def _arm(trials: list[_Seen]) -> ArmTally:
    complete = [
        (one.assignment.key, one.outcome.cost)
        for one in trials
        if one.outcome.eligible and one.outcome.cost is not None
    ]
    best = min(complete, key=lambda one: one[1], default=None)
    return ArmTally(count_states(one.outcome for one in trials), best)
