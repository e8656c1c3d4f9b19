"""Has the world moved? Two tests that a schedule may be triggered by: of the inputs, and of a model's errors.

Samples of one speaker or video resemble each other, and a new speaker is no drift. So the unit is what one group has on
one side (reference or new): the mean over its samples, every group counting once. The tests permute whole groups: those
on one side only are dealt out anew, as many to each side as before; a group on both sides swaps its two units, or does
not. The p-value counts the observed arrangement among the permuted ones (Phipson and Smyth 2010), so it is never 0 and
is right for any number of groups, as long as both sides come from one population of groups.

Inputs have hundreds of features, of which some always look odd. The statistic is the largest of their Welch ratios, and
what it is compared with is the largest under every permutation (Westfall and Young 1993): one false alarm in 1 / alpha
tests whatever the number of features, and however they depend on each other.

What it cannot see: a change in what labels mean that leaves the inputs alone (the test of errors can), and anything at
all with fewer than two units on a side; p is 1 then.

Shape legend: N samples, D features of a modality, J features in all, U units, B arrangements (the first is the observed
one).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import Labels
from gapwise.data.masks import stream
from gapwise.data.store import Dataset, Split
from gapwise.errors import DataError

PERMUTATIONS = 1999
"""The standard error of a p-value of .05 is then .005, and the smallest is 1 in 2000."""
_ARRANGEMENTS_AT_ONCE = 256
_ROUNDING = 1e-9
"""Of values whose variance is 1, a variance of less, and of ratios, a share that rounding may take off."""

Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Numbers of N samples."""

    features: tuple[str, ...]
    """What is measured, J names."""
    values: Real
    """(N, J); NaN where a sample has no such thing."""
    groups: tuple[str, ...]
    """The group of each sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What a test found."""

    p_value: float
    """How often groups dealt out at random differ as much as these; 1 where there is too little to tell."""
    effect: float
    """New minus reference, of the feature that moved most: in standard deviations of the units; of errors, in their own
    unit."""
    feature: str
    """The feature that moved most ("audio[7]"); empty where there is too little to tell."""
    reference_groups: int
    new_groups: int


def input_drift(reference: Measured, new: Measured, *, seed: int, permutations: int = PERMUTATIONS) -> Drift:
    """Whether the new samples differ from the reference in any feature, in either direction.

    Raises DataError if the two do not measure the same.
    """
    return _tested(_units(reference, new), seed, permutations, one_sided=False)


def error_drift(reference: Measured, new: Measured, *, seed: int, permutations: int = PERMUTATIONS) -> Drift:
    """Whether a model's errors (see `errors`) are larger on the new samples than on the reference.

    The reference should be samples that it was neither trained nor selected on: on others its errors are too small.
    Raises DataError if the two do not measure the same.
    """
    units = _units(reference, new)
    found = _tested(units, seed, permutations, one_sided=True)
    return Drift(
        p_value=found.p_value,
        effect=found.effect * float(_scale(units.values)[1][0]),
        feature=found.feature,
        reference_groups=found.reference_groups,
        new_groups=found.new_groups,
    )


def errors(outputs: NDArray[np.float32], labels: Labels, groups: Sequence[str]) -> Measured:
    """Absolute errors of scores (N,), or 1 for every class that is wrong of logits (N, C)."""
    if outputs.ndim == 2:
        error_N, name = (outputs.argmax(1) != labels).astype(np.float64), "wrong class"
    else:
        error_N, name = np.abs(outputs.astype(np.float64) - labels), "absolute error"
    return Measured(features=(name,), values=error_N[:, None], groups=tuple(groups))


def measured(
    dataset: Dataset, steps: Collection[int], splits: Sequence[Literal["train", "valid"]] = ("train",)
) -> Measured:
    """The samples that came with these growth steps (0: the import) into these splits.

    Of each modality: the mean of every feature over a sample's frames ("audio[7]"), whether it is missing
    ("audio missing", 0 or 1) and its number of frames ("audio length"). With `since = manifest.steps_since(F)`, where F
    is the fingerprint of the data that a model was trained on, `since` are the steps of the new samples and
    `range(since.start)` those of the reference. Compare like with like: the same splits on both sides. The test split
    is not looked at.
    """
    opened: list[Split] = [dataset.train if name == "train" else dataset.valid for name in splits]
    chosen = [np.flatnonzero(np.isin(split.steps, list(steps))) for split in opened]
    blocks = [_statistics(split)[rows] for split, rows in zip(opened, chosen, strict=True)]
    features: list[str] = []
    for name, record in dataset.manifest.modalities.items():
        features += [*(f"{name}[{column}]" for column in range(record.dim)), f"{name} missing", f"{name} length"]
    groups = tuple(split.groups[row] for split, rows in zip(opened, chosen, strict=True) for row in rows)
    return Measured(features=tuple(features), values=np.concatenate(blocks), groups=groups)


def _statistics(split: Split) -> Real:
    """(N, J): every modality's means, whether it is missing, and its length."""
    columns = []
    for name in split.manifest.modalities:
        length_N1 = np.where(split.lengths[name] > 0, split.lengths[name], np.nan)[:, None]
        columns += [split.frame_sums(name) / length_N1, np.isnan(length_N1).astype(np.float64), length_N1]
    return np.concatenate(columns, axis=1)


class _Units(NamedTuple):
    """What is permuted."""

    features: tuple[str, ...]
    values: Real
    """(U, J): the mean over the samples of one group on one side; NaN where none has it."""
    group_of: NDArray[np.int64]
    """(U,)"""
    new: NDArray[np.bool_]
    """(U,): whether the unit is on the new side."""

    def side(self, new: bool) -> int:
        return int((self.new == new).sum())


def _units(reference: Measured, new: Measured) -> _Units:
    if reference.features != new.features:
        raise DataError("the reference and the new samples do not measure the same things", where="drift")
    names, group_N = np.unique(np.array([*reference.groups, *new.groups], np.str_), return_inverse=True)
    side_N = np.repeat([0, 1], [len(reference.groups), len(new.groups)])
    unit_U, unit_N = np.unique(group_N + len(names) * side_N, return_inverse=True)
    values_NJ = np.concatenate([reference.values, new.values])
    order = unit_N.argsort(kind="stable")
    starts = np.searchsorted(unit_N[order], np.arange(len(unit_U)))
    if not len(unit_U):
        return _Units(new.features, values_NJ, unit_U, unit_U > 0)
    there_UJ = np.add.reduceat(~np.isnan(values_NJ[order]), starts, axis=0, dtype=np.float64)
    sum_UJ = np.add.reduceat(np.nan_to_num(values_NJ[order]), starts, axis=0)
    mean_UJ = sum_UJ / np.where(there_UJ > 0, there_UJ, np.nan)
    return _Units(new.features, mean_UJ, unit_U % max(len(names), 1), unit_U >= len(names))


def _tested(units: _Units, seed: int, permutations: int, *, one_sided: bool) -> Drift:
    counts = units.side(new=False), units.side(new=True)
    nothing = Drift(p_value=1.0, effect=0.0, feature="", reference_groups=counts[0], new_groups=counts[1])
    if min(counts) < 2:
        return nothing
    mean_J, deviation_J = _scale(units.values)
    arranged_BU = _arrangements(units, permutations, seed)
    ratio_BJ, difference_J = _ratios((units.values - mean_J) / deviation_J, arranged_BU)
    size_BJ = ratio_BJ if one_sided else np.abs(ratio_BJ)
    most_B, most = size_BJ.max(axis=1), int(size_BJ[0].argmax())
    if not ratio_BJ[0].any():
        return nothing
    as_much = most_B >= most_B[0] - _ROUNDING * abs(most_B[0])  # a mirrored arrangement differs by rounding alone
    return Drift(
        p_value=float(as_much.mean()),
        effect=float(difference_J[most]),
        feature=units.features[most],
        reference_groups=counts[0],
        new_groups=counts[1],
    )


def _scale(values_UJ: Real) -> tuple[Real, Real]:
    """(J,) mean and deviation over the units of both sides; a constant feature has deviation 1."""
    there_UJ = ~np.isnan(values_UJ)
    count_J = np.maximum(there_UJ.sum(axis=0), 1)
    mean_J = np.nan_to_num(values_UJ).sum(axis=0) / count_J
    deviation_J = np.sqrt((np.nan_to_num(values_UJ - mean_J) ** 2).sum(axis=0) / count_J)
    return mean_J, np.where(deviation_J > _ROUNDING * np.abs(mean_J), deviation_J, 1.0)


def _arrangements(units: _Units, permutations: int, seed: int) -> NDArray[np.bool_]:
    """(B, U): which units are called new; first as it was observed."""
    key = int(stream(seed=seed, split="", epoch=0, purpose="drift permutations"))
    generator = np.random.Generator(np.random.Philox(key=key))
    both_U = np.bincount(units.group_of)[units.group_of] == 2
    arranged_BU = np.tile(units.new, (permutations + 1, 1))
    alone = np.flatnonzero(~both_U)
    arranged_BU[1:, alone] = generator.permuted(arranged_BU[1:, alone], axis=1)
    swaps_BG = generator.integers(2, size=(permutations, int(units.group_of.max()) + 1)).astype(np.bool_)
    arranged_BU[1:] ^= swaps_BG[:, units.group_of] & both_U
    return arranged_BU


def _ratios(scaled_UJ: Real, arranged_BU: NDArray[np.bool_]) -> tuple[Real, Real]:
    """(B, J) Welch's ratio of new minus reference, 0 where a side has fewer than two values; (J,) the difference."""
    there_UJ, filled_UJ = (~np.isnan(scaled_UJ)).astype(np.float64), np.nan_to_num(scaled_UJ)
    whole_K1J = np.stack([there_UJ, filled_UJ, filled_UJ**2]).sum(axis=1)[:, None]
    blocks, difference_J = [], np.zeros(0)
    for start in range(0, len(arranged_BU), _ARRANGEMENTS_AT_ONCE):
        new_BU = arranged_BU[start : start + _ARRANGEMENTS_AT_ONCE].astype(np.float64)
        new_KBJ = np.stack([new_BU @ there_UJ, new_BU @ filled_UJ, new_BU @ filled_UJ**2])
        (mean_BJ, square_BJ, one), (other_BJ, other_square_BJ, two) = _side(new_KBJ), _side(whole_K1J - new_KBJ)
        ratio_BJ = (mean_BJ - other_BJ) / np.sqrt(square_BJ + other_square_BJ + _ROUNDING)
        blocks.append(np.where(one & two, ratio_BJ, 0.0))
        difference_J = (mean_BJ - other_BJ)[0] if start == 0 else difference_J
    return np.concatenate(blocks), difference_J


def _side(sums_KBJ: Real) -> tuple[Real, Real, NDArray[np.bool_]]:
    """(B, J) each: the mean, its squared standard error, and whether there are two values to take it from."""
    count_BJ = np.maximum(sums_KBJ[0], 1)
    mean_BJ = sums_KBJ[1] / count_BJ
    variance_BJ = np.maximum(sums_KBJ[2] - count_BJ * mean_BJ**2, 0) / np.maximum(count_BJ - 1, 1)
    return mean_BJ, variance_BJ / count_BJ, sums_KBJ[0] > 1.5
