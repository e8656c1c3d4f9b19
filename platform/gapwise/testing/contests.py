"""Simulated contests: what two models answered on a test split shaped like CMU-MOSI's, whose videos have effects.

686 items in 31 groups of MOSI's own sizes, which are facts of that dataset. The labels are 0, so that an answer is its
own absolute error, and the difference between the models has the expectation that is asked for.

Shape legend: K conditions, V mask seeds, N items.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.shape import DataShape
from gapwise.promotion.gate import Answers

CHAMPION, CHALLENGER = "champion", "challenger"
MAE = 1.08
"""Of the champion: about what models reach on CMU-MOSI with 45 % missing."""
_SIZES = [10, 12, 14, 14, 15, 15, 16, 16, 16, 16, 18, 18, 19, 19, 20, 21, 22, 22, 23, 24, 24, 24, 27, 29]
_SIZES += [30, 30, 30, 31, 33, 35, 43]
_GROUP_OF = np.repeat(np.arange(len(_SIZES)), _SIZES)
_DIFFERENCE, _MASKS = 0.5, 0.2
"""Standard deviations of the difference between two models' errors, of an item and of an item under one mask."""


class Truth(NamedTuple):
    """What is true of the difference."""

    improvement: float = 0.0
    """Of the challenger, as a share of the champion's MAE."""
    correlation: float = 0.0
    """Intra-group correlation: which share of the difference's variance between items is their group's."""


def contest(
    truth: Truth,
    draw: np.random.Generator,
    *,
    rates: int = 1,
    mask_seeds: int = 20,
    champion: np.random.Generator | None = None,
) -> Answers:
    """Both models' answers; the difference of an item is the same at every rate but for its masks.

    Contests whose `champion` begins alike have the same champion on the same test split, against other challengers.
    """
    items, serving = len(_GROUP_OF), champion or draw
    spread = draw.normal(size=len(_SIZES))[_GROUP_OF] * np.sqrt(truth.correlation)
    spread = spread + draw.normal(size=items) * np.sqrt(1.0 - truth.correlation)
    errors = serving.gamma(2.0, MAE / 2.0, size=items)
    its_noise = serving.normal(size=(rates, mask_seeds, items)) * _MASKS
    noise = draw.normal(size=(rates, mask_seeds, items)) * _MASKS
    better = errors - truth.improvement * MAE - _DIFFERENCE * spread
    shift = 100.0  # an absolute error has no sign; far from 0 its expectation is what was asked for
    return Answers(
        metric="mae",
        conditions=[f"{index / 10:.1f}" for index in range(rates)],
        models={CHAMPION: _answered(errors + shift, its_noise), CHALLENGER: _answered(better + shift, noise)},
        labels=np.zeros(items, np.float32),
        groups=[f"video {index}" for index in _GROUP_OF],
        shape=DataShape(task="regression", modalities={}, label_range=(-3.0, 3.0)),
    )


def _answered(errors: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float32]:
    answered: NDArray[np.float32] = (errors + noise).astype(np.float32)
    return answered
