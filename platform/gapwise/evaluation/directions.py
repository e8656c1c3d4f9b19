"""Where in feature space a target lies: one direction by shrunken regression, and one for each fold left out of it.

If a frame is target * v plus noise of covariance S, the best estimate of v from N samples is the shrunken S^-1 b, with
b the sum of target * frame. How far to shrink S towards a multiple of the identity is chosen by the correlation on the
folds left out, by the rule of one standard error (Breiman et al. 1984); full shrinkage is b itself. Projections of a
sample on a direction that it helped to fit look better than they are (the slope by a tenth for 768 features and 1,284
samples), so parameters are fitted on out-of-fold ones.

Shape legend: N samples, D features, G folds (runs of consecutive rows), S shrinkages, E = D + 2.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.evaluation.metrics import Real

FOLDS = 10
_SHRINKAGES = (1.0, 0.75, 0.5, 0.25, 0.05)
"""Simplest first."""


class Found(NamedTuple):
    """Unit vectors, with the target growing along them."""

    whole: Real
    """(D,) from all samples."""
    folds: Real
    """(G, D), row g from the samples outside fold g."""


def fold_of(samples: int) -> NDArray[np.int64]:
    """(N,): runs of consecutive rows, so that the samples of one speaker mostly stay together."""
    return np.arange(samples, dtype=np.int64) * FOLDS // samples


def find_direction(sums_ND: Real, count_N: Real, target_N: Real) -> Found:
    """From each sample's sum of frames (N, D), their number (N,) and its target (N,)."""
    fold_N = fold_of(len(target_N))
    parts = [_moments(sums_ND[fold_N == g], count_N[fold_N == g], target_N[fold_N == g]) for g in range(FOLDS)]
    whole = reduce(np.add, parts)
    rest = [whole - part for part in parts]
    means_ND = sums_ND / np.maximum(count_N, 1.0)[:, None]
    tried = {shrinkage: np.stack([_direction(one, shrinkage) for one in rest]) for shrinkage in _SHRINKAGES}
    scores = []
    for folds_GD in tried.values():
        found_N = (means_ND * folds_GD[fold_N]).sum(1)
        by_fold = [
            _correlation(found_N[fold_N == g], target_N[fold_N == g], count_N[fold_N == g]) for g in range(FOLDS)
        ]
        scores.append(by_fold)
    chosen = _SHRINKAGES[one_standard_error(np.array(scores))]
    return Found(_direction(whole, chosen), tried[chosen])


def one_standard_error(scores_SG: Real) -> int:
    """The first choice whose mean over folds is within one standard error of the best one's; first means simplest."""
    mean_S = scores_SG.mean(1)
    best = int(mean_S.argmax())
    error = scores_SG[best].std(ddof=1) / np.sqrt(scores_SG.shape[1])
    return int((mean_S >= mean_S[best] - error).argmax())


def orthogonal(found: Found, other: Found) -> Found:
    """`found` less its components along `other`, fold by fold."""
    return Found(_without(found.whole[None], other.whole[None])[0], _without(found.folds, other.folds))


def _moments(sums_ND: Real, count_N: Real, target_N: Real) -> Real:
    """(E, E) second moments of (mean frame, target, 1), each sample weighing as many times as it has frames."""
    root_N1 = np.sqrt(np.maximum(count_N, 1.0))[:, None]
    parts = [sums_ND / root_N1, (np.sqrt(count_N) * target_N)[:, None], np.sqrt(count_N)[:, None]]
    rows_NE = np.concatenate(parts, axis=1)
    moments_EE: Real = rows_NE.T @ rows_NE
    return moments_EE


def _direction(moments_EE: Real, shrinkage: float) -> Real:
    moments_EE = moments_EE / moments_EE[-1, -1]
    mean_D, target = moments_EE[-1, :-2], moments_EE[-1, -2]
    slope_D = moments_EE[-2, :-2] - target * mean_D
    if shrinkage < 1.0:
        spread_DD = moments_EE[:-2, :-2] - np.outer(mean_D, mean_D)
        shrunk_DD = (1 - shrinkage) * spread_DD
        shrunk_DD[np.diag_indices_from(shrunk_DD)] += shrinkage * np.trace(spread_DD) / len(spread_DD)
        slope_D = np.linalg.solve(shrunk_DD, slope_D)
    return _unit(slope_D)


def _correlation(found_N: Real, target_N: Real, weight_N: Real) -> float:
    if not weight_N.any():
        return 0.0
    found_N = found_N - (weight_N @ found_N) / weight_N.sum()
    target_N = target_N - (weight_N @ target_N) / weight_N.sum()
    norm = np.sqrt((weight_N * found_N**2).sum() * (weight_N * target_N**2).sum())
    return float((weight_N * found_N * target_N).sum() / norm) if norm > 0 else 0.0


def _without(rows_GD: Real, other_GD: Real) -> Real:
    return _unit(rows_GD - (rows_GD * other_GD).sum(-1, keepdims=True) * other_GD)


def _unit(rows: Real) -> Real:
    unit: Real = rows / np.maximum(np.sqrt((rows**2).sum(-1, keepdims=True)), 1e-300)
    return unit
