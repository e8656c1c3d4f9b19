"""The metrics of methods.md section 5, exactly, vectorised over replicas (rates x mask seeds x training seeds).

Conventions that the field disagrees on are spelled out in the names: `non0` drops samples whose label is 0 and asks for
y > 0, `has0` keeps them and asks for y >= 0. F1 takes (truth, prediction) in scikit-learn's order; swapping them turns
48.5 into 77.2 for a collapsed model.

Shape legend: R replicas, N samples, C classes.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import Labels
from gapwise.data.shape import DataShape

Real = NDArray[np.float64]
Index = NDArray[np.int64]
Scores = dict[str, Real]

LOWER_IS_BETTER = frozenset({"mae"})
SIMS_RANGE = (-1.0, 1.0)
_SIMS_ANSWERS = (-1.0, -0.4, 0.0, 0.4, 1.0)
_SIMS_CUTS = {"acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}


def metric_names(shape: DataShape) -> list[str]:
    """The metrics that a task has."""
    zeros = np.zeros((1, 2, max(shape.classes, 2)) if shape.task == "classification" else (1, 2))
    return list(score(zeros, np.zeros(2), shape))


def better(metric: str, first: float, second: float) -> bool:
    """Whether `first` is strictly better than `second` on this metric."""
    return first < second if metric in LOWER_IS_BETTER else first > second


def score(outputs: Real, labels: Labels | Real, shape: DataShape) -> Scores:
    """Every metric of the task as (R,) arrays.

    `outputs` is (R, N) scores for regression and (R, N, C) logits for classes; `labels` is (N,). A replica with an
    output that is not finite scores NaN throughout: as a class it would merely look mediocre.
    """
    finite_R = np.isfinite(outputs.reshape(len(outputs), -1)).all(1)
    outputs = np.where(np.isfinite(outputs), outputs, 0.0)
    if shape.task == "classification":
        scores = classification(outputs.argmax(-1), labels.astype(np.int64), shape.classes)
    else:
        scores = regression(outputs.astype(np.float64), labels.astype(np.float64), shape.label_range)
    return {name: np.where(finite_R, value, np.nan) for name, value in scores.items()}


def regression(predicted_RN: Real, truth_N: Real, label_range: tuple[float, float]) -> Scores:
    """MAE and Pearson r on raw values, then the classes that the field cuts from them."""
    scores = {"mae": np.abs(predicted_RN - truth_N).mean(1), "corr": pearson(predicted_RN, truth_N)}
    if label_range == SIMS_RANGE:
        scores |= _binary("has0", predicted_RN > 0, truth_N > 0)
        for name, cuts in _SIMS_CUTS.items():
            # Classes are closed above, (-.1, .1] for one, as MMSA cuts them.
            cut_RN = np.digitize(predicted_RN.clip(-1, 1), cuts, right=True)
            scores[name] = (cut_RN == np.digitize(truth_N.clip(-1, 1), cuts, right=True)).mean(1)
        return scores
    nonzero_N = truth_N != 0
    scores |= _binary("non0", predicted_RN[:, nonzero_N] > 0, truth_N[nonzero_N] > 0)
    scores |= _binary("has0", predicted_RN >= 0, truth_N >= 0)
    for name, limit in (("acc7", 3.0), ("acc5", 2.0)):
        scores[name] = (_rounded(predicted_RN, limit) == _rounded(truth_N, limit)).mean(1)
    return scores


def _rounded(value: Real, limit: float) -> Real:
    return np.round(value.clip(-limit, limit))


def pearson(predicted_RN: Real, truth_N: Real) -> Real:
    """Pearson r by replica; 0 where either side is constant, because a constant predicts no variation.

    Constant means no spread beyond the rounding of float64, at any magnitude.
    """
    predicted = predicted_RN - predicted_RN.mean(1, keepdims=True)
    truth = truth_N - truth_N.mean()
    norm_R, norm = np.sqrt((predicted**2).sum(1)), np.sqrt((truth**2).sum())
    rounding_R, rounding = (1e-12 * np.sqrt((side**2).sum(-1)) for side in (predicted_RN, truth_N))
    varies_R = (norm_R > rounding_R) & (norm > rounding)
    r: Real = np.divide(predicted @ truth, norm_R * norm, out=np.zeros(len(predicted)), where=varies_R)
    return r


def average_ranks(values_N: Real | Index) -> Real:
    """(N,) ranks from 1; equal values share the mean of theirs. (`scipy.stats` has it too, and a second to import.)"""
    _, level_N, count_L = np.unique(values_N, return_inverse=True, return_counts=True)
    last_L = count_L.cumsum()
    ranks: Real = (last_L - (count_L - 1) / 2)[level_N]
    return ranks


def _binary(name: str, predicted_RN: NDArray[np.bool_], truth_N: NDArray[np.bool_]) -> Scores:
    if truth_N.size == 0:
        empty = np.full(len(predicted_RN), np.nan)
        return {f"acc2_{name}": empty, f"f1_{name}": empty}
    counts = confusion(predicted_RN.astype(np.int64), truth_N.astype(np.int64), 2)
    return {f"acc2_{name}": _accuracy(counts), f"f1_{name}": f1(counts, weighted=True)}


def classification(predicted_RN: Index, truth_N: Index, classes: int) -> Scores:
    """Accuracy (WA), macro recall over classes that occur (UA), weighted and macro F1."""
    counts = confusion(predicted_RN, truth_N, classes)
    return {
        "accuracy": _accuracy(counts),
        "macro_recall": macro_recall(counts),
        "f1_weighted": f1(counts, weighted=True),
        "f1_macro": f1(counts, weighted=False),
    }


def confusion(predicted_RN: Index, truth_N: Index, classes: int) -> Real:
    """(R, C, C) counts with truth in rows and prediction in columns."""
    replicas = len(predicted_RN)
    cell = (np.arange(replicas)[:, None] * classes + truth_N) * classes + predicted_RN
    counts = np.bincount(cell.ravel(), minlength=replicas * classes * classes)
    return counts.reshape(replicas, classes, classes).astype(np.float64)


def _diagonal(counts: Real) -> Real:
    return np.diagonal(counts, axis1=1, axis2=2)


def _accuracy(counts: Real) -> Real:
    accuracy: Real = _diagonal(counts).sum(1) / counts.sum((1, 2))
    return accuracy


def macro_recall(counts: Real) -> Real:
    """(R,) from (R, C, C) counts, over the classes that occur."""
    support = counts.sum(2)
    recall = np.divide(_diagonal(counts), support, out=np.zeros_like(support), where=support > 0)
    averaged: Real = recall.sum(1) / (support > 0).sum(1)
    return averaged


def f1(counts: Real, *, weighted: bool) -> Real:
    """(R,) from (R, C, C) counts, over classes that occur on either side.

    That is scikit-learn's f1_score(truth, prediction, zero_division=0).
    """
    hits, support, chosen = _diagonal(counts), counts.sum(2), counts.sum(1)
    occurs = (support + chosen) > 0
    by_class = np.divide(2 * hits, support + chosen, out=np.zeros_like(support), where=occurs)
    weight = support if weighted else occurs.astype(np.float64)
    value: Real = (by_class * weight).sum(1) / weight.sum(1)
    return value


def floor(train_labels: Labels, labels: Labels, shape: DataShape) -> Mapping[str, float]:
    """What always giving one answer scores on `labels`: the answer is chosen for each metric on the training labels.

    MAE answers the training median, two-class metrics the training majority's side, finer classes the training
    majority's class. It is a floor, not a model: it needs no input at all.
    """
    scores = {
        metric: score(constant_outputs(answer, len(labels), shape)[None], labels, shape)[metric]
        for metric, answer in constants(train_labels, shape).items()
    }
    return {metric: float(value[0]) for metric, value in scores.items()}


def constants(train_labels: Labels, shape: DataShape) -> dict[str, float]:
    """By metric the one answer that scores best on the training labels: a score, or the number of a class."""
    if shape.task == "classification":
        majority = float(np.bincount(train_labels.astype(np.int64)).argmax())
        return dict.fromkeys(metric_names(shape), majority)
    labels = train_labels.astype(np.float64)
    answers_A = _answers(labels, shape.label_range)
    constant_AN = np.repeat(answers_A[:, None], len(labels), axis=1)
    in_training = regression(constant_AN, labels, shape.label_range)
    chosen = {name: float(answers_A[np.nan_to_num(value).argmax()]) for name, value in in_training.items()}
    return chosen | dict.fromkeys(("mae", "corr"), float(answers_A[-1]))


def constant_outputs(answer: float, count: int, shape: DataShape) -> Real:
    """(N,) scores, or (N, C) logits, of a model that always gives one answer."""
    if shape.task == "classification":
        return np.repeat(np.eye(shape.classes)[[int(answer)]], count, axis=0)
    return np.full(count, answer)


def _answers(train_labels: Real, label_range: tuple[float, float]) -> Real:
    """One answer in every class that the metrics cut, and last the training median."""
    grid = _SIMS_ANSWERS if label_range == SIMS_RANGE else tuple(np.arange(-3.0, 4.0).tolist())
    return np.array([*grid, float(np.median(train_labels))])
