"""Paired comparison with uncertainty: one metric on many resamples, the same resamples for everyone who is compared.

Groups (videos, speakers) are resampled and never their items one by one: what items of a group share would look like
certainty. Where there are no groups each item is its own. Mask seeds are resampled beside them, independently. Every
metric here is a function of sums over items (losses, moments, confusion counts), so it is recomputed exactly on each
resample from sums by group, by one matrix product.

Of n groups or seeds n - 1 are drawn, with replacement: the spread of the resampled figures is then the standard error
without the factor (n - 1) / n (Rao and Wu 1988, J. Am. Stat. Assoc. 83), which is a half for two training seeds.

Shape legend: B resamples, K conditions, V mask seeds, N items, G groups, C classes, L sums of answers, M sums of truth.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import Labels
from gapwise.data.masks import stream
from gapwise.data.shape import DataShape
from gapwise.evaluation.metrics import SIMS_RANGE, Index, Real, f1, macro_recall

RESAMPLES = 2000
"""The standard error of a share of .05 is then .005."""
_ROUNDING = 1e-13
"""A variance of less, relative to the second moment, is what rounding leaves of a constant."""


class Resamples(NamedTuple):
    """What was drawn: the same groups and mask seeds for everyone who is compared."""

    group_of: Index
    """(N,): the group of every item."""
    group_counts: Real
    """(B, G): how often each group was drawn."""
    mask_counts: Real
    """(B, V): how often each mask seed was drawn."""

    @property
    def groups(self) -> int:
        """How many groups there are to draw from."""
        return int(self.group_counts.shape[1])


def draw_resamples(groups: Sequence[str], mask_seeds: int, *, seed: int, count: int = RESAMPLES) -> Resamples:
    """The same for the same groups, in any order of items, and the same seed."""
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    return Resamples(
        group_of=group_of,
        group_counts=drawn(len(names), count, seed=seed, purpose="resampled groups"),
        mask_counts=drawn(mask_seeds, count, seed=seed, purpose="resampled mask seeds"),
    )


def drawn(size: int, count: int, *, seed: int, purpose: str) -> Real:
    """(count, size): how often each of `size` things is among `size` - 1 draws; one thing is always itself."""
    key = int(stream(seed=seed, split="", epoch=0, purpose=purpose))
    generator = np.random.Generator(np.random.Philox(key=key))
    chosen = generator.integers(size, size=(count, max(size - 1, 1)))
    cell = chosen + size * np.arange(count)[:, None]
    return np.bincount(cell.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)


def resampled(
    metric: str, outputs: NDArray[np.float32], labels: Labels, shape: DataShape, resamples: Resamples
) -> Real:
    """(K, B): the metric of every condition on every resample, averaged over its mask seeds.

    `outputs` is (K, V, N) scores or (K, V, N, C) logits, `labels` (N,). NaN where a resample leaves the metric
    undefined, and throughout where an output is not finite.
    """
    truth_N = labels.astype(np.float64)
    return np.stack(
        [_one_condition(metric, values.astype(np.float64), truth_N, shape, resamples) for values in outputs]
    )


def _one_condition(metric: str, outputs: Real, truth_N: Real, shape: DataShape, resamples: Resamples) -> Real:
    finite_V = np.isfinite(outputs.reshape(len(outputs), -1)).all(1)
    sums = _SUMS[metric](np.where(np.isfinite(outputs), outputs, 0.0), truth_N, shape)
    seeds, items, width = sums.answers.shape
    flat_NX = sums.answers.transpose(1, 0, 2).reshape(items, seeds * width)
    answers_BVL = _resum(flat_NX, resamples).reshape(-1, seeds, width)
    with np.errstate(invalid="ignore", divide="ignore"):
        figure_BV = sums.figure(answers_BVL, _resum(sums.truth, resamples)[:, None])
    figure_BV = np.where(finite_V, figure_BV, np.nan)
    averaged: Real = (figure_BV * resamples.mask_counts).sum(1) / resamples.mask_counts.sum(1)
    return averaged


def _resum(columns_NX: Real, resamples: Resamples) -> Real:
    """(B, X): sums over the items of every resample."""
    order = resamples.group_of.argsort(kind="stable")
    starts = np.searchsorted(resamples.group_of[order], np.arange(resamples.groups))
    return resamples.group_counts @ np.add.reduceat(columns_NX[order], starts, axis=0)


class _Sums(NamedTuple):
    """What to sum over items, and what to make of the sums."""

    answers: Real
    """(V, N, L), from the answers."""
    truth: Real
    """(N, M), from the labels alone."""
    figure: Callable[[Real, Real], Real]
    """The metric (B, V) from sums (B, V, L) and (B, 1, M)."""


def _share(value_VN: Real, counted_N: Real) -> _Sums:
    """The mean of a per-item figure over the items that count."""
    return _Sums(
        (value_VN * counted_N)[..., None], counted_N[:, None], lambda hit, all_of: hit[..., 0] / all_of[..., 0]
    )


def _absolute_error(scores_VN: Real, truth_N: Real, shape: DataShape) -> _Sums:
    del shape
    return _share(np.abs(scores_VN - truth_N), np.ones(len(truth_N)))


def _side_has0(scores_VN: Real, truth_N: Real, shape: DataShape) -> _Sums:
    positive = np.greater if shape.label_range == SIMS_RANGE else np.greater_equal
    agree_VN = positive(scores_VN, 0) == positive(truth_N, 0)
    return _share(agree_VN.astype(np.float64), np.ones(len(truth_N)))


def _side_non0(scores_VN: Real, truth_N: Real, shape: DataShape) -> _Sums:
    del shape
    return _share(((scores_VN > 0) == (truth_N > 0)).astype(np.float64), (truth_N != 0).astype(np.float64))


def _moments(scores_VN: Real, truth_N: Real, shape: DataShape) -> _Sums:
    del shape
    # Means are taken off first, because differences of large sums lose digits.
    x_VN = scores_VN - scores_VN.mean(1, keepdims=True)
    y_N = truth_N - truth_N.mean()
    one_N = np.ones(len(y_N))
    return _Sums(np.stack([x_VN, x_VN**2, x_VN * y_N], axis=-1), np.stack([one_N, y_N, y_N**2], axis=-1), _pearson)


def _pearson(answers_BVL: Real, truth_B1M: Real) -> Real:
    """As `metrics.pearson`: 0 where either side is constant."""
    count, y, yy = np.moveaxis(truth_B1M, -1, 0)
    x, xx, xy = np.moveaxis(answers_BVL, -1, 0) / count
    y, yy = y / count, yy / count
    spread_x, spread_y = xx - x**2, yy - y**2
    varies = (spread_x > _ROUNDING * xx) & (spread_y > _ROUNDING * yy)
    return np.where(varies, (xy - x * y) / np.sqrt(spread_x * spread_y), 0.0)


def _confusion(of_counts: Callable[[Real], Real]) -> Callable[[Real, Real, DataShape], _Sums]:
    """A metric of (R, C, C) confusion counts: each item is one in its cell."""

    def sums(logits_VNC: Real, truth_N: Real, shape: DataShape) -> _Sums:
        cell_VN = truth_N.astype(np.int64) * shape.classes + logits_VNC.argmax(-1)

        def figure(cells_BVL: Real, nothing: Real) -> Real:
            del nothing
            return of_counts(cells_BVL.reshape(-1, shape.classes, shape.classes)).reshape(cells_BVL.shape[:2])

        return _Sums(np.eye(shape.classes**2)[cell_VN], np.empty((len(truth_N), 0)), figure)

    return sums


def _class_hit(logits_VNC: Real, truth_N: Real, shape: DataShape) -> _Sums:
    del shape
    return _share((logits_VNC.argmax(-1) == truth_N).astype(np.float64), np.ones(len(truth_N)))


_SUMS: dict[str, Callable[[Real, Real, DataShape], _Sums]] = {
    "mae": _absolute_error,
    "corr": _moments,
    "acc2_non0": _side_non0,
    "acc2_has0": _side_has0,
    "accuracy": _class_hit,
    "macro_recall": _confusion(macro_recall),
    "f1_weighted": _confusion(lambda counts: f1(counts, weighted=True)),
    "f1_macro": _confusion(lambda counts: f1(counts, weighted=False)),
}
"""Every metric that can be an objective."""
_OF_SCORES = ("mae", "corr", "acc2_non0", "acc2_has0")


def resampled_metrics(task: str) -> tuple[str, ...]:
    """What `resampled` can compute."""
    return tuple(name for name in _SUMS if (name in _OF_SCORES) == (task == "regression"))
