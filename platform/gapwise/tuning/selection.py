"""Who runs again and who wins, from validation curves alone. Pure; it is never given a test split.

Shape of the evidence: a *search* trial has one curve from one seed; a *repeat* has a curve over many mask seeds for
each training seed. A winner of a rate is the configuration whose mean over seeds is best at that rate.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from gapwise.evaluation.objective import as_cost
from gapwise.spec.search import BASELINE
from gapwise.tuning.assignment import Finished


class Standing(NamedTuple):
    """A configuration at one condition, over training seeds."""

    arm: str
    source: int
    mean: float
    sd: float
    seeds: int


def conditions_of(runs: Sequence[Finished], metric: str) -> list[str]:
    """The conditions that the curves have, in the protocol's order."""
    return list(runs[0].outcome.metrics[metric]) if runs else []


def chosen_again(searched: Sequence[Finished], metric: str, *, top_k: int, cap: int) -> list[int]:
    """Numbers of one arm's trials for the second phase: the best k of each condition, united, at most `cap`.

    Those that are among the best at most conditions come first, then the lower objective. Only complete trials count:
    a pruned one was stopped because it was behind.
    """
    complete = [run for run in searched if run.outcome.state == "complete"]
    places: Counter[int] = Counter()
    for condition in conditions_of(complete, metric):
        ranked = sorted(complete, key=lambda run: as_cost(metric, run.outcome.metrics[metric][condition]))
        places.update(run.assignment.number for run in ranked[:top_k])
    costs = {run.assignment.number: run.outcome.cost or 0.0 for run in complete}
    return sorted(places, key=lambda number: (-places[number], costs[number], number))[:cap]


def standings(repeats: Sequence[Finished], metric: str, seeds: int) -> dict[str, list[Standing]]:
    """Every configuration of the second phase at every condition, best mean first.

    One that lost a seed to a failure comes behind those that finished all `seeds`: one lucky seed is no winner.
    """
    complete = [run for run in repeats if run.outcome.state == "complete"]
    grouped: dict[tuple[str, int], list[Finished]] = {}
    for run in complete:
        grouped.setdefault((run.assignment.arm, run.assignment.source), []).append(run)
    table = {}
    for condition in conditions_of(complete, metric):
        rows = [
            _standing(arm, source, [run.outcome.metrics[metric][condition] for run in runs])
            for (arm, source), runs in grouped.items()
        ]
        table[condition] = sorted(
            rows, key=lambda row: (row.seeds < seeds, as_cost(metric, row.mean), row.arm, row.source)
        )
    return table


def _standing(arm: str, source: int, values: list[float]) -> Standing:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Standing(arm, source, float(np.mean(values)), spread, len(values))


def first_of(rows: Sequence[Standing], *, baseline: bool) -> Standing | None:
    """The best standing of the baseline, or of everything else."""
    return next((row for row in rows if (row.arm == BASELINE) == baseline), None)


def median_index(costs: Sequence[float]) -> int:
    """Position of the (lower) median: what ships is the middle seed, not the luckiest."""
    return sorted(range(len(costs)), key=lambda index: (costs[index], index))[(len(costs) - 1) // 2]


def median_epoch(epochs: Sequence[int]) -> int:
    """Epochs that a refit trains: the median of the seeds' best epochs, rounded up: too few cost more than too many."""
    return max(1, math.ceil(median(epochs)))
