"""Optuna's samplers from a spec, with every default written out because Optuna's have changed.

A sampler is built anew for each question with a seed from (study seed, arm, trial number), so that replaying a prefix
of the journal reproduces every suggestion, whatever ran in between.
"""

import copy
import hashlib
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.samplers._gp.sampler import _get_params
from optuna.trial import FrozenTrial, TrialState

from gapwise.errors import SpecError
from gapwise.spec.search import SamplerSpec

optuna.logging.set_verbosity(optuna.logging.WARNING)


_MODELLED = 300
"""Trials of an arm that `auto` leaves to a Gaussian process: a question takes 0.6 seconds then, and ever more."""
_TELLING = (TrialState.COMPLETE, TrialState.PRUNED)
"""Endings that a Parzen estimator learns from."""


class Question(NamedTuple):
    """Which suggestion is asked for."""

    study_seed: int
    arm: str
    number: int
    """How many the arm was asked before."""

    @property
    def seed(self) -> int:
        """31 bits from all three."""
        text = f"{self.study_seed}\x1f{self.arm}\x1f{self.number}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1

    @property
    def arm_seed(self) -> int:
        """The same for every question of an arm, for samplers that walk along one sequence."""
        return self._replace(number=-1).seed


def settled(spec: SamplerSpec, number: int, objectives: int) -> SamplerSpec:
    """What `auto` is for a question of an arm. It depends on nothing that a resumed study might change."""
    if spec.name != "auto":
        return spec
    return spec.model_copy(update={"name": "gp" if objectives == 1 and number < _MODELLED else "tpe"})


def build_sampler(spec: SamplerSpec, question: Question, space: Mapping[str, BaseDistribution]) -> BaseSampler:
    """The sampler for one question, `auto` being settled. Raises SpecError for `cmaes` without its package."""
    assert spec.name != "auto", "not settled"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _build(spec, question, space)


def _build(spec: SamplerSpec, question: Question, space: Mapping[str, BaseDistribution]) -> BaseSampler:
    match spec.name:
        case "random":
            return RandomSampler(seed=question.seed)
        case "gp":
            return _GaussianProcess(
                seed=question.seed,
                n_startup_trials=spec.startup,
                deterministic_objective=False,
                independent_sampler=RandomSampler(seed=question.seed),
                warn_independent_sampling=False,
            )
        case "cmaes":
            return _cmaes(spec, question)
        case "grid":
            return _Grid({path: grid_values(one, spec.points) for path, one in space.items()}, seed=question.arm_seed)
        case "qmc":
            return _Sobol(question, space)
    return _Parzen(
        space,
        seed=question.seed,
        n_startup_trials=spec.startup,
        multivariate=spec.multivariate,
        group=spec.group,
        constant_liar=spec.constant_liar,
    )


def _cmaes(spec: SamplerSpec, question: Question) -> BaseSampler:
    try:
        return CmaEsSampler(
            seed=question.seed,
            n_startup_trials=spec.startup,
            independent_sampler=RandomSampler(seed=question.seed),
            warn_independent_sampling=False,
        )
    except ImportError as error:
        raise SpecError("needs the package cmaes: pip install cmaes", where="sampler.name: cmaes") from error


class _Parzen(TPESampler):
    """Is told the space, which Optuna would read from every trial on record at every question: a third of its time."""

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._whole = dict(sorted(space.items()))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._group or not self._multivariate:
            return super().infer_relative_search_space(study, trial)
        on_record = study._get_trials(deepcopy=False, use_cache=True)
        return self._whole if any(one.state in _TELLING for one in on_record) else {}


class _GaussianProcess(GPSampler):
    """Three things beside Optuna's.

    It keeps to what it suggested for a trial before its driver died; Optuna would count that as somebody else's. Its
    models of the constraints also learn from what broke one: that has no objective, so Optuna leaves it out. And its
    model of a single objective learns from trials that were stopped early (`foreseen`), which Optuna leaves out too;
    they also count towards `startup`.
    """

    _stopped: tuple[FrozenTrial, ...] = ()
    _seen: tuple[FrozenTrial, ...] = ()
    _broken: tuple[FrozenTrial, ...] = ()
    _constraints: tuple[str, ...] = ()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        known = _get_params(trial)
        if search_space and search_space.keys() <= known.keys():
            return {path: known[path] for path in search_space}
        self._stopped = tuple(study._get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
        if len(study.directions) == 1:
            complete = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._seen = tuple(foreseen(complete, self._stopped))
            self._n_startup_trials = max(1, self._n_startup_trials - len(self._seen))
        return super().sample_relative(study, trial, search_space)

    def _sample_relative_impl(
        self, study: optuna.Study, completed: list[FrozenTrial], running: list[FrozenTrial], space: Any
    ) -> dict[str, Any]:
        self._broken = tuple(one for one in self._stopped if any(excess > 0.0 for excess in one.constraints.values()))
        self._constraints = tuple(completed[0].constraints)
        return super()._sample_relative_impl(study, [*completed, *self._seen], running, space)

    def _get_constraints_acqf_args(
        self, constraint_vals: Any, internal_search_space: Any, normalized_params: Any
    ) -> tuple[list[Any], list[float]]:
        """Each constraint by itself, because what broke one of them may not have been measured for the others."""
        models: list[Any] = []
        thresholds: list[float] = []
        for index, name in enumerate(self._constraints):
            known = [one for one in self._broken if name in one.constraints]
            values, places = constraint_vals[:, [index]], normalized_params
            if known:
                values = np.vstack([values, [[one.constraints[name]] for one in known]])
                places = np.vstack([places, internal_search_space.get_normalized_params(known)])
            self._constraints_gprs_cache_list = None
            fitted, threshold = super()._get_constraints_acqf_args(values, internal_search_space, places)
            models += fitted
            thresholds += threshold
        return models, thresholds


def foreseen(complete: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Pruned trials as if they had gone on (ours): from the best epoch so far, they gain what complete trials gained.

    That gain is the median over complete trials, from the best until that epoch to their value. Complete trials are
    those that went on to be good, so it is too kind rather than too strict. Trials without an epoch are left out.
    """
    curves = [(one.intermediate_values, one.values[0]) for one in complete if one.intermediate_values]
    if not curves:
        return []
    gains: dict[int, float] = {}
    seen = []
    for one in pruned:
        epoch = one.last_step
        if epoch is None:
            continue
        if epoch not in gains:
            gains[epoch] = statistics.median(value - _best(curve, epoch) for curve, value in curves)
        told = copy.copy(one)
        told.state, told.values = TrialState.COMPLETE, [_best(one.intermediate_values, epoch) + gains[epoch]]
        seen.append(told)
    return seen


def _best(curve: Mapping[int, float], until: int) -> float:
    return min((cost for epoch, cost in curve.items() if epoch <= until), default=math.inf)


class _Grid(GridSampler):
    """One shuffled order for all questions; the book sees its end, where Optuna would stop a loop of its own."""

    def after_trial(self, *_: Any) -> None:
        pass


class _Sobol(QMCSampler):
    """A point of the sequence by the question's number, whatever finished first; choices are drawn at random.

    Optuna counts points in the study instead, and takes the space from the first finished trial.
    """

    def __init__(self, question: Question, space: Mapping[str, BaseDistribution]) -> None:
        super().__init__(
            qmc_type="sobol",
            scramble=True,
            seed=question.arm_seed,
            independent_sampler=RandomSampler(seed=question.seed),
            warn_independent_sampling=False,
        )
        self._number = question.number
        self._numbers = {path: one for path, one in space.items() if not isinstance(one, CategoricalDistribution)}

    def infer_relative_search_space(self, *_: Any) -> dict[str, BaseDistribution]:
        return self._numbers

    def _find_sample_id(self, *_: Any) -> int:
        return self._number


def grid_values(one: BaseDistribution, points: int) -> list[Any]:
    """Values of one parameter: its choices, or `points` of its range, evenly spread; whole numbers occur once."""
    if isinstance(one, CategoricalDistribution):
        return list(one.choices)
    assert isinstance(one, FloatDistribution | IntDistribution)
    ends = (math.log(one.low), math.log(one.high)) if one.log else (one.low, one.high)
    spread = [ends[0] + (ends[1] - ends[0]) * index / (points - 1) for index in range(points)]
    values = [math.exp(value) if one.log else value for value in spread]
    if isinstance(one, IntDistribution):
        return sorted({round(value) for value in values})
    return [one.low, *values[1:-1], one.high]


def grid_size(space: Mapping[str, BaseDistribution], points: int) -> int:
    """How many combinations a grid has."""
    return math.prod(len(grid_values(one, points)) for one in space.values())
