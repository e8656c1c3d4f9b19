"""Early stopping as pure rules: costs in, verdicts out. No journal, no Optuna."""

from collections import Counter
from typing import Any

import pytest

from gapwise.spec.search import PrunerSpec
from gapwise.tuning.pruning import Pruning, bracket_of, brackets


def pruner(name: str, epochs: int = 30, **fields: Any) -> Pruning:
    return Pruning(PrunerSpec.model_validate({"name": name} | fields), epochs)


def verdict(rule: Pruning, number: int, costs: list[float]) -> int | None:
    """The epoch at which a trial with these costs is stopped."""
    for epoch, cost in enumerate(costs, 1):
        rule.tell(number, epoch, cost)
        if rule.stops(number):
            return epoch
    return None


@pytest.mark.parametrize(
    ("min_epochs", "reduction", "epochs", "rungs"),
    [
        (3, 3, 30, [3, 9]),
        (8, 3, 25, [8]),  # 24 of 25 would throw away what is as good as done
        (3, 3, 6, [3]),
        (4, 2, 4, []),
        (1, 2, 16, [1, 2, 4, 8]),
    ],
)
def test_rungs_multiply_and_none_lies_past_the_middle(
    min_epochs: int, reduction: int, epochs: int, rungs: list[int]
) -> None:
    assert brackets(PrunerSpec(min_epochs=min_epochs, reduction=reduction), epochs) == [rungs]


def test_asha_keeps_the_best_of_each_rung_and_stops_nobody_between_rungs() -> None:
    rule = pruner("asha", min_epochs=2, reduction=2, epochs=16)
    assert verdict(rule, 0, [1.0] * 16) is None
    assert verdict(rule, 1, [2.0] * 16) == 2
    assert verdict(rule, 2, [9.0, 0.5] + [9.0] * 14) is None  # the best epoch so far is what counts
    assert verdict(rule, 3, [0.9, 0.9, 0.9, 0.9] + [0.1] * 12) == 4  # passes 2 as second of four; behind 0.5 at 4


def test_the_first_ones_at_a_rung_go_on_only_if_they_are_the_best_yet() -> None:
    rule = pruner("asha", min_epochs=1, reduction=4)
    assert verdict(rule, 0, [5.0]) is None
    assert verdict(rule, 1, [6.0]) == 1
    assert verdict(rule, 2, [4.0]) is None


def test_an_epoch_told_twice_counts_once_and_the_verdict_is_the_same() -> None:
    rule = pruner("asha", min_epochs=1, reduction=2)
    verdict(rule, 0, [1.0])
    assert verdict(rule, 1, [2.0]) == 1
    assert verdict(rule, 1, [2.0]) == 1
    assert verdict(rule, 2, [1.5]) == 1  # one of three survives; two of four would, had the second been counted twice


def test_the_median_needs_others_and_then_stops_the_worse_half() -> None:
    rule = pruner("median", min_epochs=2)
    costs = [1.0, 2.0, 3.0, 4.0]
    assert [verdict(rule, number, [cost] * 3) for number, cost in enumerate(costs)] == [None] * 4
    assert verdict(rule, 4, [2.5] * 3) == 2  # the lower median of 1, 2, 3, 4 is 2
    assert verdict(rule, 5, [2.0] * 3) is None
    assert verdict(rule, 6, [9.0]) is None


def test_hyperband_deals_trials_to_brackets_that_begin_later_and_one_that_never_stops() -> None:
    spec = PrunerSpec(name="hyperband", min_epochs=1, reduction=3)
    known = brackets(spec, 30)
    assert known == [[1, 3, 9], [3, 9], [9], []]
    dealt = Counter(bracket_of(number, known, 3) for number in range(4000))
    assert [dealt[bracket] > dealt[bracket + 1] for bracket in range(2)] == [True, True]
    assert dealt[3] > 200


def test_brackets_do_not_compare_with_each_other() -> None:
    spec = PrunerSpec(name="hyperband", min_epochs=1, reduction=3)
    known = brackets(spec, 30)
    by_bracket = {bracket_of(number, known, 3): number for number in range(200)}
    rule = Pruning(spec, 30)
    assert verdict(rule, by_bracket[1], [0.1] * 30) is None
    assert verdict(rule, by_bracket[0], [5.0] * 30) is None  # alone in its bracket, however good the other
    assert verdict(rule, by_bracket[3], [99.0] * 30) is None


def test_without_a_rule_nobody_stops() -> None:
    rule = pruner("none")
    assert [verdict(rule, number, [float(number)] * 30) for number in range(5)] == [None] * 5


def test_the_median_stops_nobody_past_the_middle_of_a_training() -> None:
    rule = pruner("median", epochs=8, min_epochs=2)
    for number in range(6):
        assert verdict(rule, number, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]) is None
    assert verdict(rule, 6, [0.9] * 8) is None, "ahead until the middle, and then as good as trained"
    assert verdict(rule, 7, [0.9, 0.9, 0.9, 1.1]) is None, "its best counts"
    assert verdict(rule, 8, [1.1] * 8) == 2
