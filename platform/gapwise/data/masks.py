"""Which frames are missing: pure functions of (seed, split, epoch, sample, modality), and of nothing else.

Every position of every sample has one uniform number from a counter-based hash, so a mask is the same for any number of
workers, any batch order and any process, fresh in each training epoch, and nested in the missing rate: what is missing
at .3 is missing at .5. There is no generator object, hence no state that a loader worker could freeze or a reseeding
could repeat (both are faults of this field's public code).

Shape legend: B samples, T steps, M modalities.
"""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Uniform = NDArray[np.float64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Samples(NamedTuple):
    """What a mask may depend on, sample by sample; no sample's mask depends on another sample.

    `keys` is (B,). `lengths[m]` is (B,): frames that the sample really has, 0 where it has no such modality.
    `steps[m]` is T, to which the batch is padded.
    """

    keys: Keys
    lengths: Mapping[str, Counts]
    steps: Mapping[str, int]


def scramble(counter: Keys) -> Keys:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection of 64-bit words that passes BigCrush."""
    with np.errstate(over="ignore"):
        word = counter + _GOLDEN
        word = (word ^ (word >> np.uint64(30))) * _MIX_1
        word = (word ^ (word >> np.uint64(27))) * _MIX_2
        return word ^ (word >> np.uint64(31))


def stream(*, seed: int, split: str, epoch: int, purpose: str) -> np.uint64:
    """The 64-bit name of one family of random numbers. `purpose` is a modality, or what else the numbers decide."""
    text = f"{seed}\x1f{split}\x1f{epoch}\x1f{purpose}".encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def uniforms(name: np.uint64, sample_keys: Keys, count: int) -> Uniform:
    """(B, count) numbers in [0, 1): one row a sample key (B,), independent between streams, samples and positions."""
    row = scramble(sample_keys ^ name)[:, None]
    with np.errstate(over="ignore"):
        words = scramble(scramble(row + np.arange(count, dtype=np.uint64)[None, :] * _GOLDEN) ^ row)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def kept_at(uniform_BT: Uniform, rate: float | Uniform) -> Mask:
    """`frames`: a position is kept iff its number is at least the missing rate (scalar, or (B, 1) by sample)."""
    kept: Mask = uniform_BT >= rate
    return kept


def subsets(modalities: Iterable[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset of the modalities, sorted names, smallest first."""
    names = sorted(modalities)
    return [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


def subset_key(subset: tuple[str, ...]) -> str:
    """How a subset is written in tables and JSON: "audio+text"."""
    return "+".join(sorted(subset))


def available_patterns(uniform_B: Uniform, incomplete_B: Mask, modalities: Iterable[str]) -> dict[str, Mask]:
    """`modalities`: (B,) availability by name. Complete samples keep all; the others a proper subset, uniformly."""
    names = sorted(modalities)
    proper = subsets(names)[:-1] or [tuple(names)]
    chosen_B = np.minimum((uniform_B * len(proper)).astype(np.int64), len(proper) - 1)
    table = {name: np.array([name in subset for subset in proper]) for name in names}
    return {name: table[name][chosen_B] | ~incomplete_B for name in names}


def kept_around_block(place_B2: Uniform, lengths_B: Counts, steps: int, rate: float | Uniform) -> Mask:
    """`block`: (B, T), false in one run of each sample's `lengths_B` real frames; `rate` is a scalar or (B,).

    With u, v the two numbers of a sample of L frames, the run has n = floor(rate * L + u) frames, so that n / L is the
    rate on average and differs from it by less than one frame, and starts at floor(v * (L - n + 1)), uniformly among
    the places where it fits. One frame more moves the start by one at most, and only to the front: runs are nested in
    the rate. Frames near the ends are missing less often than those in the middle, as with any run that must fit.
    """
    size_B = np.minimum(np.floor(rate * lengths_B + place_B2[:, 0]).astype(np.int64), lengths_B)
    room_B = lengths_B - size_B
    start_B = np.minimum(np.floor(place_B2[:, 1] * (room_B + 1)).astype(np.int64), room_B)
    step_T = np.arange(steps)
    kept: Mask = (step_T < start_B[:, None]) | (step_T >= (start_B + size_B)[:, None])
    return kept


def kept_cells(stays_B: Uniform, cells_BM: Uniform, has_BM: Mask, rate: float | Uniform) -> Mask:
    """`random_rate`: (B, M), which modalities remain; `rate` is a scalar or (B,).

    GCNet's construction, cell by cell: one of the A modalities that a sample has stays, uniformly; each of the others
    is missing iff its number is below rate * A / (A - 1), so that the share of missing cells is the rate on average.
    Nested in the rate. A sample that has fewer modalities than the dataset meets its own limit (A - 1) / A earlier and
    keeps its one; what it never had is not counted. The first number decides nothing but who stays.
    """
    has_B = has_BM.sum(1)
    chosen_B = np.minimum((stays_B * has_B).astype(np.int64), has_B - 1)
    stays_BM = has_BM & (np.cumsum(has_BM, axis=1) - 1 == chosen_B[:, None])
    threshold_B = rate * np.where(has_B > 1, has_B / np.maximum(has_B - 1, 1), 0.0)
    kept: Mask = stays_BM | (cells_BM >= threshold_B[:, None])
    return kept


def highest_cell_rate(modalities: int) -> float:
    """The largest share of cells that can be missing while one modality of each sample stays."""
    return (modalities - 1) / modalities
