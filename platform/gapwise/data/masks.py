"""Which frames are missing: pure functions of (seed, split, epoch, sample, modality), and of nothing else.

Every position of every sample has one uniform number from a counter-based hash, so a mask is the same for any number of
workers, any batch order and any process, fresh in each training epoch, and nested in the missing rate: what is missing
at .3 is missing at .5. There is no generator object, hence no state that a loader worker could freeze or a reseeding
could repeat (both are faults of this field's public code).

Shape legend: B samples, T steps, V mask seeds.
"""

import hashlib
from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Uniform = NDArray[np.float64]
Mask = NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


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
