"""Principal directions of a modality: along which training samples differ, when each is the mean of its frames.

Noise that is fresh in every frame averages out of a sample's mean, so that the first directions are those in which
samples are told apart, whoever needs them for what: labels are not looked at. A sample counts by its number of frames.
Computed in one pass over the frames and a second one for the scale; D x D numbers are held.

Shape legend: F frames of a block, D features, R samples with frames in a block, P directions.
"""

from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gapwise.data.shape import Moments, Statistics
from gapwise.data.store import TrainSplit
from gapwise.spec.model import MOST_COMPONENTS

Real = NDArray[np.float64]

_CACHE: WeakKeyDictionary[TrainSplit, dict[str, NDArray[np.float32]]] = WeakKeyDictionary()


def with_directions(statistics: Statistics, train: TrainSplit, modalities: Iterable[str]) -> Statistics:
    """The statistics with these modalities' principal directions; found once for as long as the split lives."""
    found = _CACHE.setdefault(train, {})
    for name in modalities:
        if name not in found:
            found[name] = principal_directions(train, name, statistics.modalities[name], MOST_COMPONENTS)
    return statistics._replace(principal=found)


def principal_directions(train: TrainSplit, name: str, moments: Moments, most: int) -> NDArray[np.float32]:
    """(P, D), P = min(most, D): orthogonal directions of standardised features, scaled so that the training frames'
    projections have deviation 1; signs such that the largest weight is positive. Zero where samples do not differ."""
    from scipy.linalg import eigh  # a third of a second for every worker, and few models ask for directions

    features = len(moments.mean)
    between_DD = np.zeros((features, features))
    for count_R, mean_RD in _sample_means(train, name, moments):
        weighted_RD = mean_RD * np.sqrt(count_R)[:, None]
        between_DD += weighted_RD.T @ weighted_RD
    found = min(most, features)
    value_P, vector_DP = eigh(between_DD, subset_by_index=[features - found, features - 1])
    alive_P = value_P > 1e-9 * max(value_P.max(initial=0.0), 1e-300)
    rows_PD = (vector_DP * alive_P).T[::-1]
    rows_PD *= np.sign(rows_PD[np.arange(found), np.abs(rows_PD).argmax(1)] + 1e-300)[:, None]
    scaled_PD: Real = rows_PD / _deviation(train, name, moments, rows_PD)[:, None]
    return scaled_PD.astype(np.float32)


def _sample_means(train: TrainSplit, name: str, moments: Moments) -> Iterator[tuple[Real, Real]]:
    """Block by block: frames of each sample in it, (R,), and their mean, standardised, (R, D).

    A sample that lies across two blocks comes as two.
    """
    for row_F, frames_FD in train.frames_with_rows(name):
        first_R = np.unique(row_F, return_index=True)[1]
        count_R = np.diff([*first_R, len(row_F)]).astype(np.float64)
        mean_RD = np.add.reduceat(frames_FD, first_R, axis=0) / count_R[:, None]
        yield count_R, (mean_RD - moments.mean) / moments.deviation


def _deviation(train: TrainSplit, name: str, moments: Moments, rows_PD: Real) -> Real:
    """(P,) of the projections of all training frames; 1 where there is none."""
    squares_P, count = np.zeros(len(rows_PD)), 0
    for frames_FD in train.frames(name):
        squares_P += ((((frames_FD - moments.mean) / moments.deviation) @ rows_PD.T) ** 2).sum(0)
        count += len(frames_FD)
    deviation_P = np.sqrt(squares_P / max(count, 1))
    return np.where(deviation_P > 0.0, deviation_P, 1.0)
