"""Running one assignment: the same story for both executors and both phases.

assignment -> training spec -> dataset (opened once a process) -> `fit` -> curve of the kept weights -> outcome

A search trial that breaks a constraint ends before `fit`. Whatever ends a run is an outcome with its reason: a loss
that is not finite, memory, an exception, time. Only a worker that dies says nothing; its run goes on elsewhere from its
last checkpoint.
"""

import gc
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from gapwise.data.store import opened
from gapwise.distributed.launch import Restart, lost_a_worker
from gapwise.distributed.notice import LeavingSink
from gapwise.errors import no_room
from gapwise.evaluation.objective import Curve, objective_costs, reduce_curve
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import ObjectiveSpec
from gapwise.training.checkpoint import DirectorySink
from gapwise.training.decision import agreed, told
from gapwise.training.footprint import footprint
from gapwise.training.job import Diverged, Job, Trained, this_device, whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import CheckpointSink, EpochReport, Position, Snapshot
from gapwise.training.validation import diagnostic_curves, masked_outputs, mean_curves
from gapwise.tuning.assignment import Assignment, LineLost, Outcome, Verdict, failure, infeasible
from gapwise.tuning.limits import broken
from gapwise.tuning.predictions import predictions_file, save_predictions
from gapwise.tuning.space import assigned_spec
from gapwise.tuning.watchdog import watched

ERROR_FILE = "error.txt"
_VERDICTS: tuple[Verdict, ...] = ("go on", "stop", "pause")


class StudyLine(Protocol):
    """How a worker talks to the study's book."""

    def begin(self, assignment: Assignment) -> Assignment | None:
        """Ask how the assignment is to be run now; None if it is not."""

    def out_of_memory(self, assignment: Assignment) -> Assignment | None:
        """Tell that it did not fit, hear how to run it once more; None if there is no other way."""

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> Verdict:
        """Tell an epoch, hear how to go on."""

    def pause_for_room(self, said: str) -> None:
        """Tell that a disk is full."""

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        """Tell the ending."""


class Place(NamedTuple):
    """Where a study's workers find things; the same on every node."""

    space: SearchSpec
    data: str
    folder: str
    fingerprint: str = ""
    """Of the data that the study was begun on; empty: whichever is there."""


class Paused(Exception):
    """The study is paused and this run's checkpoint is written: leave without an ending."""


class StudyReporter:
    """Rank 0 passes each epoch on to the study's book; every worker hears the answer."""

    def __init__(
        self, line: StudyLine, assignment: Assignment, job: Job, objectives: Mapping[str, ObjectiveSpec]
    ) -> None:
        self._line, self._assignment, self._job, self._objectives = line, assignment, job, objectives
        self.paused = False

    def report(self, epoch: EpochReport) -> bool:
        verdict = _VERDICTS[told(self._job, _VERDICTS.index(self._ask(epoch)) if self._job.rank == 0 else 0)]
        self.paused = verdict == "pause"
        return verdict == "stop"

    def _ask(self, epoch: EpochReport) -> Verdict:
        body = {
            "curve": epoch.metrics[self._job.spec.objective.metric],
            "losses": epoch.losses,
            "epochs": epoch.epochs,
            "samples_per_second": epoch.samples_per_second,
            "train_seconds": epoch.train_seconds,
        }
        if self._objectives:
            costs = objective_costs(epoch.metrics, self._objectives)
            body["objectives"] = {name: cost for name, cost in costs.items() if math.isfinite(cost)}
        return self._line.report(self._assignment, epoch.epoch, epoch.cost, body)


class PausingSink(DirectorySink):
    """Takes one more snapshot when the study is paused, and then leaves, with all workers at the same step."""

    def __init__(self, folder: Path, job: Job, reporter: StudyReporter) -> None:
        super().__init__(folder, job.spec, job.rank)
        self._reporter = reporter

    def wants(self, position: Position) -> bool:
        return self._reporter.paused or super().wants(position)

    def save(self, snapshot: Snapshot) -> None:
        super().save(snapshot)
        if self._reporter.paused:
            raise Paused


def job_of(place: Place, assignment: Assignment) -> Job:
    """The training job of an assignment, for a single worker on this process's device."""
    spec = assigned_spec(place.space, assignment)
    return replace(whole_job(spec, *opened(place.data, place.fingerprint)), device=this_device())


def run_trial(
    place: Place, assignment: Assignment, job: Job, line: StudyLine, notice: Callable[[], bool] = lambda: False
) -> None:
    """Train, judge and tell. Of several workers, the one that fails tells why and raises, so that all are stopped.

    A run that does not fit the memory is tried once more with a smaller micro-batch, from its last checkpoint: by a
    single worker here, by several after one of them has raised `Restart`. A full disk is no ending of the run: the
    study is paused, and goes on when there is room. At a `notice` that a worker's node is about to go, the run keeps a
    checkpoint and raises `Restart`.
    """
    try:
        _run_to_its_end(place, assignment, job, line, notice)
    except Exception as error:
        said = no_room(error)
        if said:
            line.pause_for_room(said)
        if not said or job.workers.world > 1:
            raise


def _run_to_its_end(
    place: Place, assignment: Assignment, job: Job, line: StudyLine, notice: Callable[[], bool]
) -> None:
    now = begun(assignment, job, line)
    while now is not None:
        now = _attempt(place, now, as_told(job, now), line, notice)
        if now is not None:
            free_memory()


def as_told(job: Job, now: Assignment) -> Job:
    """With the micro-batch that the book says, where memory was short before."""
    if now.micro_batch is None:
        return job
    return replace(job, spec=job.spec.model_copy(update={"micro_batch": now.micro_batch}))


def begun(assignment: Assignment, job: Job, line: StudyLine) -> Assignment | None:
    """How rank 0 was told to run it."""
    now = line.begin(assignment) if job.rank == 0 else None
    if not agreed(job, now is not None):
        return None
    micro_batch = told(job, (now.micro_batch or 0) if now is not None else 0)
    return assignment._replace(micro_batch=micro_batch or None)


def _attempt(
    place: Place, assignment: Assignment, job: Job, line: StudyLine, notice: Callable[[], bool]
) -> Assignment | None:
    """One go; returns what is to be run next where memory was short."""
    one = Attempt.of(place, assignment, job, line, notice)
    ended: Outcome | Exception
    try:
        with watched(place.space.trial_seconds, lambda said: line.finish(assignment, failure(said)), one.folder):
            ended = _run(one)
    except Exception as error:  # noqa: BLE001 - told, or raised again: it is the outcome
        ended = error
    return one.settle(ended)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One go at an assignment, by a worker that was told to begin it."""

    place: Place
    assignment: Assignment
    job: Job
    line: StudyLine
    reporter: StudyReporter
    kept: PausingSink
    """Where its checkpoint is."""
    sink: CheckpointSink
    """The same, which leaves when the worker's node is about to go."""

    @classmethod
    def of(
        cls, place: Place, assignment: Assignment, job: Job, line: StudyLine, notice: Callable[[], bool]
    ) -> "Attempt":
        reporter = StudyReporter(line, assignment, job, place.space.objectives)
        kept = PausingSink(trial_folder(place, assignment), job, reporter)
        sink = LeavingSink(kept, job, notice)
        return cls(place=place, assignment=assignment, job=job, line=line, reporter=reporter, kept=kept, sink=sink)

    @property
    def folder(self) -> Path:
        return trial_folder(self.place, self.assignment)

    def settle(self, ended: Outcome | Exception) -> Assignment | None:
        """Tell how it ended; returns what is to be run next where memory was short.

        Raises what is no ending of this run: a line that is lost, a disk that is full, a worker that has to leave.
        """
        if isinstance(ended, Paused):
            return None
        if isinstance(ended, Diverged):
            ended = failure(f"NaN: {ended}")
        if isinstance(ended, Exception):
            return self._broken(ended)
        if self.job.rank == 0:
            self.line.finish(self.assignment, ended)
            self.kept.forget()
        return None

    def _broken(self, error: Exception) -> Assignment | None:
        alone = self.job.workers.world == 1
        if isinstance(error, LineLost | Restart) or no_room(error):
            raise error
        if not alone and lost_a_worker(error):  # it goes on elsewhere, as after its own death
            raise error
        again = _told_why(error, self.assignment, self.folder, self.line)
        if alone:
            return again
        if again is not None:
            raise Restart from error
        raise error


def _told_why(error: Exception, assignment: Assignment, folder: Path, line: StudyLine) -> Assignment | None:
    """Tell the failure, or hear how to go on; the traceback is kept in either case."""
    reason = _why(error, folder)
    again = line.out_of_memory(assignment) if out_of_memory(error) else None
    if again is None:
        line.finish(assignment, failure(reason))
    return again


def free_memory() -> None:
    """What an attempt has left, exceptions and their frames included."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trial_folder(place: Place, assignment: Assignment) -> Path:
    """Where a run keeps its checkpoint, and what is known of its failure."""
    return Path(place.folder) / "trials" / assignment.key


def _why(error: Exception, folder: Path) -> str:
    """The reason in a line; the traceback goes to a file beside the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR_FILE).write_text("".join(traceback.format_exception(error)))
    kind = "OOM" if out_of_memory(error) else "crash"
    words = " ".join(str(error).split())
    return f"{kind}: {type(error).__name__}: {words[:300]} (traceback: {folder / ERROR_FILE})"


def out_of_memory(error: Exception) -> bool:
    """PyTorch says so by type on a GPU and by words on a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _run(one: Attempt) -> Outcome:
    """Measure what is constrained, and train what keeps within."""
    measured, broken_by = limits_of(one)
    if broken_by:
        return infeasible(measured, broken_by)
    return outcome_of(one, fit(one.job, one.reporter, one.sink), measured)


def limits_of(one: Attempt) -> tuple[dict[str, float], str]:
    """What was measured for the space's constraints, and which are broken, in words; empty in the second phase."""
    constraints, job = one.place.space.constraints, one.job
    if one.assignment.phase == "seeds" or not constraints.limits():
        return {}, ""
    measured = footprint(job, constraints) if job.rank == 0 else {}
    reason = broken(measured, constraints)
    return measured, (reason or "another worker's") if agreed(job, bool(reason)) else ""


def outcome_of(one: Attempt, trained: Trained, measured: dict[str, float]) -> Outcome:
    """What a trained run comes to; the second phase judges it under many masks."""
    place, assignment, job = one.place, one.assignment, one.job
    metrics: dict[str, Curve] = trained.kept.metrics
    diagnostics: dict[str, Curve] = {}
    cost = trained.kept.cost
    if assignment.phase == "seeds":
        outputs = masked_outputs(job, trained.model, trained.state, place.space.second_phase.mask_seeds)
        metrics = mean_curves(job, outputs)
        if job.rank == 0:
            save_predictions(predictions_file(Path(place.folder), assignment), outputs)
            diagnostics = diagnostic_curves(job, trained)
        cost = reduce_curve(metrics[job.spec.objective.metric], job.spec.objective)
    costs = {"the objective": cost} | objective_costs(metrics, place.space.objectives)
    for name, value in costs.items():
        if not math.isfinite(value):
            return failure(f"NaN: {name} of the kept epoch is {value}")
    return Outcome(
        state="pruned" if trained.stopped else "complete",
        cost=cost,
        best_epoch=trained.kept.epoch,
        metrics=metrics,
        train_seconds=trained.history[-1].train_seconds,
        diagnostics=diagnostics,
        constraints=measured,
    )
