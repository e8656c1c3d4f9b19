"""A study, from a search space to refitted winners: read `run_study` first.

    open -> search (every arm, the baseline too) -> second phase (top k of each rate, seed by seed) -> refit -> result

The journal in the study's folder is the study; Ray and this driver are disposable.
"""

import logging
import math
import secrets
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import ray

from gapwise.data.store import open_dataset
from gapwise.distributed.cluster import resources
from gapwise.distributed.progress import tail
from gapwise.distributed.sharing import Device
from gapwise.distributed.side_by_side import Batch, Run, pending, run_all
from gapwise.distributed.turns import Turns
from gapwise.errors import GapwiseError, StudyError, no_room
from gapwise.spec.search import SearchSpec
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.assignment import Finished, Phase
from gapwise.tuning.clock import SearchClock
from gapwise.tuning.executor import PhaseRun, run_phases
from gapwise.tuning.meters import Meters
from gapwise.tuning.observer import Observer, Watcher, observing
from gapwise.tuning.opening import settled_space
from gapwise.tuning.pausing import Pause
from gapwise.tuning.reading import trials_so_far
from gapwise.tuning.refit import Winner, refit_batch, refit_run
from gapwise.tuning.result import RefitModel, StudyResult, save_result
from gapwise.tuning.second_phase import SecondPhase, second_phase
from gapwise.tuning.selection import Standing, first_of, median_epoch, standings
from gapwise.tuning.sharing_search import run_shared_phases
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
    with on_the_cluster(plan.turns, plan.folder):
        with running_book(plan.book, plan.space, plan.record) as book, observing(plan.record.events, watchers) as seen:
            course = _Course(plan, stages, book, seen, clock)
            with closing(course.phases()) as phases:  # or a clock of the search would go on after Ctrl-C
                _run(plan, book, phases)
        models = refitted(plan, course.winners, stages)
    evidence = Evidence(course.searched, course.again, course.table, models)
    seconds = {"wall_seconds": time.perf_counter() - plan.began, "search_seconds": clock.seconds}
    result = summarise(plan.name, plan.place, evidence, parent_run_id=parent_run_id, **seconds)
    save_result(plan.folder, result)
    return result


class _Course:
    """A study's phases, each planned when the one before has ended, and what came of them."""

    searched: list[Finished]
    again: SecondPhase
    table: dict[str, list[Standing]]
    winners: list[Winner]

    def __init__(self, plan: StudyPlan, stages: Stages, book: Any, observer: Observer, clock: SearchClock) -> None:
        self._plan, self._stages, self._book, self._observer, self._clock = plan, stages, book, observer, clock

    def phases(self) -> Generator[PhaseRun, None, None]:
        """Raises StudyError where the study cannot go on, KeyboardInterrupt where it was paused."""
        yield from self._search()
        self.searched = ray.get(self._book.finished.remote("search"))
        self.again = yield from self._second_phase()
        space = self._plan.space
        metric, seeds = space.train.objective.metric, space.second_phase.seeds
        self.table = standings(self.again.repeats, metric, seeds, self.again.dropped, self.again.chances)
        self.winners = _winners(self.table, self.again.repeats)
        if space.executor == "warm":
            yield from self._refit()

    def _search(self) -> Iterator[PhaseRun]:
        plan, clock = self._plan, self._clock
        left = ray.get(self._book.unfinished.remote())
        self._stages.stage("search", left)
        if not left:
            return
        budget = [plan.search_budget_seconds, _less(plan.space.budget.wall_seconds, clock.seconds)]
        seconds = min((limit for limit in budget if limit is not None), default=math.inf)
        deadline = time.monotonic() + seconds
        with clock.running():
            yield from self._to_its_end(self._run_of("search")._replace(deadline=deadline))
        left = ray.get(self._book.unfinished.remote())
        if left and time.monotonic() < deadline and not ray.get(self._book.used_up.remote()):
            raise StudyError(f"the search stopped with {left} trials to go; continue it with --resume", where=plan.name)

    def _second_phase(self) -> Generator[PhaseRun, None, SecondPhase]:
        rounds = second_phase(self._plan.place, self.searched)
        repeats = next(rounds)
        while True:
            waiting = ray.get(self._book.plan_repeats.remote(repeats))
            if waiting:
                self._stages.stage("second phase", waiting)
                yield from self._to_its_end(self._run_of("seeds"))
            try:
                repeats = rounds.send(ray.get(self._book.finished.remote("seeds")))
            except StopIteration as ended:
                again: SecondPhase = ended.value
                return again

    def _refit(self) -> Iterator[PhaseRun]:
        batch, runs = _refits(self._plan, self.winners)
        left = pending(batch, runs)
        if not left:
            return
        self._stages.stage("refit", len(left))
        with tail(batch.progress, lambda event: self._stages.done(event["done"])):
            yield from self._to_its_end(self._run_of("refit")._replace(refits=tuple(left)))
        left = pending(batch, runs)
        if left:
            raise StudyError(f"{len(left)} refits were given up; continue with --resume", where=self._plan.name)

    def _run_of(self, phase: Phase | Literal["refit"]) -> PhaseRun:
        plan = self._plan
        return PhaseRun(phase, plan.book, plan.place, plan.concurrency, grows=plan.grows)

    def _to_its_end(self, run: PhaseRun) -> Iterator[PhaseRun]:
        yield run
        full = ray.get(self._book.full.remote())
        if full:
            raise _no_room_left(self._plan, full)
        if self._plan.pause.asked:
            raise KeyboardInterrupt
        if run.phase != "refit":
            ray.get(self._book.lose.remote(run.phase))
        self._observer.show()


def _meters(plan: StudyPlan) -> list[Watcher]:
    """Figures for Prometheus, where there is a team's cluster."""
    if plan.turns is None:
        return []
    meters = Meters(plan.name, trials_so_far(plan.folder, plan.space, plan.storage))
    plan.turns.watchers.append(meters)
    return [meters]


def refitted(plan: StudyPlan, winners: list[Winner], stages: Stages) -> list[RefitModel]:
    """Every winner trained once more with each of the refit's seeds; what is trained already is kept."""
    batch, runs = _refits(plan, winners)
    left = pending(batch, runs)
    if left:
        stages.stage("refit", len(left))
        with _slots(plan, batch, left) as at_once:
            run_all(batch, runs, at_once, stages.done)
    return [refit_model(plan.place, winner, _refit_seeds(plan)) for winner in winners]


def _refits(plan: StudyPlan, winners: list[Winner]) -> tuple[Batch, list[Run]]:
    runs = [refit_run(plan.place, winner, seed) for winner in winners for seed in _refit_seeds(plan)]
    return refit_batch(plan.place), runs


def _refit_seeds(plan: StudyPlan) -> list[int]:
    return [plan.space.seed + _REFIT_SEEDS_FROM + index for index in range(plan.space.second_phase.seeds)]


def _less(limit: float | None, used: float) -> float | None:
    return None if limit is None else limit - used


def _run(plan: StudyPlan, book: Any, phases: Iterator[PhaseRun]) -> None:
    """On Ray Tune. Raises KeyboardInterrupt where Ctrl-C paused it, StudyError where a full disk did."""
    with plan.pause.heeded(book):
        try:
            if plan.turns is None:
                run_phases(book, phases)
            else:
                run_shared_phases(book, phases, plan.turns)
        except GapwiseError:
            raise
        except Exception as error:  # Tune itself keeps files in the study's folder, and the book is asked by Tune
            full = no_room(error)
            if not full:
                raise
            raise _no_room_left(plan, full) from error


def _no_room_left(plan: StudyPlan, full: str) -> StudyError:
    return StudyError(f"{full}; nothing is lost: make room and go on with --resume", where=plan.name)


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
