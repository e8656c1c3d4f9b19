"""The loader's one promise: whatever is wrong in a YAML file, a person reads where it is and what would be right.

Nothing is faked; the YAML files are written to a temporary folder.
"""

from pathlib import Path

import pytest

from gapwise.errors import SpecError
from gapwise.spec.base import Spec
from gapwise.spec.loader import allowed_keys, load_spec, override, validate
from gapwise.spec.model import LateFusionSpec, PrlfSpec, PromiseSpec, model_names
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import TrainSpec


@pytest.fixture
def refusal(tmp_path: Path):
    """Loads YAML text, expects a refusal, and returns the error with the file's path cut to `FILE`."""

    def call(text: str, *overrides: str, kind: type[Spec] = TrainSpec) -> str:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        with pytest.raises(SpecError) as caught:
            load_spec(kind, path, overrides)
        return str(caught.value).replace(str(path), "FILE")

    return call


def load(tmp_path: Path, text: str, *overrides: str) -> TrainSpec:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return load_spec(TrainSpec, path, overrides)


SPACE = """
question: which is better?
arms:
  promise:
    parameters:
      model.tau_cross: {role: searched, low: 0.05, high: 1.0, log: true}
"""


class TestUnknownKeys:
    def test_the_error_names_file_key_path_nearest_name_and_allowed_keys(self, refusal):
        message = refusal("optimiser: {wamup: 0.2}")

        assert message == (
            "FILE: optimiser.wamup: unknown key 'wamup'; did you mean 'warmup'? "
            "(allowed: clip, lr, warmup, weight_decay)"
        )

    def test_at_the_top_level(self, refusal):
        assert refusal("epoch: 3").startswith("FILE: epoch: unknown key 'epoch'; did you mean 'epochs'? (allowed: ")

    def test_nothing_is_suggested_where_nothing_is_near(self, refusal):
        assert "did you mean" not in refusal("zzz: 3")

    def test_the_branch_of_a_union_does_not_leak_into_the_path(self, refusal):
        message = refusal("model: {name: promise, tau_crss: 0.2}")

        assert message.startswith("FILE: model.tau_crss: unknown key 'tau_crss'; did you mean 'tau_cross'?")
        assert "prompt_length" in message and "fisher" not in message

    def test_inside_a_parameter_of_an_arm(self, refusal):
        message = refusal(SPACE.replace("log: true", "logg: true"), kind=SearchSpec)

        assert message == (
            "FILE: arms.promise.parameters.model.tau_cross.logg: unknown key 'logg'; did you mean 'log'? "
            "(allowed: high, integer, log, low, role)"
        )

    def test_inside_an_arm(self, refusal):
        message = refusal(SPACE.replace("parameters", "parameter"), kind=SearchSpec)

        assert message.startswith("FILE: arms.promise.parameter: unknown key 'parameter'; did you mean 'parameters'?")

    def test_a_misspelt_required_key_is_reported_as_misspelt_not_as_missing(self, refusal):
        assert "did you mean 'question'?" in refusal(SPACE.replace("question", "qestion"), kind=SearchSpec)

    @pytest.mark.parametrize("path", [["model", "promise"], ["model", "prlf"], ["protocol"], ["objective"]])
    def test_allowed_keys_are_those_of_the_class_at_that_path(self, path):
        classes = {"promise": PromiseSpec, "prlf": PrlfSpec}
        expected = classes.get(path[-1]) or type(getattr(TrainSpec(), path[0]))

        assert allowed_keys(TrainSpec, path) == set(expected.model_fields)


class TestValues:
    def test_an_unknown_model_is_refused_with_the_known_ones_and_the_nearest(self, refusal):
        message = refusal("model: {name: promisse}")

        allowed = ", ".join(sorted(model_names()))
        assert message == f"FILE: model: unknown name 'promisse'; did you mean 'promise'? (allowed: {allowed})"

    def test_a_model_without_a_name_is_refused(self, refusal):
        assert refusal("model: {width: 64}") == "FILE: model: required key 'name' is missing"

    def test_a_model_that_is_no_mapping_is_refused_with_what_was_given(self, refusal):
        message = refusal("model: promise")

        assert message.startswith("FILE: model: ") and message.endswith("got 'promise'")

    @pytest.mark.parametrize("rate", ["-0.1", "1.5"])
    def test_a_rate_outside_0_and_1_is_refused_and_echoed(self, refusal, rate):
        message = refusal(f"protocol: {{rates: [0.0, {rate}]}}")

        assert message.startswith("FILE: protocol.rates.1: ") and message.endswith(f"got {rate}")

    @pytest.mark.parametrize("rates", ["[]", "[0.5, 0.3]", "[0.3, 0.3]"])
    def test_rates_are_ascending_distinct_and_at_least_one(self, refusal, rates):
        assert refusal(f"protocol: {{rates: {rates}}}").startswith("FILE: protocol.rates: rates must be ascending")

    def test_a_rate_that_its_key_cannot_tell_apart_is_refused(self, refusal):
        assert "two decimals at most, got 0.331" in refusal("protocol: {rates: [0.331, 0.333]}")

    @pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
    def test_numbers_that_are_not_finite_are_refused(self, refusal, value):
        assert refusal(f"optimiser: {{clip: {value}}}").startswith("FILE: optimiser.clip: Input should be a finite")

    def test_heads_must_divide_width_and_the_union_branch_does_not_leak(self, refusal):
        message = refusal("model: {name: prlf, width: 20, heads: 8}")

        assert message == "FILE: model: heads must divide width, got heads 8 and width 20"

    def test_reversed_bounds_are_refused(self, refusal):
        message = refusal(SPACE.replace("high: 1.0", "high: 0.01"), kind=SearchSpec)

        assert message == (
            "FILE: arms.promise.parameters.model.tau_cross: low must be below high, got low 0.05 and high 0.01"
        )

    def test_a_missing_bound_names_the_key_without_the_branch(self, refusal):
        message = refusal(SPACE.replace(", high: 1.0", ""), kind=SearchSpec)

        assert message == "FILE: arms.promise.parameters.model.tau_cross: required key 'high' is missing"

    def test_a_missing_key_at_the_top_names_the_file_alone(self, refusal):
        assert refusal("arms: {promise: }", kind=SearchSpec) == "FILE: required key 'question' is missing"

    def test_an_unknown_arm_is_refused_with_the_known_ones(self, refusal):
        message = refusal("question: q\narms: {promis: }", kind=SearchSpec)

        assert message.startswith("FILE: arms.promis: ") and "promise, prlf, late_fusion" in message

    @pytest.mark.parametrize(("given", "hint"), [("many", ""), ("atuo", "; did you mean 'auto'?")])
    def test_a_word_where_a_number_or_another_word_may_stand_is_told_both(self, refusal, given, hint):
        message = refusal(SPACE, f"pack={given}", kind=SearchSpec)

        assert message == f"FILE: pack: unknown '{given}'{hint} (allowed: auto, a whole number)"

    def test_a_word_where_another_one_or_a_truth_value_may_stand_is_told_all(self, refusal):
        message = refusal(SPACE, "compile=often", kind=SearchSpec)

        assert message == "FILE: compile: unknown 'often' (allowed: auto, true, false)"

    def test_an_objective_at_one_rate_needs_that_rate_on_the_grid(self, refusal):
        assert "protocol.rates [0.0, 0.5], got 0.3" in refusal(
            "{objective: {reduce: rate, rate: 0.3}, protocol: {rates: [0.0, 0.5]}}"
        )

    def test_an_objective_at_one_rate_is_refused_where_the_protocol_has_none(self, refusal):
        message = refusal("{objective: {reduce: rate, rate: 0.3}, protocol: {name: modalities}}")

        assert "protocol 'modalities' has no missing rates" in message


class TestFiles:
    def test_a_missing_file_is_refused_by_its_path(self, tmp_path):
        with pytest.raises(SpecError, match=r"absent\.yaml: cannot be read: No such file.*readable YAML file"):
            load_spec(TrainSpec, tmp_path / "absent.yaml")

    def test_bytes_that_are_no_text_are_refused(self, tmp_path):
        (tmp_path / "binary.yaml").write_bytes(b"epochs: \xff\xfe")

        with pytest.raises(SpecError, match="not UTF-8 text"):
            load_spec(TrainSpec, tmp_path / "binary.yaml")

    @pytest.mark.parametrize(("text", "found"), [("- 1\n- 2", "list"), ("seven", "str"), ("", "NoneType")])
    def test_a_top_level_that_is_no_mapping_is_refused(self, refusal, text, found):
        assert refusal(text) == f"FILE: the top level is {found} (allowed: a mapping of keys)"

    def test_a_key_written_twice_is_refused_with_its_line(self, refusal):
        assert (
            refusal("epochs: 1\nseed: 2\nepochs: 3") == "FILE: not valid YAML: key 'epochs' is written twice (line 3)"
        )

    def test_a_key_written_twice_further_down_is_refused_too(self, refusal):
        assert "key 'lr' is written twice" in refusal("optimiser:\n  lr: 0.1\n  lr: 0.2")

    @pytest.mark.parametrize("text", ["epochs: [1", "epochs: 2020-13-45", "{[1]: 2}", "epochs: \x01"])
    def test_bad_yaml_is_one_line(self, refusal, text):
        message = refusal(text)

        assert message.startswith("FILE: not valid YAML: ") and len(message.splitlines()) == 1

    def test_merge_keys_are_read(self, tmp_path):
        spec = load(tmp_path, "optimiser: &o {lr: 0.1}\nprotocol: {rates: [0.0]}\nobjective: {<<: {metric: corr}}")

        assert (spec.optimiser.lr, spec.objective.metric) == (0.1, "corr")

    def test_a_number_without_a_point_before_its_exponent_is_a_number(self, tmp_path):
        path = tmp_path / "space.yaml"
        path.write_text(SPACE + "common: {optimiser.lr: 1e-3}")

        assert load_spec(SearchSpec, path).common == {"optimiser.lr": 0.001}


class TestOverrides:
    def test_values_are_read_as_yaml(self, tmp_path):
        spec = load(
            tmp_path, "epochs: 3", "epochs=5", "protocol.rates=[0.0, 0.25]", "optimiser.lr=1e-4", "model.name=prlf"
        )

        assert (spec.epochs, spec.protocol.rates, spec.optimiser.lr) == (5, (0.0, 0.25), 1e-4)
        assert isinstance(spec.model, PrlfSpec)

    def test_the_last_of_two_wins(self, tmp_path):
        assert load(tmp_path, "{}", "epochs=5", "epochs=6").epochs == 6

    def test_the_mapping_that_was_given_stays_as_it_was(self):
        given = {"optimiser": {"lr": 0.1}}

        assert override(given, ("optimiser.lr=0.2",)) == {"optimiser": {"lr": 0.2}}
        assert given == {"optimiser": {"lr": 0.1}}

    def test_they_obey_the_rules_of_the_file(self, refusal):
        assert refusal("{}", "optimiser.wamup=0.2").startswith(
            "FILE: optimiser.wamup: unknown key 'wamup'; did you mean"
        )
        assert refusal("{}", "protocol.rates=[0.0, 1.5]").endswith("got 1.5")
        assert refusal("{}", "model.name=promisse").startswith("FILE: model: unknown name 'promisse'")

    @pytest.mark.parametrize("setting", ["epochs", "=3", ""])
    def test_what_is_no_assignment_is_refused(self, refusal, setting):
        assert refusal("{}", setting) == f"--set: {setting!r} is not an assignment (allowed: key.path=value)"

    def test_bad_yaml_is_refused(self, refusal):
        assert refusal("{}", "epochs=[1").startswith("--set: the value of 'epochs=[1' is not valid YAML")

    def test_a_key_written_twice_in_a_value_is_refused(self, refusal):
        assert "key 'lr' is written twice" in refusal("{}", "optimiser={lr: 0.1, lr: 0.2}")

    def test_a_path_through_a_value_is_refused(self, refusal):
        assert refusal("epochs: 3", "epochs.x=1") == "--set: 'epochs' in 'epochs.x' is a value, not a mapping"


def test_a_mapping_from_elsewhere_names_where_it_came_from():
    with pytest.raises(SpecError, match=r"^--rates: rates\.0: .*got 2"):
        validate(type(TrainSpec().protocol), {"rates": (2.0,)}, where="--rates")


@pytest.mark.parametrize("kind", [LateFusionSpec, PromiseSpec, PrlfSpec])
def test_the_defaults_of_every_model_validate(kind):
    default = kind()

    assert kind.model_validate(default.model_dump()) == default
    assert validate(TrainSpec, {"model": default.model_dump()}, where="here").model == default


def test_overrides_reach_keys_that_have_dots_themselves() -> None:
    space = {"common": {"model.width": 64}, "arms": {"prlf": {"parameters": {"model.steps": {"low": 1, "high": 4}}}}}
    changed = override(
        space, ("common.model.width=32", "common.model.depth=1", "arms.prlf.parameters.model.steps.low=2")
    )
    assert changed["common"] == {"model.width": 32, "model": {"depth": 1}}
    assert changed["arms"]["prlf"]["parameters"]["model.steps"] == {"low": 2, "high": 4}
    assert SearchSpec.model_validate({"question": "?", "arms": {"prlf": None}, "common": changed["common"]}).common == {
        "model.width": 32,
        "model.depth": 1,
    }


def test_an_override_reaches_below_a_key_that_is_written_as_null() -> None:
    assert override({"warm_start": None}, ("warm_start.studies=[a]",)) == {"warm_start": {"studies": ["a"]}}


def test_on_is_a_word_and_true_is_a_value() -> None:
    """YAML 1.1 would read `pruner: {on: robust}` as {True: "robust"}."""
    assert override({}, ("pruner={name: asha, on: robust}", "a=true", "b=off")) == {
        "pruner": {"name": "asha", "on": "robust"},
        "a": True,
        "b": "off",
    }
