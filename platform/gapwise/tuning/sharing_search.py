"""A phase of a study on a cluster that others use too: each trial waits for the study's turn.

Tune keeps an idle actor, with its device, for the next trial as long as its search algorithm says that there may be
one. So while others are first this one says that it is finished: Tune then frees each device when its trial ends, and
returns when nothing runs. The driver waits without Tune, and starts it again, with the same searcher, when its turn
comes; that costs a second or two, and an actor's start.
"""

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator

from gapwise.distributed.cluster import resources
from gapwise.distributed.placement import Needs, Share, place
from gapwise.distributed.sharing import Device
from gapwise.distributed.turns import SECONDS_BETWEEN_ASKS, Turns
from gapwise.tuning.executor import NO_LIMIT, BookSearcher, PhaseRun, needs_of, run_on_tune
from gapwise.tuning.trial import Place


class SharingSearcher(BookSearcher):
    """Hands out what the study's book does, when the cluster's book allows it."""

    _stays = False

    def __init__(self, book: Any, run: PhaseRun, share: Share, turns: Turns) -> None:
        super().__init__(book, run, share)
        self._turns = turns
        self.over = False

    def may_start(self) -> bool:
        """Whether Tune may ask for a trial; also where the answer will be that there is none."""
        held = len(self._running)
        if self.over or held >= self._most():
            return True
        if not self._turns.due():
            return False
        left = self.left()
        return not left or self._turns.reserve(held, min(self._most(), held + left))

    def _most(self) -> int:
        """How many trials it would run at once, if it was alone."""
        return self._room()

    def suggest(self, trial_id: str) -> Any:
        if not self.may_start():
            return None
        suggested = super().suggest(trial_id)
        if suggested == Searcher.FINISHED:
            self.over = True
            self._turns.hold(len(self._running), len(self._running))
        elif suggested is not None:
            self._turns.used()
        return suggested

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        super().on_trial_complete(trial_id, result, error)
        self._ended()

    def given_up(self, trial_id: str, error: str) -> None:
        super().given_up(trial_id, error)
        self._ended()

    def _ended(self) -> None:
        """It still wants what it wanted, or a lower priority would slip in before it asks for the next."""
        held = len(self._running)
        self._turns.hold(held, held if self.over else None)


class _GivesWay(SearchGenerator):
    """What Tune asks, around the searcher."""

    def __init__(self, searcher: SharingSearcher) -> None:
        super().__init__(ConcurrencyLimiter(searcher, max_concurrent=NO_LIMIT))
        self._sharing = searcher

    def is_finished(self) -> bool:
        return super().is_finished() or not self._sharing.may_start()


def run_shared_phases(book: Any, phases: Iterator[PhaseRun], turns: Turns) -> None:
    """As `run_phases`, trial by trial when it is this study's turn; each phase is a run of Tune.

    A trial gets what it would get on a full cluster, however few run: the rest may be another study's at any moment.
    Raises SpecError where not even one fits the cluster.
    """
    for run in phases:
        needs = needs_of(run.place.space)
        share = place(resources(), needs).share
        turns.of(*slot(needs, share))
        _run_shared(SharingSearcher(book, run, share, turns), run.place, share, turns)


def _run_shared(searcher: SharingSearcher, where: Place, share: Share, turns: Turns) -> None:
    try:
        while not searcher.over:
            while not searcher.may_start():
                time.sleep(SECONDS_BETWEEN_ASKS)
            run_on_tune(where, searcher, _GivesWay(searcher), share)
    finally:
        turns.hold(0, 0)


def slot(needs: Needs, share: Share) -> tuple[Fraction, Device]:
    """How many devices a trial takes, and which."""
    if share.gpus:
        return Fraction(needs.workers, needs.trials_per_device), "GPU"
    return Fraction(needs.workers * share.cpus), "CPU"
