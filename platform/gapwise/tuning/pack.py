"""Many assignments in one worker: trials train fused, and one that ends makes room for the next.

    take from the book what fits -> an epoch of all of them -> tell endings -> take again

Every trial keeps its own record, checkpoint and ending, as if it ran alone; a checkpoint does not tell which way it
was made. What cannot be fused with those that train waits until they are done, and what can never be fused runs by
itself. Where all of them fail together, for lack of memory or because the fused program itself broke, they go on from
their checkpoints, fewer at once or one by one: then only the guilty one fails.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gapwise.distributed.launch import Restart
from gapwise.errors import no_room
from gapwise.training.fused.group import FusedGroup
from gapwise.training.fused.member import Ending
from gapwise.tuning.assignment import Assignment, LineLost, Outcome, infeasible
from gapwise.tuning.trial import (
    Attempt,
    Place,
    StudyLine,
    as_told,
    begun,
    free_memory,
    job_of,
    limits_of,
    out_of_memory,
    outcome_of,
    run_trial,
)

_log = logging.getLogger(__name__)


class Hand(Protocol):
    """Where a worker gets its assignments."""

    refills: bool
    """Whether who ends makes room for another."""

    def take(self, arm: str | None) -> Assignment | None:
        """One more, of this arm where one is named; None where there is none, or others are first."""


class Pack:
    """A worker's trials; `most` train at once. `left` is what it, or one that died before, was given already."""

    def __init__(
        self,
        place: Place,
        hand: Hand,
        line: StudyLine,
        *,
        most: int,
        left: list[Assignment],
        notice: Callable[[], bool] = lambda: False,
    ) -> None:
        self._place, self._hand, self._line, self._notice = place, hand, line, notice
        self._most, self._waiting = most, deque(left)
        self._group = self._empty()
        self._live: dict[str, tuple[Attempt, dict[str, float]]] = {}

    def _empty(self) -> FusedGroup:
        """What shrinks with every trial that ends has another shape soon: it is compiled only where that was said."""
        asked = self._place.space.compile
        return FusedGroup(compiles=asked if asked != "auto" or self._hand.refills else False)

    def run(self) -> None:
        """Until nothing is left. Raises Restart and LineLost as `run_trial`; a full disk pauses the study."""
        try:
            while self._filled():
                self._advance()
        except Exception as error:
            said = no_room(error)
            if not said:
                raise
            self._line.pause_for_room(said)

    def _filled(self) -> bool:
        """Take in what fits; returns whether anything trains."""
        while len(self._live) < self._most and (assignment := self._next()) is not None:
            if not self._took(assignment):
                self._waiting.appendleft(assignment)
                break
        return bool(self._live)

    def _next(self) -> Assignment | None:
        if self._waiting:
            return self._waiting.popleft()
        return self._hand.take(next((one.assignment.arm for one, _ in self._live.values()), None))

    def _took(self, assignment: Assignment) -> bool:
        """Whether it trains, or has ended; not where it has to wait for those that train."""
        job = as_told(job_of(self._place, assignment), assignment)
        if not self._group.fits(job):
            if self._live:
                return False
            run_trial(self._place, assignment, job, self._line, self._notice)
            return True
        now = begun(assignment, job, self._line)
        if now is None:
            return True
        if now.micro_batch != assignment.micro_batch:  # memory was short before its worker died: it runs by itself
            self._waiting.append(now)
            return True
        one = Attempt.of(self._place, now, job, self._line, self._notice)
        try:
            measured, broken_by = limits_of(one)
            if broken_by:
                self._settle(one, infeasible(measured, broken_by))
            else:
                self._group.admit(now.key, one.job, one.reporter, one.sink)
                self._live[now.key] = one, measured
        except Exception as error:  # noqa: BLE001 - told, or raised again: it is the outcome
            self._settle(one, error)
        return True

    def _advance(self) -> None:
        try:
            endings = self._group.step_epoch()
        except Exception as error:
            if isinstance(error, LineLost | Restart) or no_room(error):
                raise
            self._apart(error)
            return
        raised: list[Exception] = []
        for ending in endings:
            try:
                self._end(ending)
            except Exception as error:  # noqa: BLE001 - the others' endings are told first
                raised.append(error)
        if raised:
            raise raised[0]

    def _end(self, ending: Ending) -> None:
        one, measured = self._live.pop(ending.name)
        outcome = ending.outcome
        if isinstance(outcome, Exception):
            self._settle(one, outcome)
            return
        try:
            told: Outcome | Exception = outcome_of(one, outcome, measured)
        except Exception as error:  # noqa: BLE001 - told, or raised again: it is the outcome
            told = error
        self._settle(one, told)

    def _settle(self, one: Attempt, ended: Outcome | Exception) -> None:
        again = one.settle(ended)
        if again is not None:
            self._waiting.append(again)

    def _apart(self, error: Exception) -> None:
        """All of them failed at once."""
        live, self._live, self._group = list(self._live.values()), {}, self._empty()
        if len(live) == 1:
            self._settle(live[0][0], error)
            return
        self._most = max(1, len(live) // 2) if out_of_memory(error) else 1
        self._waiting.extendleft(one.assignment for one, _ in reversed(live))
        said = " ".join(str(error).split())[:300]
        _log.warning(
            "%d fused trials failed together (%s: %s); they go on from their checkpoints, %d at once",
            *(len(live), type(error).__name__, said, self._most),
        )
        free_memory()
