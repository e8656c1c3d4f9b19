"""Search spaces: what a study may ask, the baseline it cannot leave out, and the policy that every field is documented.

Nothing is faked.
"""

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import gapwise.spec
from gapwise.spec.protocol import FIELD_GRID, rate_key
from gapwise.spec.search import Choices, Fixed, Range, SearchSpec

SPEC_FILES = sorted(Path(gapwise.spec.__file__).parent.glob("*.py"))


def space(**changes: Any) -> SearchSpec:
    return SearchSpec.model_validate({"question": "which?", "arms": {"promise": {}, "prlf": None}, **changes})


class TestBounds:
    @pytest.mark.parametrize(("low", "high"), [(1.0, 0.5), (1.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
    def test_low_must_be_below_high_and_both_finite(self, low, high):
        with pytest.raises(ValidationError):
            Range(role="searched", low=low, high=high)

    @pytest.mark.parametrize("low", [0.0, -1.0])
    def test_a_logarithmic_range_starts_above_0(self, low):
        with pytest.raises(ValidationError, match="must start above 0"):
            Range(role="searched", low=low, high=1.0, log=True)

    def test_an_integer_range_has_whole_bounds(self):
        with pytest.raises(ValidationError, match=r"whole bounds, got 1\.5 and 3"):
            Range(role="searched", low=1.5, high=3, integer=True)

    @pytest.mark.parametrize("choices", [[], ["one"], ["one", "one"], [1, 2, 1]])
    def test_choices_are_at_least_two_and_distinct(self, choices):
        with pytest.raises(ValidationError, match="at least two distinct"):
            Choices(role="nuisance", choices=choices)

    def test_choices_keep_their_types(self):
        assert [type(one) for one in Choices(role="searched", choices=(True, 1, 1.0, "1")).choices] == [
            bool,
            int,
            float,
            str,
        ]


class TestForms:
    @pytest.mark.parametrize(
        ("written", "kind"),
        [
            ({"role": "searched", "low": 0, "high": 1}, Range),
            ({"role": "searched", "choices": ["precision", "trace"]}, Choices),
            ({"role": "fixed", "value": 3}, Fixed),
        ],
    )
    def test_a_parameter_is_told_by_its_keys(self, written, kind):
        chosen = space(arms={"prlf": {"parameters": {"model.steps": written}}})

        assert isinstance(chosen.parameters_of("prlf")["model.steps"], kind)

    def test_an_error_speaks_of_one_form_only(self):
        with pytest.raises(ValidationError) as caught:
            space(arms={"prlf": {"parameters": {"model.steps": {"role": "fixed"}}}})

        assert [error["loc"][-1] for error in caught.value.errors()] == ["value"]


class TestBaseline:
    def test_it_is_added_where_the_file_does_not_name_it_and_comes_last(self):
        assert space().arm_names() == ["promise", "prlf", "late_fusion"]

    def test_it_comes_last_and_once_where_the_file_names_it(self):
        assert space(arms={"late_fusion": {}, "prlf": {}}).arm_names() == ["prlf", "late_fusion"]

    def test_an_added_one_tunes_its_nuisances(self):
        added = space().parameters_of("late_fusion")

        assert set(added) == {"optimiser.lr", "optimiser.weight_decay", "model.dropout"}
        assert {one.role for one in added.values()} == {"nuisance"}

    def test_a_named_one_varies_what_the_file_says(self):
        assert space(arms={"late_fusion": {}, "prlf": {}}).parameters_of("late_fusion") == {}

    @pytest.mark.parametrize(
        ("trials", "share", "expected"),
        [(20, 0.2, 4), (21, 0.2, 5), (35, 0.2, 7), (1, 0.2, 1), (7, 1.0, 7), (1, 1e-12, 1)],
    )
    def test_its_trials_are_a_share_rounded_up_and_never_none(self, trials, share, expected):
        chosen = space(trials=trials, baseline_share=share)

        assert chosen.trials_of("late_fusion") == expected
        assert chosen.trials_of("promise") == trials


class TestWhole:
    @pytest.mark.parametrize("arms", [{}, None, []])
    def test_at_least_one_arm_is_needed(self, arms):
        with pytest.raises(ValidationError, match="at least one arm"):
            space(arms=arms)

    def test_a_model_under_train_is_refused_because_models_are_the_arms(self):
        with pytest.raises(ValidationError, match="models are the arms"):
            space(train={"model": {"name": "prlf"}})

    def test_several_workers_a_trial_need_the_train_executor(self):
        with pytest.raises(ValidationError, match="needs executor: train"):
            space(workers_per_trial=2)
        assert space(workers_per_trial=2, executor="train").workers_per_trial == 2

    def test_two_spaces_share_no_mutable_default(self):
        assert space().common is not space().common


@pytest.mark.parametrize(("rate", "key"), [(0, "0.0"), (0.3, "0.3"), (0.1 + 0.2, "0.3"), (0.25, "0.25"), (1.0, "1.0")])
def test_a_rate_has_one_decimal_and_two_when_needed(rate, key):
    assert rate_key(rate) == key


def test_the_fields_grid_has_ten_distinct_keys():
    assert [rate_key(rate) for rate in FIELD_GRID] == [f"0.{tenth}" for tenth in range(10)]


def undocumented_fields(source: str) -> list[str]:
    """Annotated fields of classes that are not followed by a string."""
    found = []
    for kind in [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]:
        if not any(isinstance(base, ast.Name) and base.id.endswith("Spec") for base in kind.bases):
            continue
        for node, below in zip(kind.body, [*kind.body[1:], None], strict=True):
            documented = (
                isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            )
            if isinstance(node, ast.AnnAssign) and not documented:
                found.append(f"{kind.name}.{ast.unparse(node.target)}")
    return found


def test_the_policy_below_sees_an_undocumented_field():
    assert undocumented_fields("class A(Spec):\n    x: int = 1\n    '''Doc.'''\n    y: int = 2\n") == ["A.y"]


@pytest.mark.parametrize("path", SPEC_FILES, ids=lambda path: path.name)
def test_every_field_of_a_spec_is_documented_right_under_it(path):
    assert undocumented_fields(path.read_text()) == []


OBJECTIVES = {"clean": {"reduce": "rate", "rate": 0.0}, "robust": {"reduce": "rate", "rate": 0.7}}
UNPRUNED = {"name": "none"}


class TestGoals:
    def test_several_objectives_with_a_pruner_need_to_say_what_it_looks_at(self):
        with pytest.raises(
            ValidationError, match=r"needs pruner\.on \(one of clean, robust, train\) or pruner\.name: none"
        ):
            space(objectives=OBJECTIVES)
        for pruner in (UNPRUNED, {"on": "robust"}, {"on": "train"}):
            assert list(space(objectives=OBJECTIVES, pruner=pruner).objectives) == ["clean", "robust"]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"objectives": {"clean": {}}}, "objectives are at least two"),
            ({"objectives": {"train": {}, "b": {}}}, "'train' cannot name an objective"),
            ({"objectives": {"a b": {}, "b": {}}}, "'a b' cannot name an objective"),
            ({"objectives": {"a": {"reduce": "rate"}, "b": {}}}, r"objectives\.a\.rate goes with"),
            ({"objectives": {"a": {"reduce": "rate", "rate": 0.77}, "b": {}}}, r"objectives\.a\.rate must be one of"),
            ({"objectives": OBJECTIVES, "pruner": {"on": "clear"}}, "must be one of clean, robust, train, got 'clear'"),
            ({"objectives": {}, "pruner": {"on": "clean"}}, "goes with several objectives"),
            ({"objectives": OBJECTIVES, "sampler": {"name": "cmaes"}}, "cmaes knows one objective only"),
        ],
    )
    def test_objectives_that_cannot_be_meant_are_refused(self, changes, said):
        with pytest.raises(ValidationError, match=said):
            space(**{"pruner": UNPRUNED} | changes)

    @pytest.mark.parametrize("limit", [{"parameters": {"max": 0}}, {"latency_ms": {"max": 0.0}}, {"latency_ms": {}}])
    def test_a_limit_is_above_0_and_must_be_said(self, limit):
        with pytest.raises(ValidationError):
            space(constraints=limit)

    def test_limits_are_those_that_are_set(self):
        assert space().constraints.limits() == {}
        both = space(constraints={"parameters": {"max": 2000}, "latency_ms": {"max": 0.5}}).constraints
        assert both.limits() == {"parameters": 2000, "latency_ms": 0.5}

    def test_a_sampler_that_knows_no_constraints_is_refused(self):
        with pytest.raises(ValidationError, match="cmaes knows no constraints"):
            space(sampler={"name": "cmaes"}, constraints={"parameters": {"max": 5}})

    @pytest.mark.parametrize("studies", [[], ["a", "a"]])
    def test_earlier_studies_are_distinct_and_at_least_one(self, studies):
        with pytest.raises(ValidationError, match="distinct names, at least one"):
            space(warm_start={"studies": studies})

    @pytest.mark.parametrize("sampler", ["random", "grid", "qmc", "cmaes"])
    def test_a_history_is_refused_for_samplers_that_do_not_look_at_one(self, sampler):
        with pytest.raises(ValidationError, match=f"{sampler} does not look at it"):
            space(sampler={"name": sampler}, warm_start={"studies": ["a"], "use": "history"})
        assert space(sampler={"name": sampler}, warm_start={"studies": ["a"]}).warm_start is not None
