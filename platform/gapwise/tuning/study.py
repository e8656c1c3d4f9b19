"""A study, from a search space to refitted winners: read `run_study` first.

    open -> search (every arm, the baseline too) -> second phase (top k of each rate, seed by seed) -> refit -> result

The journal in the study's folder is the study; Ray and this driver are disposable.
"""

import logging
import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import ray

from gapwise.data.store import open_dataset
from gapwise.distributed.cluster import resources
from gapwise.distributed.sharing import Device
from gapwise.distributed.side_by_side import Batch, Run, pending, run_all
from gapwise.distributed.turns import Turns
from gapwise.errors import StudyError, no_room
from gapwise.spec.search import SearchSpec
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Finished
from gapwise.tuning.clock import SearchClock
from gapwise.tuning.executor import PhaseRun, run_phase
from gapwise.tuning.meters import Meters
from gapwise.tuning.observer import Observer, Watcher, observing
from gapwise.tuning.opening import settled_space
from gapwise.tuning.pausing import Pause
from gapwise.tuning.reading import trials_so_far
from gapwise.tuning.refit import Winner, refit_batch, refit_run
from gapwise.tuning.result import RefitModel, StudyResult, save_result
from gapwise.tuning.second_phase import SecondPhase, run_second_phase
from gapwise.tuning.selection import Standing, first_of, median_epoch, standings
from gapwise.tuning.sharing_search import run_shared_phase
from gapwise.tuning.standing import on_the_cluster
from gapwise.tuning.storage import JOURNAL
from gapwise.tuning.summary import Evidence, refit_model, summarise
from gapwise.tuning.trial import Place

_log = logging.getLogger(__name__)

_REFIT_SEEDS_FROM = 1001
"""Seeds of the second phase are study seed + 1, 2, ...; those of the refit start here, so they are fresh."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """A study that was opened, and how it is to be run here and now."""

    name: str
    space: SearchSpec
    data: Path
    fingerprint: str = ""
    """Of the data that the study was begun on, which may grow in the folder meanwhile; empty: whichever is there."""
    folder: Path
    concurrency: int
    grows: bool = False
    """Whether trials run on nodes that join later too: more at once than `concurrency`."""
    began: float = field(default_factory=time.perf_counter)
    """On `time.perf_counter`'s clock: when the command began, for `wall_seconds`."""
    search_budget_seconds: float | None = None
    """No search trial starts later than this after the first phase began in this session."""
    pause: Pause = field(default_factory=lambda: Pause(_log.warning))
    """Hears of Ctrl-C."""
    storage: str = JOURNAL
    """Where trials are recorded, as `checked_storage` returned it."""
    retry_failed: bool = False
    """Whether trials that failed are run once more."""
    session: str = field(default_factory=lambda: secrets.token_hex(4))
    """This driver among all that a cluster serves, dying ones of the same study included."""
    turns: Turns | None = None
    """Its priority and its slots on a cluster that others use too; None on a cluster of its own."""

    @property
    def record(self) -> Record:
        return Record(self.folder, self.storage, self.retry_failed)

    @property
    def book(self) -> str:
        """By which workers reach this driver's book."""
        return f"{self.name} {self.session}"

    @property
    def place(self) -> Place:
        return Place(self.space, str(self.data), str(self.folder), self.fingerprint)


class Stages(Protocol):
    """Who is told which stage begins, for a progress display."""

    def stage(self, name: str, total: int) -> None:
        """`name` is search, second phase (once a round) or refit; `total` is how many runs it has."""

    def done(self, what: str) -> None:
        """One run of the refit is done; the other stages are heard of through the book's events."""


def run_study(plan: StudyPlan, stages: Stages, watchers: list[Watcher], parent_run_id: str) -> StudyResult:
    """Run, or continue, a study to its end. Ray is connected, the study is open, and the caller holds its lock."""
    plan = replace(plan, space=settled_space(plan.space, open_dataset(plan.data)))
    clock = SearchClock(plan.folder)
    watchers = [*watchers, *_meters(plan)]
    with on_the_cluster(plan.turns, plan.folder), running_book(plan.book, plan.space, plan.record) as book:
        with observing(plan.record.events, watchers) as observer:
            _search(plan, stages, book, clock)
            observer.show()
            searched: list[Finished] = ray.get(book.finished.remote("search"))
            again = _second_phase(plan, stages, book, observer, searched)
        metric = plan.space.train.objective.metric
        table = standings(again.repeats, metric, plan.space.second_phase.seeds, again.dropped, again.chances)
        models = refitted(plan, _winners(table, again.repeats), stages)
    evidence = Evidence(searched, again, table, models)
    seconds = {"wall_seconds": time.perf_counter() - plan.began, "search_seconds": clock.seconds}
    result = summarise(plan.name, plan.place, evidence, parent_run_id=parent_run_id, **seconds)
    save_result(plan.folder, result)
    return result


def _meters(plan: StudyPlan) -> list[Watcher]:
    """Figures for Prometheus, where there is a team's cluster."""
    if plan.turns is None:
        return []
    meters = Meters(plan.name, trials_so_far(plan.folder, plan.space, plan.storage))
    plan.turns.watchers.append(meters)
    return [meters]


def _search(plan: StudyPlan, stages: Stages, book: Any, clock: SearchClock) -> None:
    left = ray.get(book.unfinished.remote())
    stages.stage("search", left)
    if not left:
        return
    budget = [plan.search_budget_seconds, _less(plan.space.budget.wall_seconds, clock.seconds)]
    seconds = min((limit for limit in budget if limit is not None), default=math.inf)
    deadline = time.monotonic() + seconds
    with clock.running():
        _run(plan, book, PhaseRun("search", plan.book, plan.place, plan.concurrency, deadline, plan.grows))
    left = ray.get(book.unfinished.remote())
    if left and time.monotonic() < deadline and not ray.get(book.used_up.remote()):
        raise StudyError(f"the search stopped with {left} trials to go; continue it with --resume", where=plan.name)


def refitted(plan: StudyPlan, winners: list[Winner], stages: Stages) -> list[RefitModel]:
    """Every winner trained once more with each of the refit's seeds; what an earlier session finished is kept."""
    seeds = [plan.space.seed + _REFIT_SEEDS_FROM + index for index in range(plan.space.second_phase.seeds)]
    batch = refit_batch(plan.place)
    runs = [refit_run(plan.place, winner, seed) for winner in winners for seed in seeds]
    left = pending(batch, runs)
    stages.stage("refit", len(left))
    with _slots(plan, batch, left) as at_once:
        run_all(batch, runs, at_once, stages.done)
    return [refit_model(plan.place, winner, seeds) for winner in winners]


def _less(limit: float | None, used: float) -> float | None:
    return None if limit is None else limit - used


def _second_phase(
    plan: StudyPlan, stages: Stages, book: Any, observer: Observer, searched: list[Finished]
) -> SecondPhase:
    def run_round(repeats: list[Repeat]) -> list[Finished]:
        waiting = ray.get(book.plan_repeats.remote(repeats))
        if waiting:
            stages.stage("second phase", waiting)
            _run(plan, book, PhaseRun("seeds", plan.book, plan.place, plan.concurrency, grows=plan.grows))
            observer.show()
        finished: list[Finished] = ray.get(book.finished.remote("seeds"))
        return finished

    return run_second_phase(plan.place, searched, run_round)


def _run(plan: StudyPlan, book: Any, run: PhaseRun) -> None:
    """One phase on Ray Tune. Raises KeyboardInterrupt where Ctrl-C paused it, StudyError where a full disk did."""
    with plan.pause.heeded(book):
        try:
            if plan.turns is None:
                run_phase(book, run)
            else:
                run_shared_phase(book, run, plan.turns)
            full = ray.get(book.full.remote())
        except Exception as error:  # Tune itself keeps files in the study's folder, and the book is asked by Tune
            full = no_room(error)
            if not full:
                raise
        if full:
            raise StudyError(f"{full}; nothing is lost: make room and go on with --resume", where=plan.name)
        if not plan.pause.asked:
            ray.get(book.lose.remote(run.phase))


@contextmanager
def _slots(plan: StudyPlan, batch: Batch, left: list[Run]) -> Iterator[int]:
    """How many refits may run at once: on a shared cluster as many as it has room for when they begin."""
    if plan.turns is None or not left:
        yield plan.concurrency
        return
    together, found = batch.workers_per_run, resources()
    device: Device = "GPU" if found.gpus >= together else "CPU"
    most = 1 if together > 1 else min(plan.concurrency, len(left), found.gpus or found.cpus)
    with plan.turns.held(most, Fraction(together), device) as at_once:
        yield at_once


def _winners(table: dict[str, list[Standing]], repeats: list[Finished]) -> list[Winner]:
    """Distinct configurations that are the best of the searched arms, or of the baseline, at some condition."""
    chosen = {
        (row.arm, row.source): None
        for rows in table.values()
        for row in (first_of(rows, baseline=False), first_of(rows, baseline=True))
        if row is not None
    }
    winners = []
    for arm, source in chosen:
        runs = [
            run
            for run in repeats
            if (run.assignment.arm, run.assignment.source) == (arm, source) and run.outcome.eligible
        ]
        epochs = median_epoch([run.outcome.best_epoch for run in runs])
        cut = [run.assignment.micro_batch for run in runs if run.assignment.micro_batch is not None]
        winners.append(Winner(arm, source, runs[0].assignment.values, epochs, min(cut, default=None)))
    return winners
