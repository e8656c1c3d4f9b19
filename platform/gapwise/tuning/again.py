"""Configurations that won before, trained again on the data of now: no search, fresh seeds, as many epochs as then.

The result is a study's like any other, without trials: the same gate weighs it, the same commands show it. Which of the
configurations asks for a rate is decided by their validation means over seeds, as after a search.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gapwise.data.store import open_dataset
from gapwise.errors import SpecError
from gapwise.evaluation.objective import as_cost
from gapwise.spec.base import flat
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import TrainSpec
from gapwise.tuning.journal import JOURNAL_FILE
from gapwise.tuning.observer import Watcher
from gapwise.tuning.opening import settled_space
from gapwise.tuning.refit import Winner
from gapwise.tuning.result import RefitModel, StudyResult, save_result
from gapwise.tuning.second_phase import SecondPhase
from gapwise.tuning.selection import Standing
from gapwise.tuning.standing import on_the_cluster
from gapwise.tuning.study import Stages, StudyPlan, refitted
from gapwise.tuning.summary import Evidence, summarise

_SHARED = ("protocol", "objective")
_OWN = {*_SHARED, "seed", "epochs"}


def refit_space(specs: Mapping[str, TrainSpec], question: str, *, seeds: int, mask_seeds: int, seed: int) -> SearchSpec:
    """The space of a study that only refits `specs`, {version: what it was trained as}.

    Raises SpecError where they are not of one protocol and objective: no study could compare them.
    """
    first = next(iter(specs.values()))
    for version, spec in specs.items():
        other = [name for name in _SHARED if getattr(spec, name) != getattr(first, name)]
        if other:
            raise SpecError(
                f"champions of another {' and '.join(other)} cannot be refitted in one study",
                where=f"version {version}",
                allowed="champions of one protocol and objective, or mode: {kind: study}",
            )
    return SearchSpec.model_validate(
        {
            "question": question,
            "arms": {spec.model.name: {} for spec in specs.values()},
            "train": {name: getattr(first, name).model_dump(mode="json") for name in _SHARED},
            "second_phase": {"seeds": seeds, "mask_seeds": mask_seeds},
            "seed": seed,
        }
    )


def refit_winners(specs: Mapping[str, TrainSpec]) -> list[Winner]:
    """One winner a version, whose values are everything that it was trained with."""
    return [
        Winner(spec.model.name, int(version), _values(spec), spec.epochs, spec.micro_batch)
        for version, spec in specs.items()
    ]


def _values(spec: TrainSpec) -> dict[str, Any]:
    values = flat(spec.model_dump(mode="json", exclude=_OWN))
    return {path: value for path, value in values.items() if path != "model.name"}


def run_refit(
    plan: StudyPlan, stages: Stages, watchers: list[Watcher], parent_run_id: str, *, winners: Sequence[Winner]
) -> StudyResult:
    """Train, or go on training, and choose. As `run_study`; nobody watches trials, for there are none."""
    del watchers
    plan = replace(plan, space=settled_space(plan.space, open_dataset(plan.data)))
    (plan.folder / JOURNAL_FILE).touch()  # a study without trials, for whoever reads it
    with on_the_cluster(plan.turns, plan.folder):
        models = refitted(plan, list(winners), stages)
    table = _standings(models, plan.space.train.objective.metric, {one.key: one for one in winners})
    evidence = Evidence([], SecondPhase([], {}, {}, 0), table, models)
    seconds = time.perf_counter() - plan.began
    result = summarise(
        plan.name, plan.place, evidence, parent_run_id=parent_run_id, wall_seconds=seconds, search_seconds=0.0
    )
    save_result(plan.folder, result)
    return result


def _standings(models: Sequence[RefitModel], metric: str, winners: Mapping[str, Winner]) -> dict[str, list[Standing]]:
    """Every configuration at every condition, best mean first."""
    table: dict[str, list[Standing]] = {}
    for condition in models[0].over_seeds[metric]:
        rows = []
        for model in models:
            figure = model.over_seeds[metric][condition]
            source = winners[model.trial].source
            rows.append(Standing(model.arm, source, figure.mean, figure.sd, len(model.seeds)))
        table[condition] = sorted(rows, key=lambda row: (as_cost(metric, row.mean), row.source))
    return table
