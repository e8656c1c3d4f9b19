"""From a curve over missing rates to the numbers that are minimised: early stopping, pruning and selection use them."""

from collections.abc import Mapping

import numpy as np

from gapwise.data.arrays import Labels
from gapwise.data.protocols import refuse_impossible_rates
from gapwise.data.shape import DataShape, Task
from gapwise.errors import SpecError, nearest
from gapwise.evaluation.metrics import LOWER_IS_BETTER, metric_names, score
from gapwise.spec.protocol import rate_key
from gapwise.spec.train import Metric, ObjectiveSpec, TrainSpec

Curve = dict[str, float]


AUTO: dict[Task, Metric] = {"regression": "mae", "classification": "macro_recall"}
"""Macro recall (the field's UA) and not accuracy: always answering the majority class must not look good."""


def settled(spec: TrainSpec, shape: DataShape, valid_labels: Labels) -> TrainSpec:
    """The spec on this dataset, before anything is trained: metric `auto` becomes the task's, the rest is held against
    the data.

    Raises SpecError for a metric that the task does not have or that the validation labels leave undefined, and for
    missing rates that the dataset's modalities cannot have.
    """
    refuse_impossible_rates(spec.protocol, shape.modalities)
    return spec.model_copy(update={"objective": settled_objective(spec.objective, shape, valid_labels, "objective")})


def settled_objective(objective: ObjectiveSpec, shape: DataShape, valid_labels: Labels, where: str) -> ObjectiveSpec:
    """The objective on this dataset; `where` it is written is said in the SpecErrors that `settled` names."""
    metric = AUTO[shape.task] if objective.metric == "auto" else objective.metric
    _refuse_foreign_metric(metric, shape, f"{where}.metric")
    _refuse_undefined_metric(metric, shape, valid_labels, f"{where}.metric")
    return objective.model_copy(update={"metric": metric})


def _refuse_foreign_metric(metric: str, shape: DataShape, where: str) -> None:
    known = metric_names(shape)
    if metric not in known:
        task = f"a {shape.task} dataset with labels {shape.label_range[0]:g} to {shape.label_range[1]:g}"
        raise SpecError(
            f"{task} has no metric {metric!r}{nearest(metric, known)}", where=where, allowed=["auto", *known]
        )


def _refuse_undefined_metric(metric: str, shape: DataShape, valid_labels: Labels, where: str) -> None:
    anything = (1, len(valid_labels), *([shape.classes] if shape.task == "classification" else []))
    figures = score(np.zeros(anything), valid_labels, shape)
    if not np.isfinite(figures[metric]).all():
        defined = [name for name, value in figures.items() if np.isfinite(value).all()]
        raise SpecError(
            f"{metric} is undefined on these validation labels: no sample counts for it",
            where=where,
            allowed=defined,
        )


def as_cost(metric: str, value: float) -> float:
    """Lower is better for every metric: scores that grow with quality are negated."""
    assert metric != "auto", "the dataset decides; see settled"
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


def objective_costs(metrics: Mapping[str, Curve], objectives: Mapping[str, ObjectiveSpec]) -> dict[str, float]:
    """Each named objective as a cost, from {metric: curve}."""
    return {name: reduce_curve(metrics[one.metric], one) for name, one in objectives.items()}
