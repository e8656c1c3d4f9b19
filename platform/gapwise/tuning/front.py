"""The Pareto front of several objectives: configurations that no other one beats at some objective without losing at
another. Pure; costs, so lower is better.

A configuration of the second phase stands there with its mean over seeds. One that lost a seed, or was dropped from the
race, is not compared with those that have them all: few seeds flatter.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gapwise.evaluation.metrics import Real
from gapwise.evaluation.objective import objective_costs
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.assignment import Finished, Values
from gapwise.tuning.elimination import Configuration


class Candidate(NamedTuple):
    """A configuration with its costs over seeds."""

    arm: str
    source: int
    values: Values
    seeds: int
    mean: dict[str, float]
    sd: dict[str, float]
    """Between seeds; 0 for one seed."""


def candidates(runs: Iterable[Finished], objectives: Mapping[str, ObjectiveSpec]) -> list[Candidate]:
    """Configurations with complete runs, in the order of arms and numbers; of unequal seeds those with the most."""
    grouped: dict[Configuration, list[Finished]] = {}
    for run in runs:
        if run.outcome.eligible and run.outcome.duplicate_of is None:
            grouped.setdefault((run.assignment.arm, run.assignment.source), []).append(run)
    most = max((len(runs) for runs in grouped.values()), default=0)
    return [_candidate(grouped[one], objectives) for one in sorted(grouped) if len(grouped[one]) == most]


def _candidate(runs: list[Finished], objectives: Mapping[str, ObjectiveSpec]) -> Candidate:
    costs = [objective_costs(run.outcome.metrics, objectives) for run in runs]
    by_name = {name: np.array([one[name] for one in costs]) for name in objectives}
    spread = 1 if len(runs) > 1 else 0
    assignment = runs[0].assignment
    return Candidate(
        arm=assignment.arm,
        source=assignment.source,
        values=assignment.values,
        seeds=len(runs),
        mean={name: float(value.mean()) for name, value in by_name.items()},
        sd={name: float(value.std(ddof=spread)) for name, value in by_name.items()},
    )


def pareto_front(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that none dominates, from the best at the first objective on; equals stand beside each other."""
    if not found:
        return []
    cost_NM = _costs(found)
    kept = [one for one, beaten in zip(found, dominated(cost_NM), strict=True) if not beaten]
    return sorted(kept, key=lambda one: (list(one.mean.values()), one.arm, one.source))


def dominated(cost_NM: Real) -> list[bool]:
    """Whether another row is nowhere worse and somewhere better."""
    return [bool(((cost_NM <= one_M).all(1) & (cost_NM < one_M).any(1)).any()) for one_M in cost_NM]


def spread_out(front: Sequence[Candidate]) -> list[Candidate]:
    """The best at each objective, in the order of objectives, then always the one farthest from those before it.

    Distances are taken with each objective's range over the front as its unit. A cut after any place leaves the front's
    ends and its shape.
    """
    if not front:
        return []
    cost_NM = _costs(front)
    unit_M = np.ptp(cost_NM, axis=0)
    scaled_NM = cost_NM / np.where(unit_M > 0.0, unit_M, 1.0)
    order = list(dict.fromkeys(int(index) for index in cost_NM.argmin(0)))
    while len(order) < len(front):
        gap_NK = np.linalg.norm(scaled_NM[:, None] - scaled_NM[order][None], axis=2)
        gap_N = gap_NK.min(1)
        gap_N[order] = -1.0
        order.append(int(gap_N.argmax()))
    return [front[index] for index in order]


def _costs(found: Sequence[Candidate]) -> Real:
    return np.array([list(one.mean.values()) for one in found])
