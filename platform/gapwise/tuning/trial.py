"""Running one assignment: the same story for both executors and both phases.

assignment -> training spec -> dataset (opened once a process) -> `fit` -> curve of the kept weights -> outcome
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from gapwise.data.store import opened
from gapwise.evaluation.objective import Curve, reduce_curve
from gapwise.spec.search import SearchSpec
from gapwise.training.checkpoint import DirectorySink
from gapwise.training.decision import SharedDecision
from gapwise.training.job import Diverged, Job, Trained, whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport
from gapwise.training.validation import diagnostic_curves, masked_outputs, mean_curves
from gapwise.tuning.assignment import Assignment, Outcome, failure
from gapwise.tuning.predictions import predictions_file, save_predictions
from gapwise.tuning.space import trial_spec


class StudyLine(Protocol):
    """How a worker talks to the study's book."""

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> bool:
        """Tell an epoch, hear whether to stop."""

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        """Tell the ending."""


class Place(NamedTuple):
    """Where a study's workers find things; the same on every node."""

    space: SearchSpec
    data: str
    folder: str


class StudyReporter:
    """Passes each epoch on to the study's book and brings its answer back."""

    def __init__(self, line: StudyLine, assignment: Assignment, metric: str) -> None:
        self._line, self._assignment, self._metric = line, assignment, metric

    def report(self, epoch: EpochReport) -> bool:
        body = {
            "curve": epoch.metrics[self._metric],
            "losses": epoch.losses,
            "epochs": epoch.epochs,
            "samples_per_second": epoch.samples_per_second,
        }
        return self._line.report(self._assignment, epoch.epoch, epoch.cost, body)


def job_of(place: Place, assignment: Assignment) -> Job:
    """The training job of an assignment, for a single worker on this process's device."""
    spec = trial_spec(place.space, assignment.arm, assignment.values, seed=assignment.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return replace(whole_job(spec, *opened(place.data)), device=device)


def run_trial(place: Place, assignment: Assignment, job: Job, line: StudyLine) -> None:
    """Train, judge and tell. A configuration that diverges is an outcome; any other error travels to the supervisor."""
    sink = DirectorySink(Path(place.folder) / "trials" / assignment.key, job.spec)
    reporter = SharedDecision(StudyReporter(line, assignment, job.spec.objective.metric), job)
    try:
        outcome = _outcome(place, assignment, job, fit(job, reporter, sink))
    except Diverged as error:
        outcome = failure(f"NaN: {error}")
    if job.rank == 0:
        line.finish(assignment, outcome)
        sink.forget()


def _outcome(place: Place, assignment: Assignment, job: Job, trained: Trained) -> Outcome:
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
    if not math.isfinite(cost):
        return failure(f"NaN: the objective of the kept epoch is {cost}")
    return Outcome(
        state="pruned" if trained.stopped else "complete",
        cost=cost,
        best_epoch=trained.kept.epoch,
        metrics=metrics,
        train_seconds=trained.history[-1].train_seconds,
        diagnostics=diagnostics,
    )
