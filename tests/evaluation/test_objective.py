"""From a curve to one cost: lower is better, whatever the metric. Nothing is faked; these are pure functions."""

import math

import pytest

from gapwise.evaluation.objective import as_cost, reduce_curve
from gapwise.spec.train import ObjectiveSpec

CURVE = {"0.0": 0.5, "0.25": 0.7, "0.5": 0.9}


@pytest.mark.parametrize(
    ("objective", "cost"),
    [
        (ObjectiveSpec(metric="mae"), 0.7),
        (ObjectiveSpec(metric="mae", reduce="worst"), 0.9),
        (ObjectiveSpec(metric="mae", reduce="rate", rate=0.25), 0.7),
        (ObjectiveSpec(metric="corr"), -0.7),
        (ObjectiveSpec(metric="corr", reduce="worst"), -0.5),
        (ObjectiveSpec(metric="corr", reduce="rate", rate=0.5), -0.9),
    ],
)
def test_the_curve_is_reduced_as_the_objective_says_and_better_is_lower(objective, cost):
    assert reduce_curve(CURVE, objective) == pytest.approx(cost)


@pytest.mark.parametrize("reduce", ["mean", "worst"])
def test_a_curve_that_is_not_finite_has_no_cost(reduce):
    assert math.isnan(reduce_curve({**CURVE, "0.9": math.nan}, ObjectiveSpec(metric="mae", reduce=reduce)))


def test_only_mae_is_a_cost_already():
    assert (as_cost("mae", 0.5), as_cost("acc2_non0", 0.5)) == (0.5, -0.5)
