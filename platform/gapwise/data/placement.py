"""Which split a new sample joins: decided by its group alone, so that no speaker is ever in two splits.

A group that the dataset knows keeps its split. An unknown one is placed by a hash of its name against fixed weights:
the same group lands in the same split whichever part brings it, in whatever order parts arrive, on any machine. So the
weights must not follow the dataset as it grows; they are the numbers of groups that the import put into each split,
unless the first append says otherwise, and are recorded with every step.

Old data may have a group in several splits. Its new samples join the first of train, validation and test that has it:
a model already learns from that group if train does, and a new sample of it in test would only flatter.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from gapwise.data.manifest import SPLIT_NAMES, Manifest
from gapwise.errors import DataError

Shares = Mapping[str, int]
"""Weights of train, valid and test: whole numbers, so that no rounding can move a group."""


def homes(groups: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The split of every known group, from the groups of each split."""
    return {group: split for split in reversed(SPLIT_NAMES) for group in groups[split]}


def placed(groups: Sequence[str], known: Mapping[str, str], shares: Shares) -> list[str]:
    """The split of each sample, from the group of each sample."""
    chosen = {group: known[group] if group in known else hashed(group, shares) for group in set(groups)}
    return [chosen[group] for group in groups]


def hashed(group: str, shares: Shares) -> str:
    """The split of an unknown group: each with the probability of its weight, over all possible names."""
    word = int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8, person=b"gapwise split").digest(), "little")
    slot = word * sum(shares.values()) >> 64
    ends = np.cumsum([shares[name] for name in SPLIT_NAMES])
    return SPLIT_NAMES[int(np.searchsorted(ends, slot, side="right"))]


def settled_shares(manifest: Manifest, asked: Sequence[int] | None) -> dict[str, int]:
    """The weights of this dataset: those of its earlier growth, else those asked for, else its numbers of groups.

    Raises DataError for weights that cannot be, or that are not those of the earlier growth.
    """
    wanted = None if asked is None else _reduced(asked)
    if manifest.growth:
        fixed = {str(name): weight for name, weight in manifest.growth[0].shares.items()}
        if wanted not in (None, fixed):
            allowed = " ".join(str(fixed[name]) for name in SPLIT_NAMES)
            raise DataError("the shares of unknown groups were fixed by the first append", allowed=allowed)
        return fixed
    return wanted or _reduced([manifest.splits[name].groups for name in ("train", "valid", "test")])


def _reduced(weights: Sequence[int]) -> dict[str, int]:
    divisor = math.gcd(*weights)
    if divisor == 0 or min(weights) < 0:
        shown = " ".join(str(weight) for weight in weights)
        raise DataError(f"shares {shown}", allowed="three whole numbers from 0, not all 0: train, valid, test")
    return dict(zip(SPLIT_NAMES, (weight // divisor for weight in weights), strict=True))
