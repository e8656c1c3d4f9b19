"""Optuna's samplers behind one function: what each suggests in a small space, on an in-memory Optuna study."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import intersection
from optuna.trial import FrozenTrial, TrialState, create_trial

from gapwise.errors import SpecError
from gapwise.spec.search import SamplerSpec
from gapwise.tuning import searchers
from gapwise.tuning.searchers import Question, build_sampler, foreseen, grid_size, grid_values, settled

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "steps": IntDistribution(1, 4),
    "fisher": CategoricalDistribution(("precision", "trace")),
    "dropout": FloatDistribution(0.0, 0.5),
}


def asked(count: int, *, seed: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Questions and answers in turn; the objective is best near dropout 0.2."""
    study = optuna.create_study()
    values = []
    for number in range(count):
        study.sampler = build_sampler(SamplerSpec.model_validate(fields), Question(seed, "prlf", number), SPACE)
        trial = study.ask(SPACE)
        values.append(dict(trial.params))
        study.tell(trial, abs(trial.params["dropout"] - 0.2))
    return values


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random", "grid", "qmc"])
def test_every_sampler_stays_in_the_space_and_repeats_itself_for_the_same_seed(name: str) -> None:
    first = asked(7, name=name, startup=3)
    for values in first:
        assert all(SPACE[path]._contains(SPACE[path].to_internal_repr(value)) for path, value in values.items())
    assert first == asked(7, name=name, startup=3)
    assert first != asked(7, name=name, startup=3, seed=1)


@pytest.mark.parametrize(
    ("number", "objectives", "name"), [(0, 1, "gp"), (299, 1, "gp"), (300, 1, "tpe"), (0, 2, "tpe")]
)
def test_what_auto_is_depends_on_the_question_and_the_objectives_alone(number: int, objectives: int, name: str) -> None:
    spec = SamplerSpec(startup=5)
    assert settled(spec, number, objectives) == SamplerSpec.model_validate({"name": name, "startup": 5})
    assert settled(SamplerSpec(name="qmc"), number, objectives).name == "qmc"


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_those_that_learn_come_nearer_than_they_began(name: str) -> None:
    distances = [abs(values["dropout"] - 0.2) for values in asked(40, name=name, startup=8)]
    assert sum(distances[-10:]) < 0.6 * sum(distances[:10])


def half_told(count: int, sampler_of: Callable[[int], BaseSampler]) -> list[dict[str, Any]]:
    """Answers where trials also fail, are pruned or go on running."""
    study = optuna.create_study()
    values = []
    for number in range(count):
        study.sampler = sampler_of(number)
        trial = study.ask(SPACE)
        values.append(dict(trial.params))
        trial.report(trial.params["dropout"], 1)
        ending = (TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE, TrialState.RUNNING)[number % 4]
        if ending is not TrialState.RUNNING:
            study.tell(trial, trial.params["dropout"] if ending is TrialState.COMPLETE else None, state=ending)
    return values


def test_tpe_suggests_what_optuna_s_own_would_without_reading_the_space_from_every_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def own(number: int) -> BaseSampler:
        seed = Question(0, "prlf", number).seed
        return TPESampler(seed=seed, n_startup_trials=5, multivariate=True, constant_liar=True)

    def forbidden(*_: Any) -> None:
        raise AssertionError("reads every trial")

    expected = half_told(40, own)
    monkeypatch.setattr(intersection, "_calculate", forbidden)
    spec = SamplerSpec(name="tpe", startup=5)
    assert half_told(40, lambda number: build_sampler(spec, Question(0, "prlf", number), SPACE)) == expected


def test_a_grid_visits_every_combination_once() -> None:
    points = asked(3 * 3 * 2 * 3, name="grid", points=3)
    assert len({tuple(sorted(one.items())) for one in points}) == grid_size(SPACE, 3) == 3 * 3 * 2 * 3


def test_grid_values_lie_evenly_on_the_scale_and_whole_numbers_occur_once() -> None:
    assert grid_values(SPACE["lr"], 3) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert grid_values(SPACE["dropout"], 3) == [0.0, 0.25, 0.5]
    assert grid_values(SPACE["steps"], 10) == [1, 2, 3, 4]
    assert grid_values(SPACE["fisher"], 3) == ["precision", "trace"]


def test_the_quasi_random_sequence_is_spread_more_evenly_than_chance() -> None:
    """16 points of a scrambled Sobol sequence lie in 16 different sixteenths of every axis."""
    cells = {int(values["dropout"] / 0.5 * 16) for values in asked(16, name="qmc")}
    assert len(cells) == 16


def test_grouped_needs_joint() -> None:
    with pytest.raises(ValueError, match="group: true needs multivariate: true"):
        SamplerSpec(group=True, multivariate=False)


def test_a_sampler_whose_package_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> None:
        raise ImportError("no cmaes")

    monkeypatch.setattr(searchers, "CmaEsSampler", missing)
    with pytest.raises(SpecError, match=r"sampler.name: cmaes: needs the package cmaes: pip install cmaes"):
        build_sampler(SamplerSpec(name="cmaes"), Question(0, "prlf", 0), SPACE)


def ended(state: TrialState, costs: list[float], dropout: float = 0.1) -> FrozenTrial:
    return create_trial(
        state=state,
        value=min(costs) if state is TrialState.COMPLETE else None,
        params={"dropout": dropout},
        distributions={"dropout": SPACE["dropout"]},
        intermediate_values=dict(enumerate(costs, start=1)),
    )


def test_what_a_pruned_trial_would_have_come_to_is_its_best_and_what_others_gained_from_there() -> None:
    complete = [
        ended(TrialState.COMPLETE, [1.0, 0.8, 0.9, 0.5]),  # from its second epoch on it gained 0.3
        ended(TrialState.COMPLETE, [1.0, 0.6, 0.7, 0.5]),  # 0.1
        ended(TrialState.COMPLETE, [1.0, 0.4, 0.5, 0.6]),  # nothing
    ]
    pruned = ended(TrialState.PRUNED, [1.2, 1.3])
    (seen,) = foreseen(complete, [pruned])
    assert (seen.state, seen.params) == (TrialState.COMPLETE, pruned.params)
    assert seen.value == pytest.approx(1.2 - 0.1)
    assert (pruned.state, pruned.value) == (TrialState.PRUNED, None)


def test_nothing_is_foreseen_without_a_curve_on_either_side() -> None:
    complete, pruned = ended(TrialState.COMPLETE, [1.0]), ended(TrialState.PRUNED, [1.0])
    complete_without, pruned_without = ended(TrialState.COMPLETE, [1.0]), ended(TrialState.PRUNED, [])
    complete_without.intermediate_values = {}
    assert foreseen([complete_without], [pruned]) == []
    assert foreseen([complete], [pruned_without]) == []


def suggested_dropouts(study: optuna.Study) -> list[float]:
    """What a Gaussian process asks for after these trials, by six questions' seeds."""
    space = {"dropout": SPACE["dropout"]}
    values = []
    for number in range(6):
        study.sampler = build_sampler(SamplerSpec(name="gp"), Question(0, "prlf", number), space)
        values.append(study.ask(space).params["dropout"])
    return values


def test_a_gaussian_process_keeps_away_from_where_trials_were_stopped_early() -> None:
    """Complete trials say nothing about dropout; all that were stopped had much of it."""

    def suggested(state: TrialState) -> list[float]:
        study = optuna.create_study()
        for index in range(8):
            study.add_trial(ended(TrialState.COMPLETE, [0.5 + 0.01 * (index % 3)], dropout=0.02 * index))
            study.add_trial(ended(state, [0.9], dropout=0.3 + 0.02 * index))
        return suggested_dropouts(study)

    assert max(suggested(TrialState.PRUNED)) < 0.3 < max(suggested(TrialState.FAIL))


def test_a_gaussian_process_begins_as_early_as_trials_that_were_stopped_allow() -> None:
    """One complete trial and seven that were stopped are as many as a `startup` of eight asks for."""

    def suggested(stopped: int) -> list[float]:
        study = optuna.create_study()
        study.add_trial(ended(TrialState.COMPLETE, [0.5, 0.5], dropout=0.02))
        for index in range(stopped):
            study.add_trial(ended(TrialState.PRUNED, [0.5 + 0.1 * index], dropout=0.06 * (index + 1)))
        return suggested_dropouts(study)

    assert max(suggested(7)) < 0.2 < max(suggested(6))
