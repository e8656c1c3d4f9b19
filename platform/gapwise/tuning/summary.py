"""From a finished study's evidence to the result that people, `promote` and reports read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gapwise.data.store import open_dataset
from gapwise.errors import StudyError
from gapwise.evaluation.metrics import floor
from gapwise.models.saved import ModelFolder
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.search import BASELINE
from gapwise.tuning.assignment import Finished, count_states
from gapwise.tuning.leaders import best_by_condition, front_members
from gapwise.tuning.refit import Winner, refit_batch, refit_run, shipped
from gapwise.tuning.result import RefitModel, Spread, StudyResult
from gapwise.tuning.second_phase import SecondPhase
from gapwise.tuning.selection import Standing
from gapwise.tuning.trial import Place


class Evidence(NamedTuple):
    """Everything that ran: both phases, the second phase's ranking, and the refitted winners."""

    searched: list[Finished]
    again: SecondPhase
    table: dict[str, list[Standing]]
    models: list[RefitModel]


def refit_model(place: Place, winner: Winner, seeds: list[int]) -> RefitModel:
    """A winner's figures over the seeds that finished, and the one that ships."""
    seed, models = shipped(place, winner, seeds)
    run = refit_run(place, winner, seed)
    return RefitModel(
        trial=winner.key,
        arm=winner.arm,
        values=winner.values,
        spec_fingerprint=fingerprint(run.spec),
        epochs=winner.epochs,
        seeds=sorted(models),
        shipped_seed=seed,
        folder=str(refit_batch(place).place(run).relative_to(place.folder)),
        over_seeds=_over_seeds(list(models.values())),
        shipped=models[seed].validation,
        diagnostics=models[seed].diagnostics,
    )


def _over_seeds(models: list[ModelFolder]) -> dict[str, dict[str, Spread]]:
    spread = 1 if len(models) > 1 else 0
    table: dict[str, dict[str, Spread]] = {}
    for metric, curve in models[0].validation.items():
        values = {condition: np.array([model.validation[metric][condition] for model in models]) for condition in curve}
        table[metric] = {
            condition: Spread(mean=float(value.mean()), sd=float(value.std(ddof=spread)))
            for condition, value in values.items()
        }
    return table


def summarise(
    name: str, place: Place, evidence: Evidence, *, parent_run_id: str, wall_seconds: float, search_seconds: float
) -> StudyResult:
    """The study's result. Raises StudyError where the second phase left nothing."""
    if not evidence.table:
        raise StudyError("every run of the second phase failed", where=place.folder)
    dataset, space = open_dataset(Path(place.data)), place.space
    arms = {arm: [run.outcome for run in evidence.searched if run.assignment.arm == arm] for arm in space.arm_names()}
    return StudyResult(
        study=name,
        question=space.question,
        task=dataset.manifest.task,
        dataset=dataset.manifest.name,
        data=place.data,
        fingerprints=dataset.fingerprints(),
        spec_fingerprint=fingerprint(space),
        protocol=space.train.protocol,
        objective=space.train.objective,
        mask_seeds=space.second_phase.mask_seeds,
        trials=count_states(run.outcome for run in evidence.searched),
        arms={arm: count_states(outcomes) for arm, outcomes in arms.items()},
        wall_seconds=wall_seconds,
        search_seconds=search_seconds,
        train_seconds=sum(run.outcome.train_seconds for run in evidence.searched),
        best=best_by_condition(evidence.table, space.train.objective.metric, baseline=False),
        baseline=best_by_condition(evidence.table, space.train.objective.metric, baseline=True),
        floor=dict(floor(dataset.train.labels, dataset.valid.labels, dataset.manifest.shape())),
        models=evidence.models,
        objectives=space.objectives,
        front=front_members(evidence.again.repeats, space.objectives),
        baseline_front=front_members(evidence.again.repeats, space.objectives, only=BASELINE),
        search_front=front_members(evidence.searched, space.objectives),
        dropped={f"{arm}-{source}": dict(where) for (arm, source), where in evidence.again.dropped.items()},
        runs_saved=evidence.again.runs_saved,
        parent_run_id=parent_run_id,
    )
