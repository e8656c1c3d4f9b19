"""A study, from a search space to refitted winners: read `run_study` first.

    open -> search (every arm, the baseline too) -> second phase (top k of each rate x seeds) -> refit -> result

The journal in the study's folder is the study; Ray and this driver are disposable.
"""

import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import ray

from gapwise.data.store import Dataset, open_dataset
from gapwise.distributed.side_by_side import pending, run_all
from gapwise.errors import StudyError
from gapwise.evaluation.objective import settled
from gapwise.models.reading import read_shape
from gapwise.spec.home import refuse_unusable_name
from gapwise.spec.search import SearchSpec
from gapwise.tuning.actor import running_book
from gapwise.tuning.assignment import Finished
from gapwise.tuning.book import Repeat
from gapwise.tuning.executor import PhaseRun, run_phase
from gapwise.tuning.observer import Watcher, observing
from gapwise.tuning.reading import FORMAT_VERSION, JOURNAL_FILE, STUDY_FILE
from gapwise.tuning.refit import Winner, refit_batch, refit_run
from gapwise.tuning.result import StudyResult, save_result
from gapwise.tuning.selection import Standing, chosen_again, first_of, median_epoch, standings
from gapwise.tuning.space import check_space, default_values, trial_spec
from gapwise.tuning.summary import Evidence, refit_model, summarise
from gapwise.tuning.trial import Place

_REFIT_SEEDS_FROM = 1001
"""Seeds of the second phase are study seed + 1, 2, ...; those of the refit start here, so they are fresh."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """A study that was opened, and how it is to be run here and now."""

    name: str
    space: SearchSpec
    data: Path
    folder: Path
    concurrency: int
    began: float = field(default_factory=time.perf_counter)
    """On `time.perf_counter`'s clock: when the command began, for `wall_seconds`."""
    search_budget_seconds: float | None = None
    """No search trial starts later than this after the first phase began."""

    @property
    def place(self) -> Place:
        return Place(self.space, str(self.data), str(self.folder))


def settled_space(space: SearchSpec, dataset: Dataset) -> SearchSpec:
    """The space on this dataset: metric `auto` decided, metric and missing rates held against the data (SpecError)."""
    train = settled(space.train, dataset.manifest.shape(), dataset.valid.labels)
    return space.model_copy(update={"train": train})


class Stages(Protocol):
    """Who is told which stage begins, for a progress display."""

    def stage(self, name: str, total: int) -> None:
        """`name` is search, second phase or refit; `total` is how many runs it has."""

    def done(self, what: str) -> None:
        """One run of the refit is done; the other stages are heard of through the book's events."""


def open_study(folder: Path, name: str, space: SearchSpec, dataset: Dataset, *, resume: bool) -> None:
    """Create the study's folder, or accept the one that exists. Raises what `check_study` raises."""
    check_study(folder, name, space, dataset, resume=resume)
    space = settled_space(space, dataset)
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{STUDY_FILE}.{os.getpid()}.tmp"
        where = {"dataset": dataset.manifest.name, "data": str(dataset.folder)}
        temporary.write_text(json.dumps(_asked(space, dataset) | where, indent=1))
        temporary.replace(folder / STUDY_FILE)


def _asked(space: SearchSpec, dataset: Dataset) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "space": space.model_dump(mode="json", exclude={"trials", "baseline_share"}),
        "data_fingerprint": dataset.manifest.fingerprint,
    }


def check_study(folder: Path, name: str, space: SearchSpec, dataset: Dataset, *, resume: bool) -> None:
    """Whether `open_study` would succeed; writes nothing.

    Raises SpecError for a name that cannot be a folder's, StudyError for a name in use without `resume`, for nothing to
    resume, and for another space or dataset, saying what differs, SpecError or DataError for a text encoder that is not
    there or does not fit the dataset. The number of trials may grow.
    """
    refuse_unusable_name(name, where="--study")
    check_space(space)
    space = settled_space(space, dataset)
    for arm in space.arm_names():
        read_shape(trial_spec(space, arm, default_values(space, arm), seed=space.seed).model, dataset)
    file = folder / STUDY_FILE
    asked = _asked(space, dataset)
    if not file.exists():
        if resume:
            raise StudyError(f"nothing to resume: no study {name!r}", where=str(folder))
        return
    if not resume:
        raise StudyError(
            f"study {name!r} exists; continue it with --resume, or choose another --study", where=str(folder)
        )
    try:
        recorded = json.loads(file.read_text())
    except ValueError as error:
        raise StudyError("cannot be read as JSON", where=str(file)) from error
    different = [key for key in asked if recorded.get(key) != asked[key]]
    if different:
        raise StudyError(f"study {name!r} was started with another {' and '.join(different)}", where=str(file))


def run_study(plan: StudyPlan, stages: Stages, watchers: list[Watcher], parent_run_id: str) -> StudyResult:
    """Run, or continue, a study to its end. Ray is connected, the study is open, and the caller holds its lock."""
    plan = replace(plan, space=settled_space(plan.space, open_dataset(plan.data)))
    with running_book(plan.name, plan.space, plan.folder / JOURNAL_FILE) as book:
        with observing(book, watchers) as observer:
            search_seconds = _search(plan, stages, book)
            observer.deliver()
            repeats = _second_phase(plan, stages, book)
        searched: list[Finished] = ray.get(book.finished.remote("search"))
        metric = plan.space.train.objective.metric
        table = standings(repeats, metric, plan.space.second_phase.seeds)
        winners = _winners(table, repeats)
        seeds = [plan.space.seed + _REFIT_SEEDS_FROM + index for index in range(plan.space.second_phase.seeds)]
        batch = refit_batch(plan.place)
        runs = [refit_run(plan.place, winner, seed) for winner in winners for seed in seeds]
        stages.stage("refit", len(pending(batch, runs)))
        run_all(batch, runs, plan.concurrency, stages.done)
    evidence = Evidence(searched, repeats, table, [refit_model(plan.place, winner, seeds) for winner in winners])
    seconds = {"wall_seconds": time.perf_counter() - plan.began, "search_seconds": search_seconds}
    result = summarise(plan.name, plan.place, evidence, parent_run_id=parent_run_id, **seconds)
    save_result(plan.folder, result)
    return result


def _search(plan: StudyPlan, stages: Stages, book: Any) -> float:
    started = time.perf_counter()
    left = ray.get(book.unfinished.remote())
    stages.stage("search", left)
    if left:
        deadline = None if plan.search_budget_seconds is None else time.monotonic() + plan.search_budget_seconds
        run_phase(book, PhaseRun("search", plan.name, plan.place, plan.concurrency, deadline))
        left = ray.get(book.unfinished.remote())
        if left and (deadline is None or time.monotonic() < deadline):
            raise StudyError(f"the search stopped with {left} trials to go; continue it with --resume", where=plan.name)
    return time.perf_counter() - started


def _second_phase(plan: StudyPlan, stages: Stages, book: Any) -> list[Finished]:
    phase, metric = plan.space.second_phase, plan.space.train.objective.metric
    searched: list[Finished] = ray.get(book.finished.remote("search"))
    repeats = []
    for arm in plan.space.arm_names():
        runs = {run.assignment.number: run for run in searched if run.assignment.arm == arm}
        for number in chosen_again(list(runs.values()), metric, top_k=phase.top_k, cap=phase.cap):
            values = runs[number].assignment.values
            repeats += [Repeat(arm, number, values, plan.space.seed + 1 + index) for index in range(phase.seeds)]
    if not repeats:
        raise StudyError("no trial finished, so there is nothing to choose from", where=str(plan.folder))
    waiting = ray.get(book.plan_repeats.remote(repeats))
    stages.stage("second phase", waiting)
    if waiting:
        run_phase(book, PhaseRun("seeds", plan.name, plan.place, plan.concurrency))
    finished: list[Finished] = ray.get(book.finished.remote("seeds"))
    return finished


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
        runs = [run for run in repeats if (run.assignment.arm, run.assignment.source) == (arm, source)]
        epochs = median_epoch([run.outcome.best_epoch for run in runs if run.outcome.state == "complete"])
        winners.append(Winner(arm, source, runs[0].assignment.values, epochs))
    return winners
