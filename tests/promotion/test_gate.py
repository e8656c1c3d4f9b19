"""The gate, pure: made-up answers whose differences are known."""

import numpy as np
import pytest

from gapwise.evaluation.routing import nearest, serving
from gapwise.promotion.gate import FLOOR, Answers, Verdict, weigh
from gapwise.spec.gate import GateSpec
from gapwise.testing.contests import CHALLENGER, CHAMPION, Truth, contest

RATES = ["0.0", "0.3", "0.6"]
SPEC = GateSpec(mask_seeds=2, decisions_per_year=1)


def answers(**better_by: tuple[float, float, float]) -> Answers:
    """Models by how much lower than 10 their mean absolute error is at each rate; items differ a little."""
    draw = np.random.default_rng(0)
    noise = {name: draw.normal(0.0, 0.05, (3, 2, 400)) for name in better_by}
    return Answers(
        metric="mae",
        conditions=RATES,
        models={
            name: (10.0 - np.asarray(gain)[:, None, None] + noise[name]).astype(np.float32)
            for name, gain in better_by.items()
        },
        labels=np.zeros(400, np.float32),
        groups=[f"video {index // 10}" for index in range(400)],
        shape=contest(Truth(), draw, mask_seeds=2).shape,
    )


def everywhere(model: str) -> list[tuple[str, str]]:
    return [(rate, model) for rate in RATES]


def passed(verdicts: list[Verdict]) -> list[str]:
    return [one.contest.rate for one in verdicts if one.passed]


def test_a_rate_is_promoted_where_the_challenger_is_better_beyond_doubt() -> None:
    known = answers(old=(0.0, 0.0, 0.0), new=(0.5, 0.0, -0.5))
    verdicts = weigh(known, everywhere("new"), dict.fromkeys(RATES, "old"), SPEC, baselines={})
    assert passed(verdicts) == ["0.0"]
    first = verdicts[0].contest.comparisons[0]
    assert first.difference.effect == pytest.approx(0.5, abs=0.02)
    low, high = first.difference.interval(verdicts[0].level) or (0.0, 0.0)
    assert low < first.difference.effect < high


def test_better_by_less_than_the_margin_is_not_enough() -> None:
    known = answers(old=(0.0, 0.0, 0.0), new=(0.5, 0.5, 0.5))
    for margin, rates in ((0.4, RATES), (0.6, [])):
        spec = SPEC.model_copy(update={"margin": margin})
        verdicts = weigh(known, everywhere("new"), dict.fromkeys(RATES, "old"), spec, baselines={})
        assert passed(verdicts) == rates


def test_an_interval_excludes_the_margin_exactly_where_the_rate_is_promoted() -> None:
    draw = np.random.default_rng(1)
    seen = set()
    for improvement in np.linspace(0.0, 0.06, 25):
        known = contest(Truth(float(improvement), 0.05), draw, mask_seeds=2)
        (verdict,) = weigh(known, [("0.0", CHALLENGER)], {"0.0": CHAMPION}, SPEC, baselines={})
        low, _ = verdict.contest.comparisons[0].difference.interval(verdict.level) or (0.0, 0.0)
        assert verdict.passed == (low > 0.0)
        seen.add(verdict.passed)
    assert seen == {True, False}


def test_a_champion_that_is_already_there_does_not_challenge_itself() -> None:
    known = answers(old=(0.0, 0.0, 0.0), new=(0.5, 0.5, 0.5))
    champions = {"0.0": "new", "0.3": "old", "0.6": "new"}
    verdicts = weigh(known, everywhere("new"), champions, SPEC, baselines={})
    assert passed(verdicts) == ["0.3"] == [one.contest.rate for one in verdicts]


def test_a_specialist_is_vetoed_by_rates_that_it_would_serve_and_by_no_others() -> None:
    floor = {FLOOR: (-1.0, -1.0, -1.0)}
    known = answers(old=(0.0, 0.0, 0.0), new=(0.5, -0.5, 0.0), **floor)
    champions = dict.fromkeys(RATES, "old")
    assert passed(weigh(known, [("0.0", "new")], champions, SPEC, baselines={})) == ["0.0"]
    # With one champion, of 0.6, the router would send 0.3 to whoever serves 0.3 or 0.6, and 0.0 to the newcomer.
    assert passed(weigh(known, [("0.0", "new")], {"0.6": "old"}, SPEC, baselines={})) == ["0.0"]
    worse_at_next = answers(old=(0.0, 0.0, 0.0), new=(-0.5, 0.5, 0.0), **floor)
    (vetoed,) = weigh(worse_at_next, [("0.3", "new")], {"0.6": "old"}, SPEC, baselines={})
    assert not vetoed.passed
    asked = [(one.rate, one.rival, one.allowed) for one in vetoed.contest.comparisons]
    assert asked == [("0.3", "old", 0.0), ("0.3", FLOOR, 0.0), ("0.0", "old", -0.02)]


def test_a_rate_that_is_served_from_afar_asks_for_the_floor_and_the_baseline_too() -> None:
    known = answers(
        **{FLOOR: (0.0, 0.0, 0.0), "late": (0.1, 0.1, 0.1), "old": (0.9, 0.9, -0.9), "new": (0.0, 0.0, -0.5)}
    )
    (verdict,) = weigh(known, [("0.6", "new")], {"0.0": "old"}, SPEC, baselines={"0.6": "late"})
    assert not verdict.passed
    assert [one.rival for one in verdict.contest.comparisons[:3]] == ["old", "late", FLOOR]


def test_a_rate_that_nobody_serves_asks_for_more_than_the_floor_and_the_baseline() -> None:
    known = answers(**{FLOOR: (0.0, 0.0, 0.0), "late": (0.3, 0.3, 0.3), "new": (0.5, 0.1, -0.5)})
    verdicts = weigh(known, everywhere("new"), {}, SPEC, baselines=dict.fromkeys(RATES, "late"))
    assert passed(verdicts) == ["0.0"]
    assert [one.rival for one in verdicts[0].contest.comparisons] == ["late", FLOOR]
    assert passed(weigh(known, everywhere("late"), {}, SPEC, baselines=dict.fromkeys(RATES, "late"))) == RATES


def test_a_further_metric_may_not_be_lost() -> None:
    known = answers(old=(0.0, 0.0, 0.0), new=(0.5, 0.5, 0.5))
    labels = np.where(np.arange(400) % 2, -1.0, 1.0).astype(np.float32)
    sided = {name: value * labels for name, value in known.models.items()}
    sided["new"] = np.where(np.arange(400) < 100, -sided["new"], sided["new"]).astype(np.float32)
    known = known._replace(labels=labels, models={name: value * 0.1 for name, value in sided.items()})
    spec = SPEC.model_copy(update={"also": {"acc2_non0": 0.02}})
    (verdict,) = weigh(known, [("0.3", "new")], {"0.3": "old"}, spec, baselines={})
    lost = verdict.contest.comparisons[1]
    assert (lost.metric, lost.difference.effect, verdict.passed) == ("acc2_non0", pytest.approx(-0.25), False)


def test_over_rates_the_smallest_p_has_the_strictest_level_and_the_first_failure_ends_it() -> None:
    known = answers(old=(0.0, 0.0, 0.0), new=(0.5, 0.0, 0.4))
    verdicts = weigh(known, everywhere("new"), dict.fromkeys(RATES, "old"), SPEC, baselines={})
    assert passed(verdicts) == ["0.0", "0.6"]
    assert sorted(one.level for one in verdicts) == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])


@pytest.mark.parametrize("case", ["the same answers", "one group", "not finite"])
def test_where_nothing_can_be_said_nothing_is_promoted(case: str) -> None:
    known = answers(old=(0.0, 0.0, 0.0), new=(0.5, 0.5, 0.5))
    if case == "one group":
        known = known._replace(groups=["one"] * 400)
    elif case == "not finite":
        known.models["new"][:, 0, 0] = np.nan
    else:
        known = known._replace(models={"old": known.models["old"], "new": known.models["old"]})
    verdicts = weigh(known, [("0.3", "new")], {"0.3": "old"}, SPEC, baselines={})
    assert [(one.passed, one.contest.p) for one in verdicts] == [(False, 1.0)]
    assert verdicts[0].contest.comparisons[0].difference.interval(0.05) is None


def test_a_decision_has_its_part_of_the_year() -> None:
    assert GateSpec().alpha == pytest.approx(0.05)
    assert GateSpec(decisions_per_year=52).alpha == pytest.approx(0.2 / 52)
    assert GateSpec(confidence=0.99).alpha == pytest.approx(0.01)


def test_the_nearest_rate_serves_and_of_two_the_one_with_more_missing() -> None:
    assert nearest("0.3", ["0.2", "0.4"]) == "0.4"
    assert nearest("0.9", ["0.0", "0.25"]) == "0.25"
    assert nearest("0.9", []) is None
    assert serving("0.1", {"0.0": "7", "0.5": "8"}) == "7"
