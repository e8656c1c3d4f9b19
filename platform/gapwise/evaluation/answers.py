"""From a posterior over labels to the best possible answer, which is another one for every metric.

MAE wants the posterior median; Pearson r and the squared error the mean; Acc-2 the likelier side, where `non0` asks
about samples whose label is not zero; Acc-7 and Acc-5 the likeliest class. No one predictor attains all of them, so the
optimum is a bound for each metric by itself. F1 is that of the best Acc-2 answer: close to its own best, no bound.

Shape legend: ... any leading axes, N samples, Y labels.
"""

from collections.abc import Callable, Mapping

import numpy as np

from gapwise.data.shape import DataShape
from gapwise.evaluation.metrics import Real, Scores, score

_ROUNDING = 1e-12


def median(posterior: Real, labels_Y: Real) -> Real:
    """(...): the lowest label with at least half of the probability at or below it."""
    reached = posterior.cumsum(-1) >= 0.5 - _ROUNDING
    middle: Real = labels_Y[reached.argmax(-1)]
    return middle


def mean(posterior: Real, labels_Y: Real) -> Real:
    """(...): E[y | frames]."""
    expected: Real = posterior @ labels_Y
    return expected


def side_non0(posterior: Real, labels_Y: Real) -> Real:
    """(...): 1 or -1, the likelier sign of a label that is not zero."""
    return np.where(posterior @ (labels_Y > 0) > posterior @ (labels_Y < 0), 1.0, -1.0)


def side_has0(posterior: Real, labels_Y: Real) -> Real:
    """(...): 1 where y >= 0 is at least as likely as y < 0, -1 elsewhere."""
    return np.where(posterior @ (labels_Y >= 0) >= 0.5, 1.0, -1.0)


def likeliest_class(posterior: Real, labels_Y: Real, limit: float) -> Real:
    """(...): the likeliest of the whole numbers that labels round to, clipped to [-limit, limit]."""
    class_Y = np.round(labels_Y.clip(-limit, limit))
    classes = np.unique(class_Y)
    probability = posterior @ (class_Y[:, None] == classes).astype(np.float64)
    likeliest: Real = classes[probability.argmax(-1)]
    return likeliest


Answer = Callable[[Real, Real], Real]

ANSWERS: Mapping[str, Answer] = {
    "mae": median,
    "corr": mean,
    "acc2_non0": side_non0,
    "f1_non0": side_non0,
    "acc2_has0": side_has0,
    "f1_has0": side_has0,
    "acc7": lambda posterior, labels_Y: likeliest_class(posterior, labels_Y, 3.0),
    "acc5": lambda posterior, labels_Y: likeliest_class(posterior, labels_Y, 2.0),
}


def best_scores(posterior: Real, labels_Y: Real, truth_N: Real, shape: DataShape) -> Scores:
    """Every metric, (R,), of its own best answer to a posterior (R, N, Y)."""
    return {metric: score(answer(posterior, labels_Y), truth_N, shape)[metric] for metric, answer in ANSWERS.items()}
