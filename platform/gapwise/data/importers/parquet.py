"""Parquet: a table with one row a sample, for teams whose features come out of a pipeline of their own.

Columns: `id`, `split` (train, valid or test), `label`, optionally `group`, and one column a modality: `list<float>` (a
single frame) or `list<list<float>>` (frames). Null says that the sample has no such modality. Every list column is a
modality unless the caller names which; a column of another type is refused rather than dropped in silence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped,unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray

from gapwise.data.arrays import ModalityArrays, SplitArrays
from gapwise.data.importers.options import (
    EACH_ITS_OWN,
    Content,
    ImportOptions,
    refuse_missing,
    refuse_unprintable,
)
from gapwise.data.importers.padded import as_labels, as_texts, stored_floats
from gapwise.data.manifest import SPLIT_NAMES
from gapwise.errors import DataError, nearest

_REQUIRED = ("id", "split", "label")
_RESERVED = (*_REQUIRED, "group")


def read_parquet(path: Path, options: ImportOptions) -> Content:
    """The content of a Parquet file, or of a folder of them. Raises DataError naming file and column."""
    refuse_missing(path)
    try:
        table = pq.read_table(path, partitioning=None)
        table.validate(full=True)  # text that is no UTF-8 would fail later, without the path
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"not readable as Parquet: {error}", where=str(path)) from error
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        raise DataError(f"column {missing[0]} is missing", where=str(path), allowed=_REQUIRED)
    names = _modality_names(table, options, path)
    split_of_row = np.array(as_texts(table["split"].to_pylist(), f"{path}/split"))
    _refuse_other_splits(split_of_row, path)
    dims = {name: _width(_one_array(table[name]), f"{path}/{name}") for name in names}
    wanted = options.splits_among(set(split_of_row.tolist()), path)
    splits = {name: _split(table.filter(pa.array(split_of_row == name)), dims, options, path) for name in wanted}
    return Content(splits=splits, groups="the column group" if "group" in table.column_names else EACH_ITS_OWN)


def _modality_names(table: Any, options: ImportOptions, path: Path) -> list[str]:
    others = [name for name in table.column_names if name not in _RESERVED]
    for name in others:
        refuse_unprintable(name, path)
    names = list(options.modalities) or others
    for name in names:
        if name not in others:
            raise DataError(f"no modality column {name!r}{nearest(name, others)}", where=str(path), allowed=others)
        if not _is_list(table.schema.field(name).type):
            kind = table.schema.field(name).type
            raise DataError(
                f"{kind} is no modality; drop the column, or name the modalities to read",
                where=f"{path}/{name}",
                allowed="list<float>, list<list<float>>",
            )
    return names


def _refuse_other_splits(split_of_row: NDArray[np.str_], path: Path) -> None:
    other = sorted(set(split_of_row.tolist()) - set(SPLIT_NAMES))
    if other:
        raise DataError(
            f"unknown split {other[0]!r}{nearest(other[0], SPLIT_NAMES)}", where=f"{path}/split", allowed=SPLIT_NAMES
        )


def _split(table: Any, dims: Mapping[str, int], options: ImportOptions, path: Path) -> SplitArrays:
    ids = as_texts(table["id"].to_pylist(), f"{path}/id")
    groups = as_texts(table["group"].to_pylist(), f"{path}/group") if "group" in table.column_names else ids
    return SplitArrays(
        ids=ids,
        groups=groups,
        labels=as_labels(table["label"].to_pylist(), options.task, f"{path}/label"),
        modalities={name: _modality(_one_array(table[name]), dim) for name, dim in dims.items()},
    )


def _one_array(column: Any) -> Any:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _modality(column: Any, dim: int) -> ModalityArrays:
    present: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    lengths = present.astype(np.int64)
    if _is_list(column.type.value_type):
        lengths[present] = pc.list_value_length(column.drop_null()).to_numpy(zero_copy_only=False)
    # A null inside a frame becomes NaN here, and is repaired and counted with the others.
    flat = _frames(column).flatten().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return ModalityArrays(values=stored_floats(flat.reshape(-1, dim)), offsets=offsets, present=present)


def _frames(column: Any) -> Any:
    """The frames of all samples as one list array."""
    samples = column.drop_null()
    return samples.flatten() if _is_list(column.type.value_type) else samples


def _width(column: Any, where: str) -> int:
    """Features a frame, over all splits; DataError if frames differ, or are no lists of floats."""
    frames = _frames(column)
    if frames.null_count:
        raise DataError("a null among the frames of a sample", where=where)
    if not pa.types.is_floating(frames.type.value_type):
        raise DataError(f"features are {frames.type.value_type}", where=where, allowed="halffloat, float, double")
    widths = sorted(pc.unique(pc.list_value_length(frames)).to_pylist())
    if len(widths) != 1 or widths == [0]:
        raise DataError(f"frames of {widths} features", where=where, allowed="one width of at least 1")
    return int(widths[0])


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
