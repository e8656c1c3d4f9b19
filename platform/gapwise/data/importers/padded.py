"""From padded blocks to ragged frames: what MMSA pickles and npz files have in common.

Both hold a modality as (samples, steps, features) with a length for each sample. A length of 0 says that the sample has
no such modality; a length beyond the block, a count that differs from the ids, integer features and labels that are no
numbers are refused, never guessed around.

Shape legend: N samples, T steps of the block, D features.
"""

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import Floats, Labels, ModalityArrays
from gapwise.data.shape import Task
from gapwise.errors import DataError


def pack(block: object, lengths_N: NDArray[np.int64], where: str) -> ModalityArrays:
    """Keep the first `lengths_N[i]` frames of each sample of `block`, (N, T, D) floats."""
    block_NTD = as_block(block, where)
    samples, steps, _ = block_NTD.shape
    if len(lengths_N) != samples:
        raise DataError(f"{len(lengths_N)} lengths for {samples} samples", where=where)
    wrong = np.flatnonzero((lengths_N < 0) | (lengths_N > steps))
    if len(wrong):
        raise DataError(f"length {lengths_N[wrong[0]]} of row {wrong[0]} for {steps} steps", where=where)
    values = block_NTD[np.arange(steps) < lengths_N[:, None]]
    offsets = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int64)
    return ModalityArrays(values=values, offsets=offsets, present=lengths_N > 0)


def as_block(block: object, where: str) -> Floats:
    """(N, T, D) float16 or float32; float64 becomes float32, (N, D) becomes one step."""
    if not isinstance(block, np.ndarray) or block.dtype.kind != "f" or block.ndim not in (2, 3):
        found = f"{block.dtype} {block.shape}" if isinstance(block, np.ndarray) else type(block).__name__
        raise DataError(f"features are {found}", where=where, allowed="a float array (samples, steps, features)")
    return stored_floats(block if block.ndim == 3 else block[:, None, :])


def stored_floats(values: NDArray[np.floating]) -> Floats:
    """float16 stays, every other float becomes float32, in this machine's byte order."""
    if values.dtype.itemsize == 2:
        return values.astype(np.float16, copy=False)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, is counted and repaired
        return values.astype(np.float32, copy=False)


def as_lengths(lengths: object, where: str) -> NDArray[np.int64]:
    array = _numbers(lengths, where)
    if not _are_whole(array):
        raise DataError("lengths are not whole numbers", where=where)
    return array.astype(np.int64)


def as_labels(labels: object, task: Task, where: str) -> Labels:
    """(N,) float32 scores or int64 classes; refuses missing, non-finite and fractional-class labels."""
    array = _numbers(labels, where)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise DataError(f"label of row {bad[0]} is {array[bad[0]]}; labels are never repaired", where=where)
    if task == "regression":
        return stored_floats(array).astype(np.float32)
    if not _are_whole(array):
        raise DataError("class labels are not whole numbers", where=where)
    return array.astype(np.int64)


def as_texts(values: object, where: str) -> list[str]:
    """Names or transcripts: a list or array of str; whole numbers are written out."""
    items = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | int) for item in items):
        raise DataError(f"{type(values).__name__} where a list of text was expected", where=where)
    return [str(item) for item in items]


def _are_whole(array: NDArray[np.float64]) -> bool:
    return bool(np.all((np.abs(array) < 2**31) & (array == np.floor(array))))


def _numbers(values: object, where: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"not numbers: {error}", where=where) from error
    if array.ndim == 0 or array.size != len(array):
        raise DataError(f"one number a sample was expected, found shape {array.shape}", where=where)
    return array.reshape(-1)
