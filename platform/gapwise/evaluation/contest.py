"""Is one model better than another on the same items and masks? An effect, its interval and p.

The standard error is that of the paired difference over resampled groups and mask seeds (`paired`), and the reference
is Student's t with one degree of freedom less than there are groups: percentiles of 31 groups' resamples call too many
null differences real (`tests/benchmarks/gate.py`).

Shape legend: K conditions, V mask seeds, N items, B resamples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from gapwise.data.arrays import Labels
from gapwise.data.shape import DataShape
from gapwise.evaluation.metrics import LOWER_IS_BETTER, Real
from gapwise.evaluation.paired import Resamples, resampled

_DEFINED = 0.95
"""A metric that fewer resamples can be computed on says nothing."""


class Figures(NamedTuple):
    """One metric of one model."""

    point: Real
    """(K,) on the items as they are."""
    resampled: Real
    """(K, B)."""


class Difference(NamedTuple):
    """How much better the first is than the second, in the metric's units; positive is better for every metric."""

    effect: float
    error: float
    """Standard error; NaN where nothing can be said."""
    freedom: int
    """Degrees of freedom."""

    def p_above(self, margin: float) -> float:
        """One-sided p of "better by no more than `margin`"; 1 where nothing can be said."""
        if not self.error > 0.0:
            return 1.0
        return float(stdtr(self.freedom, (margin - self.effect) / self.error))

    @property
    def p_differs(self) -> float:
        """Two-sided p of "no difference"; below `alpha` exactly where `interval(alpha / 2)` leaves out 0."""
        if not self.error > 0.0:
            return 1.0
        return min(1.0, 2.0 * float(stdtr(self.freedom, -abs(self.effect) / self.error)))

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """`alpha` lies on each side: its lower end is above a margin exactly where `p_above` is below `alpha`."""
        if not self.error > 0.0:
            return None
        reach = -float(stdtrit(self.freedom, alpha)) * self.error
        return self.effect - reach, self.effect + reach


def figures(
    metric: str, outputs: NDArray[np.float32], labels: Labels, shape: DataShape, resamples: Resamples
) -> Figures:
    """`outputs` is (K, V, N) scores or (K, V, N, C) logits, `labels` (N,)."""
    everything = Resamples(
        resamples.group_of, np.ones((1, resamples.groups)), np.ones((1, resamples.mask_counts.shape[1]))
    )
    return Figures(
        resampled(metric, outputs, labels, shape, everything)[:, 0],
        resampled(metric, outputs, labels, shape, resamples),
    )


def difference(metric: str, first: Figures, second: Figures, condition: int, resamples: Resamples) -> Difference:
    """Of two models whose figures come from the same resamples, at one condition."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    effect = sign * float(first.point[condition] - second.point[condition])
    drawn_B = sign * (first.resampled[condition] - second.resampled[condition])
    defined_B = np.isfinite(drawn_B)
    freedom = resamples.groups - 1
    if freedom < 1 or not np.isfinite(effect) or defined_B.mean() < _DEFINED:
        return Difference(effect, float("nan"), freedom)
    return Difference(effect, float(drawn_B[defined_B].std(ddof=1)), freedom)


def with_mean(found: Figures) -> Figures:
    """One more condition: the mean over all of them, on the items as they are and on every resample."""
    return Figures(
        np.append(found.point, found.point.mean()),
        np.concatenate([found.resampled, found.resampled.mean(0, keepdims=True)]),
    )


class Level(NamedTuple):
    """What Holm's procedure says of one of several p."""

    alpha: float
    """That is left for this one; intervals use it too."""
    passed: bool


def holm(p: Sequence[float], alpha: float) -> list[Level]:
    """In the order of `p`; any wrong pass among all has a probability of at most `alpha`.

    Holm 1979, Scand. J. Statist. 6: the smallest p against alpha / m, the next against alpha / (m - 1), ...
    """
    found: dict[int, Level] = {}
    going, level = True, alpha
    for place, index in enumerate(sorted(range(len(p)), key=lambda one: p[one])):
        if going:
            level = alpha / (len(p) - place)
            going = p[index] <= level
        found[index] = Level(level, going)
    return [found[index] for index in range(len(p))]
