"""How often the gate is wrong, by simulation with fixed seeds: 31 groups, 686 items, as in CMU-MOSI's test split."""

import numpy as np
import pytest

from gapwise.promotion.gate import weigh
from gapwise.spec.gate import GateSpec
from gapwise.testing.contests import CHALLENGER, CHAMPION, Truth, contest

SIMULATIONS = 1000
SPEC = GateSpec(decisions_per_year=1)
MOST = 67
"""The 99 % binomial bound of 5 % in 1,000."""


def promotions(truth: Truth, *, rates: int, mask_seeds: int = 4) -> int:
    """In how many simulations any rate was promoted."""
    draw = np.random.default_rng(20261122)
    found = 0
    for seed in range(SIMULATIONS):
        known = contest(truth, draw, rates=rates, mask_seeds=mask_seeds)
        asked = [(rate, CHALLENGER) for rate in known.conditions]
        verdicts = weigh(known, asked, dict.fromkeys(known.conditions, CHAMPION), SPEC, baselines={}, seed=seed)
        found += any(one.passed for one in verdicts)
    return found


@pytest.mark.parametrize("correlation", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("rates", [1, 10])
def test_a_challenger_that_is_no_better_is_rarely_promoted(correlation: float, rates: int) -> None:
    assert promotions(Truth(0.0, correlation), rates=rates) <= MOST


def test_a_challenger_that_is_better_is_mostly_promoted() -> None:
    assert promotions(Truth(0.1, 0.05), rates=1) > 0.9 * SIMULATIONS
