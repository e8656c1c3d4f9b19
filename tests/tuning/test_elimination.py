"""Who is dropped and who is probably best, on simulated runs: absolute errors drawn from a known world, no training.

In that world an item's error is what its group shares, what is its own, what the training seed brought, and what the
mask did. Shares over many worlds are held against the level that is promised; the seeds are fixed, so a share is one
number and not a matter of luck.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gapwise.data.shape import DataShape
from gapwise.evaluation.paired import draw_resamples, resampled
from gapwise.spec.search import SecondPhaseSpec
from gapwise.tuning.assignment import Assignment, Finished, Outcome, failure
from gapwise.tuning.elimination import Configuration, Dropped, Round, gather

SHAPE = DataShape(task="regression", modalities={}, label_range=(-3.0, 3.0), classes=0)
THREE = SecondPhaseSpec(seeds=3)
GROUPS, ITEMS_A_GROUP, MASKS = 40, 10, 2
GROUP_OF = np.repeat(np.arange(GROUPS), ITEMS_A_GROUP)
VIDEOS = [f"video {n}" for n in GROUP_OF]
ALONE = [str(n) for n in range(len(GROUP_OF))]


def race(
    worse_by: dict[Configuration, float],
    *,
    world: int,
    seeds: int = 2,
    groups: Sequence[str] = VIDEOS,
    shared: float = 0.3,
    seed_sd: float = 0.02,
    metric: str = "mae",
) -> Round:
    """The race after `seeds` seeds at one condition: every configuration's mean error is 3 plus what it is worse by."""
    rng = np.random.default_rng(world)
    draws = draw_resamples(groups, MASKS, seed=world, count=300)
    runs, figures = [], {}
    for (arm, source), worse in worse_by.items():
        group = np.sqrt(shared) * rng.normal(size=GROUPS)[GROUP_OF]
        item = np.sqrt(1 - shared) * rng.normal(size=len(GROUP_OF))
        for seed in range(1, seeds + 1):
            noise = seed_sd * rng.normal() + 0.1 * rng.normal(size=(1, MASKS, len(GROUP_OF)))
            errors = (3 + worse + 0.5 * (group + item) + noise).astype(np.float32)
            run = ended(arm, source, seed, {"0.0": float(errors.mean(dtype=np.float64))}, metric=metric)
            runs.append(run)
            labels = np.zeros(len(GROUP_OF), np.float32)
            figures[run.assignment.key] = resampled("mae", errors, labels, SHAPE, draws)[[0]]
    return Round(seeds, draws.groups, ["0.0"], gather(runs, figures, metric))


def ended(arm: str, source: int, seed: int, curve: dict[str, float], *, metric: str = "mae") -> Finished:
    outcome = Outcome("complete", 0.0, 1, {metric: curve}, 1.0)
    return Finished(Assignment("seeds", arm, 0, {}, seed, source), outcome)


def share_dropped(worse_by: dict[Configuration, float], worlds: int = 300, **how: Any) -> float:
    """Of the worlds, those in which anybody was dropped."""
    return float(np.mean([bool(race(worse_by, world=world, **how).drop(THREE, {})) for world in range(worlds)]))


A, B, C, D = (("prlf", source) for source in range(4))
OTHER_ARM, BASE, BASE_2 = ("promise", 0), ("late_fusion", 0), ("late_fusion", 1)


@pytest.mark.parametrize("seed_sd", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("other", [B, OTHER_ARM], ids=["of one arm", "of two arms"])
def test_of_two_equal_configurations_one_is_dropped_about_as_often_as_said(
    other: Configuration, seed_sd: float
) -> None:
    """Items of a group agree, and two seeds are all there is to tell their noise from quality."""
    assert share_dropped({A: 0.0, other: 0.0}, seed_sd=seed_sd) <= 0.08


def test_resampling_items_instead_of_groups_would_drop_several_times_as_often() -> None:
    by_group = share_dropped({A: 0.0, B: 0.0}, 200, seed_sd=0.0)
    by_item = share_dropped({A: 0.0, B: 0.0}, 200, seed_sd=0.0, groups=ALONE)

    assert by_group <= 0.08
    assert by_item >= 0.2


def test_the_best_of_many_is_kept_as_often_as_said_and_more_rounds_do_not_change_that() -> None:
    lost = 0
    for world in range(200):
        dropped: Dropped = {}
        for seeds in (2, 3, 4):
            now = race({A: 0.0, B: 0.01, C: 0.01, D: 0.01}, world=world, seeds=seeds)
            dropped = now.drop(SecondPhaseSpec(seeds=5), dropped)
        lost += A in dropped
    assert lost / 200 <= 0.05


def test_a_clearly_worse_configuration_is_dropped_after_two_seeds_and_the_others_race_on() -> None:
    found = [race({A: 0.0, B: 0.0, C: 1.0}, world=world).drop(THREE, {}) for world in range(30)]

    assert all(dropped[C] == {"0.0": 2} for dropped in found)
    assert sum(len(dropped) for dropped in found) <= 33


def test_what_two_seeds_cannot_tell_from_their_own_noise_is_kept() -> None:
    """Worse by two standard deviations of a seed: a gap that two against two show often enough by chance."""
    kept = [not race({A: 0.0, OTHER_ARM: 0.4}, world=world, seed_sd=0.2).drop(THREE, {}) for world in range(50)]

    assert np.mean(kept) > 0.7


def test_seeds_that_agree_by_luck_borrow_the_noise_of_their_arm() -> None:
    def after(*scattered: Configuration) -> Dropped:
        runs = [ended(*A, 1, {"0.0": 1.0}), ended(*A, 2, {"0.0": 1.0001})]
        runs += [ended(*B, 1, {"0.0": 1.2}), ended(*B, 2, {"0.0": 1.2001})]
        runs += [ended(*one, seed, {"0.0": 1.0 + seed}) for one in scattered for seed in (1, 2)]
        same = {run.assignment.key: np.random.default_rng(0).normal(1, 0.001, (1, 300)) for run in runs}
        return Round(2, 40, ["0.0"], gather(runs, same, "mae")).drop(THREE, {})

    assert after() == {B: {"0.0": 2}}
    assert B not in after(C, D)


def test_arms_race_each_other_and_the_baseline_only_itself() -> None:
    far_behind = {A: 0.0, OTHER_ARM: 1.0, BASE: 5.0, BASE_2: 6.0}

    assert race(far_behind, world=0).drop(THREE, {}) == {OTHER_ARM: {"0.0": 2}, BASE_2: {"0.0": 2}}
    assert race({A: 9.0, BASE: 0.0}, world=0).drop(THREE, {}) == {}


def test_more_of_a_metric_that_grows_with_quality_leads() -> None:
    """The same figures read as a score: what was ahead is now behind."""
    as_cost, as_score = (race({A: 0.0, B: 1.0}, world=0, metric=metric) for metric in ("mae", "corr"))

    assert as_cost.drop(THREE, {}) == {B: {"0.0": 2}}
    assert as_score.drop(THREE, {}) == {A: {"0.0": 2}}
    assert as_cost.chances(seed=0)["0.0"][A] > 0.999
    assert as_score.chances(seed=0)["0.0"][B] > 0.999


def test_conditions_are_decided_each_by_itself() -> None:
    runs, figures = [], {}
    for one, low, high in ((A, 1.0, 2.0), (B, 2.0, 1.0), (C, 2.0, 2.0)):
        for seed in (1, 2):
            run = ended(*one, seed, {"0.0": low + 0.001 * seed, "0.9": high})
            runs.append(run)
            figures[run.assignment.key] = np.random.default_rng(1).normal(0, 0.01, (2, 300))

    dropped = Round(2, 40, ["0.0", "0.9"], gather(runs, figures, "mae")).drop(THREE, {})

    assert {one: set(where) for one, where in dropped.items()} == {B: {"0.0"}, C: {"0.0"}}, "nothing varies at 0.9"


def test_who_is_dropped_stays_dropped_and_leads_nobody() -> None:
    before = {A: {"0.0": 2}}
    now = race({A: 0.0, B: 1.0, C: 1.0}, world=0, seeds=3)

    assert now.drop(SecondPhaseSpec(seeds=5), before) == before
    assert before == {A: {"0.0": 2}}


def test_where_predictions_are_missing_nobody_is_dropped_and_no_chances_are_given() -> None:
    whole = race({A: 0.0, B: 5.0, C: 5.0}, world=0)

    def without(one: Configuration) -> Round:
        return whole._replace(found={**whole.found, one: whole.found[one]._replace(resampled=None)})

    assert set(whole.drop(THREE, {})) == {B, C}
    assert set(without(B).drop(THREE, {})) == {C}
    assert without(A).drop(THREE, {}) == {}
    assert without(C).chances(seed=0) == {}
    assert whole._replace(groups=1).drop(THREE, {}) == {}
    assert whole._replace(groups=1).chances(seed=0) == {}


def test_a_run_without_predictions_leaves_its_configuration_without() -> None:
    runs = [ended(*A, 1, {"0.0": 1.0}), ended(*A, 2, {"0.0": 2.0})]
    figures = {runs[0].assignment.key: np.zeros((1, 5))}

    assert gather(runs, figures, "mae")[A].resampled is None


def test_a_seed_that_failed_is_no_leader_s_and_alone_it_says_nothing_of_noise() -> None:
    lucky = [ended(*A, 1, {"0.0": 0.1}), Finished(Assignment("seeds", "prlf", 1, {}, 2, 0), failure("NaN"))]
    others = [ended(*one, seed, {"0.0": 1.0 + 0.001 * seed}) for one in (B, C) for seed in (1, 2)]
    runs = [*lucky, *others]
    figures = {run.assignment.key: np.random.default_rng(2).normal(0, 0.001, (1, 300)) for run in runs}

    assert Round(2, 40, ["0.0"], gather(runs, figures, "mae")).drop(THREE, {}) == {}
    alone = Round(1, 40, ["0.0"], gather([lucky[0], ended(*OTHER_ARM, 1, {"0.0": 9.0})], figures, "mae"))
    assert alone.drop(THREE, {}) == {}


def test_decisions_do_not_depend_on_who_ended_first() -> None:
    runs = [
        ended(*one, seed, {"0.0": cost + 0.01 * seed})
        for one, cost in ((A, 1.0), (B, 1.0), (C, 3.0))
        for seed in (1, 2)
    ]
    rng = np.random.default_rng(0)
    figures = {run.assignment.key: rng.normal(run.outcome.metrics["mae"]["0.0"], 0.01, (1, 300)) for run in runs}
    there, back = (Round(2, 40, ["0.0"], gather(order, figures, "mae")) for order in (runs, runs[::-1]))

    assert there.drop(THREE, {}) == back.drop(THREE, {}) == {C: {"0.0": 2}}
    assert there.chances(seed=3) == back.chances(seed=3)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_chances_of_equal_configurations_are_equal_over_many_worlds_and_sum_to_one(seeds: int) -> None:
    tables = [race({A: 0.0, B: 0.0, BASE: 0.0}, world=world, seeds=seeds).chances(seed=world) for world in range(200)]

    shares = {one: np.mean([table["0.0"][one] for table in tables]) for one in (A, B, BASE)}
    assert all(sum(table["0.0"].values()) == pytest.approx(1.0) for table in tables)
    assert all(share == pytest.approx(1 / 3, abs=0.06) for share in shares.values())


def test_a_clear_winner_is_almost_surely_best_and_a_small_lead_is_not() -> None:
    clear = race({A: 0.0, B: 1.0, BASE: 1.0}, world=1, seeds=3).chances(seed=0)["0.0"]
    small = [race({A: 0.0, B: 0.03}, world=world, seeds=3).chances(seed=0)["0.0"][A] for world in range(100)]

    assert clear[A] > 0.999
    assert 0.55 < np.mean(small) < 0.8


def test_training_seeds_are_resampled_for_each_configuration_by_itself() -> None:
    """Items certain, seeds not: of the four pairs of one seed each, A is ahead in three."""
    cost = {A: (1.0, 1.4), B: (1.3, 1.5)}
    runs = [ended(*one, seed, {"0.0": cost[one][seed - 1]}) for one in cost for seed in (1, 2)]
    figures = {run.assignment.key: np.full((1, 4000), run.outcome.metrics["mae"]["0.0"]) for run in runs}

    chances = Round(2, 40, ["0.0"], gather(runs, figures, "mae")).chances(seed=0)["0.0"]

    assert chances[A] == pytest.approx(0.75, abs=0.03)


def test_exact_ties_share_the_chance() -> None:
    runs = [ended(*one, seed, {"0.0": 1.0}) for one in (A, B) for seed in (1, 2)]
    figures = {run.assignment.key: np.ones((1, 50)) for run in runs}

    assert Round(2, 40, ["0.0"], gather(runs, figures, "mae")).chances(seed=0) == {"0.0": {A: 0.5, B: 0.5}}
