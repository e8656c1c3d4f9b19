"""Who runs again and who wins, from validation curves alone. Pure; it is never given a test split.

Shape of the evidence: a *search* trial has one curve from one seed; a *repeat* has a curve over many mask seeds for
each training seed. A winner of a rate is the configuration whose mean over seeds is best at that rate.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from gapwise.evaluation.objective import as_cost
from gapwise.spec.search import BASELINE
from gapwise.tuning.assignment import Finished
from gapwise.tuning.elimination import Chances, Configuration, Dropped


class Standing(NamedTuple):
    """A configuration at one condition, over training seeds."""

    arm: str
    source: int
    mean: float
    sd: float
    seeds: int
    probability_best: float | None = None
    """Among all configurations of the second phase, the baseline's too; None where predictions are missing."""


def conditions_of(runs: Sequence[Finished], metric: str) -> list[str]:
    """The conditions that the curves have, in the protocol's order."""
    return list(runs[0].outcome.metrics[metric]) if runs else []


def chosen_again(
    searched: Sequence[Finished], metric: str, *, top_k: int, cap: int, front: Sequence[int] = ()
) -> list[int]:
    """Numbers of one arm's trials for the second phase: the best k of each condition, united, at most `cap`.

    Those that are among the best at most conditions come first, then the lower objective. With a Pareto front (its
    numbers, the most telling first) the two take turns, so that neither crowds the other out. Only complete trials
    count: a pruned one was stopped because it was behind, one with another objective answers another question, and one
    answered from the record of another is that other.
    """
    complete = [run for run in searched if run.outcome.eligible and run.outcome.duplicate_of is None]
    places: Counter[int] = Counter()
    for condition in conditions_of(complete, metric):
        ranked = sorted(complete, key=lambda run: as_cost(metric, run.outcome.metrics[metric][condition]))
        places.update(run.assignment.number for run in ranked[:top_k])
    costs = {run.assignment.number: run.outcome.cost or 0.0 for run in complete}
    by_rate = sorted(places, key=lambda number: (-places[number], costs[number], number))
    in_turns = [number for pair in zip_longest(by_rate, front) for number in pair if number is not None]
    return list(dict.fromkeys(in_turns))[:cap]


def standings(
    repeats: Sequence[Finished],
    metric: str,
    seeds: int,
    dropped: Dropped = MappingProxyType({}),
    chances: Chances = MappingProxyType({}),
) -> dict[str, list[Standing]]:
    """Every configuration of the second phase at every condition, best mean first.

    One that lost a seed to a failure comes behind those that finished all `seeds`: one lucky seed is no winner. Last
    come those that were dropped at the condition.
    """
    complete = [run for run in repeats if run.outcome.eligible]
    grouped: dict[Configuration, list[Finished]] = {}
    for run in complete:
        grouped.setdefault((run.assignment.arm, run.assignment.source), []).append(run)
    table = {}
    for condition in conditions_of(complete, metric):
        rows = [
            _standing(one, [run.outcome.metrics[metric][condition] for run in runs], chances.get(condition, {}))
            for one, runs in grouped.items()
        ]
        out = {one for one, where in dropped.items() if condition in where}
        table[condition] = sorted(
            rows,
            key=lambda row: (
                (row.arm, row.source) in out,
                row.seeds < seeds,
                as_cost(metric, row.mean),
                row.arm,
                row.source,
            ),
        )
    return table


def _standing(one: Configuration, values: list[float], chances: Mapping[Configuration, float]) -> Standing:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Standing(*one, float(np.mean(values)), spread, len(values), chances.get(one))


def first_of(rows: Sequence[Standing], *, baseline: bool) -> Standing | None:
    """The best standing of the baseline, or of everything else."""
    return next((row for row in rows if (row.arm == BASELINE) == baseline), None)


def median_index(costs: Sequence[float]) -> int:
    """Position of the (lower) median: what ships is the middle seed, not the luckiest."""
    return sorted(range(len(costs)), key=lambda index: (costs[index], index))[(len(costs) - 1) // 2]


def median_epoch(epochs: Sequence[int]) -> int:
    """Epochs that a refit trains: the median of the seeds' best epochs, rounded up: too few cost more than too many."""
    return max(1, math.ceil(median(epochs)))
