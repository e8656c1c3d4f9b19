"""From a curve over missing rates to the one number that is minimised: early stopping, pruning and selection use it."""

import numpy as np

from gapwise.data.shape import DataShape
from gapwise.errors import SpecError
from gapwise.evaluation.metrics import LOWER_IS_BETTER, metric_names
from gapwise.spec.protocol import rate_key
from gapwise.spec.train import ObjectiveSpec

Curve = dict[str, float]


def refuse_foreign_metric(objective: ObjectiveSpec, shape: DataShape) -> None:
    """Raises SpecError for a metric that the dataset's task does not have, before anything is trained for it."""
    known = metric_names(shape)
    if objective.metric not in known:
        task = f"a {shape.task} dataset with labels {shape.label_range[0]:g} to {shape.label_range[1]:g}"
        raise SpecError(f"{task} has no metric {objective.metric!r}", where="objective.metric", allowed=known)


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
