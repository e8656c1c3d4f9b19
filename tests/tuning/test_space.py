"""Search spaces: distributions, defaults and refusals. Nothing is faked; the shipped files are read as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gapwise.errors import SpecError
from gapwise.spec.loader import load_spec
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import TrainSpec
from gapwise.tuning.space import check_space, default_values, distributions, trial_spec

MakeSpace = Callable[..., SearchSpec]
SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


def prlf(path: str, parameter: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"arms": {"prlf": {"parameters": {path: parameter}}}} | changes


def test_each_parameter_form_becomes_its_distribution_and_fixed_ones_none(make_space: MakeSpace) -> None:
    parameters = {
        "optimiser.lr": {"role": "nuisance", "low": 0.001, "high": 0.1, "log": True},
        "model.steps": {"role": "searched", "low": 1, "high": 4, "integer": True},
        "model.fisher": {"role": "searched", "choices": ["trace", "ema"]},
        "model.dropout": {"role": "fixed", "value": 0.0},
    }
    space = make_space(arms={"prlf": {"parameters": parameters}})
    assert distributions(space, "prlf") == {
        "model.fisher": CategoricalDistribution(("trace", "ema")),
        "model.steps": IntDistribution(1, 4),
        "optimiser.lr": FloatDistribution(0.001, 0.1, log=True),
    }


def test_common_values_hold_for_every_arm_and_fixed_values_for_theirs(make_space: MakeSpace) -> None:
    fixed = {"model.steps": {"role": "fixed", "value": 1}}
    space = make_space(common={"model.width": 16, "model.heads": 2}, arms={"prlf": {"parameters": fixed}})
    searched, baseline = (trial_spec(space, arm, {}, seed=3) for arm in space.arm_names())
    assert (searched.model.width, baseline.model.width) == (16, 16)
    assert searched.model.model_dump()["steps"] == 1
    assert searched.seed == 3


def test_sampled_values_win_over_common_ones(make_space: MakeSpace) -> None:
    space = make_space(common={"optimiser.lr": 0.01})
    assert trial_spec(space, "prlf", {"optimiser.lr": 0.002}, seed=0).optimiser.lr == 0.002


def test_defaults_outside_the_space_are_moved_to_its_nearest_value(make_space: MakeSpace) -> None:
    parameters = {
        "optimiser.lr": {"role": "nuisance", "low": 0.01, "high": 0.1},
        "model.steps": {"role": "searched", "low": 1, "high": 2, "integer": True},
        "model.fisher": {"role": "searched", "choices": ["trace", "ema"]},
        "model.tau_rel": {"role": "searched", "low": 0.1, "high": 2.0},
    }
    space = make_space(arms={"prlf": {"parameters": parameters}})
    assert default_values(space, "prlf") == {
        "model.fisher": "trace",
        "model.steps": 2,
        "model.tau_rel": 0.5,
        "optimiser.lr": 0.01,
    }


def test_a_baseline_that_the_file_does_not_name_tunes_its_nuisances(make_space: MakeSpace) -> None:
    space = make_space(**prlf("model.steps", {"role": "searched", "low": 1, "high": 2, "integer": True}))
    assert set(distributions(space, "late_fusion")) == {"model.dropout", "optimiser.lr", "optimiser.weight_decay"}


@pytest.mark.parametrize(
    ("path", "parameter", "said"),
    [
        ("model.stepz", {"role": "searched", "low": 1, "high": 2}, "did you mean 'steps'"),
        ("optimizer.lr", {"role": "nuisance", "low": 0.1, "high": 0.2}, "did you mean 'optimiser'"),
        ("optimiser.lr", {"role": "nuisance", "low": 0.1, "high": 2.0}, "less than or equal to 1"),
        ("model.dropout", {"role": "nuisance", "low": -0.5, "high": 0.2}, "greater than or equal to 0"),
        ("model.fisher", {"role": "searched", "choices": ["trace", "fisherman"]}, "fisherman"),
        ("model.tau_rel", {"role": "fixed", "value": 0.0}, "greater than 0"),
        ("epochs.more", {"role": "searched", "low": 1, "high": 2}, "not a mapping"),
    ],
)
def test_a_path_or_bound_that_the_model_refuses_is_named(
    make_space: MakeSpace, path: str, parameter: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError) as refused:
        check_space(make_space(**prlf(path, parameter)))
    assert refused.value.where == f"arms.prlf.parameters.{path}"
    assert said in str(refused.value)


def test_a_range_of_fractions_for_a_whole_number_is_refused_before_any_trial_draws_one(make_space: MakeSpace) -> None:
    with pytest.raises(SpecError, match=r"^arms\.prlf\.parameters\.model\.steps: "):
        check_space(make_space(**prlf("model.steps", {"role": "searched", "low": 0, "high": 4})))


def test_the_parameter_that_is_wrong_is_named_and_not_its_neighbour(make_space: MakeSpace) -> None:
    parameters = {
        "optimiser.lr": {"role": "nuisance", "low": 0.01, "high": 0.1},
        "model.tau_rel": {"role": "fixed", "value": -1.0},
    }
    with pytest.raises(SpecError, match=r"^arms\.prlf\.parameters\.model\.tau_rel: "):
        check_space(make_space(arms={"prlf": {"parameters": parameters}}))


@pytest.mark.parametrize("arms", [{"prlf": None}, {"prlf": {"parameters": {}}}])
def test_a_wrong_common_value_is_named_even_where_no_arm_varies_anything(make_space: MakeSpace, arms: Any) -> None:
    with pytest.raises(SpecError, match=r"^common\.model\.widht: unknown key 'widht'; did you mean 'width'"):
        check_space(make_space(arms=arms, common={"model.widht": 32}))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_file_fits_the_models_it_names(file: Path) -> None:
    keys = yaml.safe_load(file.read_text())
    if "arms" in keys:
        check_space(load_spec(SearchSpec, file))
    else:
        assert load_spec(TrainSpec, file).model.name == keys["model"]["name"]


def test_there_are_shipped_files_of_both_kinds() -> None:
    kinds = {"arms" in yaml.safe_load(file.read_text()) for file in SHIPPED}
    assert kinds == {True, False}
