"""The Pareto front, from curves that are written down here. Nothing is faked."""

from collections.abc import Callable

import numpy as np
import pytest

from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.assignment import Finished
from gapwise.tuning.front import candidates, dominated, pareto_front, spread_out
from gapwise.tuning.leaders import front_members

MakeFinished = Callable[..., Finished]
OBJECTIVES = {
    "clean": ObjectiveSpec(metric="mae", reduce="rate", rate=0.0),
    "robust": ObjectiveSpec(metric="mae", reduce="rate", rate=0.7),
}


@pytest.fixture
def runs(make_finished: MakeFinished) -> Callable[..., list[Finished]]:
    """`runs({3: (1.0, 2.0)})`: by number, MAE at 0 and at .7."""

    def make(figures: dict[int, tuple[float, float]], **more: object) -> list[Finished]:
        return [
            make_finished({"0.0": clean, "0.7": robust}, number=number, **more)
            for number, (clean, robust) in figures.items()
        ]

    return make


def numbers(found: list[Finished]) -> list[int]:
    return [one.source for one in pareto_front(candidates(found, OBJECTIVES))]


@pytest.mark.parametrize(
    ("costs", "beaten"),
    [
        ([[1, 2], [2, 1]], [False, False]),
        ([[1, 1], [1, 2]], [False, True]),
        ([[1, 1], [1, 1]], [False, False]),
        ([[1, 3, 2], [1, 3, 3], [0, 9, 9]], [False, True, False]),
    ],
    ids=["each better somewhere", "worse at one", "equals", "three objectives"],
)
def test_dominated_is_what_another_beats_somewhere_and_loses_to_nowhere(costs, beaten):
    assert dominated(np.array(costs, dtype=float)) == beaten


def test_the_front_is_in_the_order_of_the_first_objective(runs):
    assert numbers(runs({0: (3.0, 1.0), 1: (1.0, 3.0), 2: (2.0, 2.0), 3: (3.0, 3.0)})) == [1, 2, 0]


@pytest.mark.parametrize("state", ["pruned", "failed", "infeasible"])
def test_only_complete_trials_are_on_the_front(runs, state):
    worse = runs({1: (2.0, 2.0)})
    assert numbers(worse + [one._replace(outcome=one.outcome._replace(state=state)) for one in runs({0: (1, 1)})]) == [
        1
    ]
    assert numbers([]) == []


def test_a_configuration_stands_with_its_mean_over_seeds_and_not_with_its_luckiest(runs):
    lucky = runs({0: (0.1, 0.1)}, source=0, seed=1) + runs({1: (4.0, 4.0)}, source=0, seed=2)
    steady = runs({2: (2.0, 2.0)}, source=9, seed=1) + runs({3: (2.0, 2.0)}, source=9, seed=2)
    assert numbers(lucky + steady) == [9]
    (one,) = pareto_front(candidates(lucky, OBJECTIVES))
    assert one.mean == {"clean": pytest.approx(2.05), "robust": pytest.approx(2.05)}
    assert one.sd["clean"] == pytest.approx(np.std([0.1, 4.0], ddof=1))


def test_one_that_lacks_a_seed_is_not_compared_with_those_that_have_them_all(runs):
    both = runs({0: (2.0, 2.0)}, source=5, seed=1) + runs({1: (2.0, 2.0)}, source=5, seed=2)
    assert numbers(both + runs({2: (1.0, 1.0)}, source=6, seed=1)) == [5]


def test_a_metric_that_grows_with_quality_is_shown_as_it_is_and_ranked_by_its_cost(make_finished):
    objectives = {"clean": OBJECTIVES["clean"], "rank": ObjectiveSpec(metric="corr", reduce="worst")}
    good = make_finished({"0.0": 1.0, "0.7": 1.0}, number=0)
    bad = make_finished({"0.0": 1.0, "0.7": 1.0}, number=1)
    for one, corr in ((good, {"0.0": 0.9, "0.7": 0.6}), (bad, {"0.0": 0.8, "0.7": 0.5})):
        one.outcome.metrics["corr"] = corr
    (member,) = front_members([good, bad], objectives)
    assert (member.trial, member.objectives["rank"].mean) == ("prlf-0", 0.6)


def test_the_baselines_own_front_stands_by_itself_and_competes_in_the_common_one(runs):
    found = runs({0: (1.0, 1.0)}) + runs({0: (2.0, 0.5), 1: (3.0, 3.0)}, arm="late_fusion")
    assert [one.trial for one in front_members(found, OBJECTIVES)] == ["prlf-0", "late_fusion-0"]
    assert [one.trial for one in front_members(found, OBJECTIVES, only="late_fusion")] == ["late_fusion-0"]
    assert front_members(found, {}) == []


def test_the_most_telling_come_first_the_ends_and_then_the_farthest_from_those_before(runs):
    front = pareto_front(candidates(runs({n: (float(n), 4.0 - n) for n in range(5)}), OBJECTIVES))
    assert [one.source for one in spread_out(front)] == [0, 4, 2, 1, 3]
    assert spread_out([]) == []
    assert [one.source for one in spread_out(front[:1])] == [0]
