"""Differences side by side, on simulated answers (`gapwise.testing.contests`) whose truth is known. No model."""

import numpy as np
import pytest

from gapwise.evaluation.contest import Difference, Figures, difference, figures, holm, with_mean
from gapwise.evaluation.paired import draw_resamples
from gapwise.promotion.comparison import ALPHA, MEAN, Compared, compare
from gapwise.promotion.gate import FLOOR, Answers, weigh
from gapwise.spec.gate import GateSpec
from gapwise.testing.contests import CHALLENGER, CHAMPION, Truth, contest


def answers(improvement: float, *, rates: int = 3, seed: int = 0) -> Answers:
    found = contest(Truth(improvement), np.random.default_rng(seed), rates=rates, mask_seeds=4)
    return found._replace(models={**found.models, FLOOR: found.models[CHAMPION] + 1.0})


def test_a_large_improvement_is_better_everywhere_and_the_other_way_round_worse() -> None:
    found = answers(0.2)
    for names, verdict in (([CHAMPION, CHALLENGER], "better"), ([CHALLENGER, CHAMPION], "worse")):
        values, compared = compare(found, names)
        assert [one.condition for one in compared] == [*found.conditions, MEAN]
        assert {one.verdict for one in compared} == {verdict}
        assert values[FLOOR][MEAN] == pytest.approx(values[CHAMPION][MEAN] + 1.0, abs=1e-4)


def test_what_is_no_better_is_within_noise() -> None:
    assert {one.verdict for one in compare(answers(0.0), [CHAMPION, CHALLENGER])[1]} == {"within noise"}


def test_who_answers_the_same_is_the_same_and_one_group_says_nothing() -> None:
    found = answers(0.2)
    twin = found._replace(models={**found.models, "twin": found.models[CHAMPION]})
    assert {one.verdict for one in compare(twin, [CHAMPION, "twin"])[1]} == {"the same"}
    lone = found._replace(groups=["one"] * len(found.labels))
    assert {one.verdict for one in compare(lone, [CHAMPION, CHALLENGER])[1]} == {"nothing can be said"}


def test_effects_and_errors_are_those_of_the_gate() -> None:
    found = answers(0.1, rates=1)
    (row,) = compare(found, [CHAMPION, CHALLENGER])[1]
    (verdict,) = weigh(found, [("0.0", CHALLENGER)], {"0.0": CHAMPION}, GateSpec(), baselines={})
    assert row.difference == verdict.contest.comparisons[0].difference
    assert row.difference.p_differs == pytest.approx(2 * verdict.contest.p)


def test_more_contenders_leave_each_a_stricter_level() -> None:
    found = answers(0.0)
    third = found._replace(models={**found.models, "third": found.models[CHALLENGER] + 0.001})
    two, three = (
        compare(one, names)[1]
        for one, names in ((found, [CHAMPION, CHALLENGER]), (third, [CHAMPION, CHALLENGER, "third"]))
    )
    assert min(one.level.alpha for one in two) == pytest.approx(ALPHA / 4)
    assert min(one.level.alpha for one in three) == pytest.approx(ALPHA / 8)


def test_holm_is_holm() -> None:
    levels = holm([0.04, 0.001, 0.02, 0.2], 0.05)
    assert [one.passed for one in levels] == [False, True, False, False]
    assert [round(one.alpha, 6) for one in levels] == [
        round(0.05 / 3, 6),
        0.0125,
        round(0.05 / 3, 6),
        round(0.05 / 3, 6),
    ]
    assert [one.passed for one in holm([0.01, 0.02], 0.05)] == [True, True]
    assert holm([], 0.05) == []


@pytest.mark.parametrize("effect", [0.5, -0.5, 0.1, -0.1, 0.0])
def test_a_two_sided_p_and_its_interval_agree(effect: float) -> None:
    one = Difference(effect, 0.2, 30)
    interval = one.interval(0.05 / 2)
    assert interval is not None
    assert (one.p_differs <= 0.05) == (interval[0] > 0 or interval[1] < 0)
    assert Difference(effect, float("nan"), 0).p_differs == 1.0


def test_the_mean_is_over_conditions_on_the_same_resamples() -> None:
    found = answers(0.1)
    resamples = draw_resamples(found.groups, 4, seed=0)
    ours, theirs = (
        with_mean(figures("mae", found.models[name], found.labels, found.shape, resamples))
        for name in (CHALLENGER, CHAMPION)
    )
    mean = difference("mae", ours, theirs, 3, resamples)
    assert mean.effect == pytest.approx(
        np.mean([difference("mae", ours, theirs, at, resamples).effect for at in range(3)])
    )
    assert isinstance(ours, Figures) and ours.resampled.shape[0] == 4


def test_a_verdict_of_no_use_is_never_better() -> None:
    unknown = Compared("b", "0.0", Difference(1.0, float("nan"), 0), holm([1.0], ALPHA)[0])
    assert unknown.verdict == "nothing can be said"
