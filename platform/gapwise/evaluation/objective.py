"""From a curve over missing rates to the one number that is minimised: early stopping, pruning and selection use it."""

import numpy as np

from gapwise.evaluation.metrics import LOWER_IS_BETTER
from gapwise.spec.protocol import rate_key
from gapwise.spec.train import ObjectiveSpec

Curve = dict[str, float]


def as_cost(metric: str, value: float) -> float:
    """Lower is better for every metric: scores that grow with quality are negated."""
    return value if metric in LOWER_IS_BETTER else -value


def reduce_curve(curve: Curve, objective: ObjectiveSpec) -> float:
    """The objective of a curve {condition: metric}, as a cost (lower is better)."""
    costs = np.array([as_cost(objective.metric, value) for value in curve.values()])
    if objective.reduce == "mean":
        return float(costs.mean())
    if objective.reduce == "worst":
        return float(costs.max())
    assert objective.rate is not None
    return as_cost(objective.metric, curve[rate_key(objective.rate)])
