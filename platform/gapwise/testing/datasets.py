"""Small datasets for tests: the synthetic `small` content, cut, turned into classes or broken in a named way.

Each function takes splits in memory and returns changed ones, so that a test says in one line what is odd about its
data. Nothing here is for figures.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import Labels, ModalityArrays, SplitArrays
from gapwise.data.drawing import generate
from gapwise.data.manifest import SourceRecord
from gapwise.data.presets import SMALL
from gapwise.data.shape import Task
from gapwise.data.store import Dataset, open_dataset
from gapwise.data.writer import WriteOptions, write_dataset

Splits = dict[str, SplitArrays]


def small_splits(sizes: Mapping[str, int] | None = None, *, seed: int = 0) -> Splits:
    """The synthetic `small` splits, the first `sizes[split]` samples of each."""
    whole = generate(SMALL, seed)
    return {name: split.rows(0, (sizes or SMALL.sizes)[name]) for name, split in whole.items()}


def in_classes(splits: Splits) -> Splits:
    """Three classes by the sign of the label: 0 below, 1 at, 2 above zero."""
    return {name: replace(split, labels=(np.sign(split.labels) + 1).astype(np.int64)) for name, split in splits.items()}


def labelled(split: SplitArrays, label: float) -> SplitArrays:
    """The same label for every sample."""
    labels: Labels = np.full_like(split.labels, label)
    return replace(split, labels=labels)


def without(split: SplitArrays, modality: str, rows: NDArray[np.int64] | None = None) -> SplitArrays:
    """`modality` is absent from `rows`, or from every sample."""
    gone = np.zeros(len(split), np.bool_)
    gone[slice(None) if rows is None else rows] = True
    lengths = np.diff(split.modalities[modality].offsets)
    return resized(split, modality, np.where(gone, 0, lengths))


def resized(split: SplitArrays, modality: str, lengths: NDArray[np.int64]) -> SplitArrays:
    """Samples of `modality` cut to `lengths` frames (N,), or made longer by repeating their frames; 0 is absent."""
    arrays = split.modalities[modality]
    starts, present = arrays.offsets[:-1], np.diff(arrays.offsets)
    chosen = [
        start + np.arange(length) % max(own, 1) for start, own, length in zip(starts, present, lengths, strict=True)
    ]
    made = ModalityArrays(
        values=arrays.values[np.concatenate([np.zeros(0, np.int64), *chosen]).astype(np.int64)],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        present=np.asarray(lengths > 0),
    )
    return replace(split, modalities={**split.modalities, modality: made})


def write(splits: Splits, out: Path, *, task: Task = "regression") -> Dataset:
    """The splits as a dataset on disk."""
    source = SourceRecord(file="test", digest="0" * 64)
    write_dataset(splits, out, WriteOptions(name=out.name, task=task, source=source, groups="synthetic speaker"))
    return open_dataset(out)
