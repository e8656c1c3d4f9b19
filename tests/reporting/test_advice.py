"""Each rule of what to try next, on made-up studies that do and do not give it a reason to speak."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from gapwise.reporting.advice import (
    advice,
    baseline_not_beaten,
    beyond,
    beyond_bounds,
    bound_hit,
    early_tells,
    failures,
    few_seeds,
    floor_not_beaten,
    go_on,
    pruned_too_early,
    room_left,
    still_learning,
    unequal_budgets,
    within_noise,
)
from gapwise.reporting.study_facts import Facts
from gapwise.spec.search import Range
from gapwise.tuning.leaders import Leaders
from gapwise.tuning.reading import TrialRecord
from gapwise.tuning.result import Best

MakeFacts = Callable[..., Facts]


@pytest.fixture(scope="module")
def facts(lively_facts: MakeFacts) -> Facts:
    return lively_facts()


def led(facts: Facts, ours: float, theirs: float, *, sd: float = 0.01, seeds: int = 3, floor: float = 1.4) -> Facts:
    """The same study with these means at one rate."""
    best, baseline = (
        {"0.5": Best(trial=name, metric="mae", mean=mean, sd=sd, seeds=seeds)}
        for name, mean in (("prlf-0", ours), ("late_fusion-0", theirs))
    )
    return replace(facts, leaders=Leaders("second phase", best, baseline, floor, [], []))


def trials(facts: Facts, change: Callable[[TrialRecord], TrialRecord]) -> Facts:
    return replace(facts, study=replace(facts.study, trials=[change(one) for one in facts.study.trials]))


LINEAR = Range(role="searched", low=0.0, high=10.0)
LOG = Range(role="searched", low=0.001, high=1.0, log=True)
WHOLE = Range(role="searched", low=1, high=8, integer=True)


@pytest.mark.parametrize(
    ("parameter", "at", "side"),
    [
        (LINEAR, 9.6, "upper"),
        (LINEAR, 9.4, ""),
        (LINEAR, 0.4, "lower"),
        (LOG, 0.0012, "lower"),
        (LOG, 0.01, ""),
        (LOG, 0.9, "upper"),
        (WHOLE, 8, "upper"),
        (WHOLE, 7, ""),
        (WHOLE, 1, "lower"),
    ],
)
def test_a_bound_is_hit_on_the_parameter_s_own_scale(parameter: Range, at: float, side: str) -> None:
    assert bound_hit(parameter, at) == side


def test_beyond_a_bound_is_outside_the_range() -> None:
    assert beyond(LINEAR, "upper") > 10 and beyond(LINEAR, "lower") < 0
    assert beyond(LOG, "upper") > 1 and 0 < beyond(LOG, "lower") < 0.001
    assert (beyond(WHOLE, "upper"), beyond(WHOLE, "lower")) == (9, 0)


def at_bound(one: TrialRecord) -> TrialRecord:
    """Every trial at the upper end: of a share that cannot be more than 1, and of a rate that can."""
    values = {path: {"model.fisher_lambda": 1.0, "optimiser.lr": 0.01}.get(path, at) for path, at in _values(one)}
    return one._replace(assignment=one.assignment._replace(values=values))


def _values(one: TrialRecord) -> list[tuple[str, float]]:
    return list(one.assignment.values.items())


def test_a_range_is_widened_only_where_the_model_takes_more(facts: Facts) -> None:
    said = list(beyond_bounds(trials(facts, at_bound)))
    assert any("prlf has lr = 0.01, at the upper end" in line for line in said)
    assert not any("fisher_lambda" in line for line in said)


def test_the_baseline_is_named_where_it_is_not_beaten(facts: Facts) -> None:
    assert list(baseline_not_beaten(led(facts, 0.9, 1.0))) == []
    assert "not beaten at 0.5" in next(baseline_not_beaten(led(facts, 1.0, 1.0)))


def test_the_floor_is_named_where_it_is_not_beaten(facts: Facts) -> None:
    assert list(floor_not_beaten(led(facts, 0.9, 1.0))) == []
    assert "At 0.5 a constant answer" in next(floor_not_beaten(led(facts, 1.4, 1.5)))


def test_few_seeds_and_leads_within_noise_are_said(facts: Facts) -> None:
    assert list(few_seeds(led(facts, 0.9, 1.0))) == [] and "rest on 2 seeds" in next(
        few_seeds(led(facts, 0.9, 1.0, seeds=2))
    )
    assert list(within_noise(led(facts, 0.9, 1.0))) == []
    assert "At 0.5 the lead" in next(within_noise(led(facts, 0.99, 1.0)))
    assert list(within_noise(led(facts, 1.0, 0.99))) == [], "there is no lead"


def test_failures_are_counted_with_their_reason(facts: Facts) -> None:
    assert "6 of 100 trials failed, most often (6) with: NaN: the loss is nan" in next(failures(facts))
    fine = replace(facts.study, trials=[one for one in facts.study.trials if one.outcome.state != "failed"])
    assert list(failures(replace(facts, study=fine))) == []


def test_training_longer_is_advised_where_the_last_epoch_was_best(facts: Facts) -> None:
    assert "promise-24" in next(still_learning(facts))
    earlier = trials(facts, lambda one: one._replace(outcome=one.outcome._replace(best_epoch=7)))
    assert list(still_learning(earlier)) == []


def test_early_epochs_that_do_not_tell_are_found(facts: Facts) -> None:
    assert early_tells([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]) == pytest.approx(1.0)
    assert early_tells([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]) == pytest.approx(-1.0)
    assert early_tells([(1.0, 3.0), (1.0, 2.0)]) is None
    assert list(pruned_too_early(facts)) == []
    turned = trials(facts, lambda one: one._replace(costs={epoch: -cost for epoch, cost in one.costs.items()}))
    assert "raise `pruner.min_epochs`" in next(pruned_too_early(turned))


def test_unequal_budgets_are_said(facts: Facts) -> None:
    assert list(unequal_budgets(facts)) == []
    some = [one for one in facts.study.trials if one.assignment.arm != "late_fusion" or one.assignment.number < 5]
    assert "late_fusion had 5 trials" in next(unequal_budgets(replace(facts, study=replace(facts.study, trials=some))))


def test_the_distance_to_the_optimum_is_said(facts: Facts) -> None:
    assert "20 % above" in next(room_left(replace(led(facts, 1.2, 1.3), optimum={"0.5": 1.0})))
    assert list(room_left(replace(facts, optimum={}))) == []


def test_an_unfinished_study_is_to_be_continued_first(facts: Facts) -> None:
    study = replace(facts.study, result=None)
    assert "gapwise tune space.yaml --data data/mosi --resume" in advice(replace(facts, study=study))[0]
    assert "still running" in next(go_on(replace(facts, study=replace(study, driver="pid 1"))))
    assert list(go_on(facts)) == []
