"""How often the gate promotes what is no better, and what is: by simulation, beside simpler rules.

    python tests/benchmarks/gate.py --out tests/benchmarks/results/gate.json

One decision on one rate of a test split like CMU-MOSI's (`gapwise.testing.contests`: 31 groups, 686 items), alpha .05.
Rules: *naive*, the challenger's mean is lower; *items*, its improvement is above 0 in 95 % of resamples of items;
*percentiles*, the same with groups resampled; *gate*, ours. And a year of weekly challengers, none of them better, on
one test split: the share of years with any promotion, for the gate with its yearly alpha and without.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
from typing import Any

import numpy as np
from measuring import arguments, publish

from gapwise.evaluation.contest import Figures, difference, figures
from gapwise.evaluation.paired import Resamples, draw_resamples
from gapwise.promotion.gate import Answers, weigh
from gapwise.spec.gate import GateSpec
from gapwise.testing.contests import CHALLENGER, CHAMPION, Truth, contest

ALPHA = 0.05
CORRELATIONS, IMPROVEMENTS = (0.0, 0.05, 0.1), (0.0, 0.02, 0.05, 0.1)
WEEKS = 52
_MASK_SEEDS = 4


def decided(answers: Answers, by_group: Resamples, by_item: Resamples) -> dict[str, bool]:
    """What each rule says."""

    def known(resamples: Resamples) -> tuple[Figures, Figures]:
        both = [
            figures("mae", answers.models[name], answers.labels, answers.shape, resamples)
            for name in (CHALLENGER, CHAMPION)
        ]
        return both[0], both[1]

    def mostly_better(both: tuple[Figures, Figures]) -> bool:
        return bool((both[0].resampled[0] >= both[1].resampled[0]).mean() <= ALPHA)

    grouped = known(by_group)
    found = difference("mae", *grouped, 0, by_group)
    return {
        "naive": found.effect > 0.0,
        "items": mostly_better(known(by_item)),
        "percentiles": mostly_better(grouped),
        "gate": found.p_above(0.0) <= ALPHA,
    }


def shares(truth: Truth, simulations: int) -> dict[str, float]:
    """Of simulations in which each rule promotes."""
    draw = np.random.default_rng(7)
    said: list[dict[str, bool]] = []
    for seed in range(simulations):
        answers = contest(truth, draw, mask_seeds=_MASK_SEEDS)
        items = [str(index) for index in range(len(answers.labels))]
        by_group = draw_resamples(answers.groups, _MASK_SEEDS, seed=seed)
        said.append(decided(answers, by_group, draw_resamples(items, _MASK_SEEDS, seed=seed)))
    return {rule: sum(one[rule] for one in said) / simulations for rule in said[0]}


def years(spec: GateSpec, correlation: float, simulations: int) -> float:
    """Share of years with any promotion of a challenger that is no better, once a week on one test split."""
    draw = np.random.default_rng(11)
    wrong = 0
    for year in range(simulations):
        for week in range(WEEKS):
            champion = np.random.default_rng(year)
            answers = contest(Truth(0.0, correlation), draw, mask_seeds=_MASK_SEEDS, champion=champion)
            asked = [("0.0", CHALLENGER)]
            (verdict,) = weigh(answers, asked, {"0.0": CHAMPION}, spec, baselines={}, seed=year * WEEKS + week)
            if verdict.passed:
                wrong += 1
                break
    return wrong / simulations


def measure(simulations: int, simulated_years: int) -> dict[str, Any]:
    table = []
    for correlation in CORRELATIONS:
        for improvement in IMPROVEMENTS:
            found = shares(Truth(improvement, correlation), simulations)
            table.append({"correlation": correlation, "improvement": improvement, **found})
            print(table[-1], file=sys.stderr, flush=True)
    spending = GateSpec(decisions_per_year=WEEKS)
    careless = GateSpec(yearly_alpha=1.0, decisions_per_year=1)
    weekly = {
        "yearly_alpha": spending.yearly_alpha,
        "spending": years(spending, 0.05, simulated_years),
        "each at .05": years(careless, 0.05, simulated_years),
    }
    print(weekly, file=sys.stderr, flush=True)
    return {"alpha": ALPHA, "simulations": simulations, "decisions": table, "years": simulated_years, "weekly": weekly}


def main() -> None:
    chosen = arguments(__doc__, simulations=1000, years=200).parse_args()
    publish(measure(chosen.simulations, chosen.years), chosen.out)


if __name__ == "__main__":
    main()
