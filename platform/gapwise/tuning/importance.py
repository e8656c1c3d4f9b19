"""How much of the differences between an arm's trials each parameter explains, by Optuna's own estimators.

fANOVA (Hutter, Hoos & Leyton-Brown 2014) looks at the whole space, PED-ANOVA (Watanabe, Bansal & Hutter 2023) at what
tells the best tenth from the rest. Both are estimates from the trials there are: few trials say little, and that is
why none is given below `FEWEST`.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import optuna
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import TrialState, create_trial

from gapwise.spec.search import SearchSpec
from gapwise.tuning.reading import TrialRecord
from gapwise.tuning.space import distributions

FEWEST = 10
"""Complete trials of an arm that an estimate needs."""
MOST = 200
"""Trials that are looked at, evenly spread: fANOVA's forest grows with them."""
_TREES = 32


class Importance(NamedTuple):
    """Shares of an arm's parameters, each estimate adding up to 1."""

    trials: int
    """Complete ones that it is from."""
    fanova: dict[str, float]
    ped_anova: dict[str, float]


def importance(space: SearchSpec, arm: str, trials: Sequence[TrialRecord]) -> Importance | None:
    """Of an arm's complete search trials; None where they are too few or all alike."""
    complete = [one for one in trials if one.assignment.arm == arm and one.outcome.eligible]
    usable = _spread([one for one in complete if one.outcome.cost is not None])
    if len(usable) < FEWEST or len({one.outcome.cost for one in usable}) < 2:
        return None
    study = _replayed(space, arm, usable)
    forest = FanovaImportanceEvaluator(n_trees=_TREES, seed=space.seed)
    return Importance(len(complete), _shares(study, forest), _shares(study, PedAnovaImportanceEvaluator()))


def _spread(trials: list[TrialRecord]) -> list[TrialRecord]:
    step = max(1, -(-len(trials) // MOST))
    return trials[::step]


def _replayed(space: SearchSpec, arm: str, trials: Sequence[TrialRecord]) -> optuna.Study:
    """A study in memory, made of just these: the one on disk has several objectives, or a database behind it."""
    known = distributions(space, arm)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.add_trials(
        [
            create_trial(
                state=TrialState.COMPLETE,
                value=one.outcome.cost,
                params=one.assignment.values,
                distributions={path: known[path] for path in one.assignment.values},
            )
            for one in trials
        ]
    )
    return study


def _shares(study: optuna.Study, evaluator: BaseImportanceEvaluator) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PED-ANOVA is called experimental, and warns where all of a tenth are alike
        found = get_param_importances(study, evaluator=evaluator)
    return {path: float(share) for path, share in found.items()}
