"""One Arrow file of a split: how `SplitArrays` become columns, and how they are mapped back without a copy.

Columns: `id` and `group` (utf8), `label` (float32 or int64), a `large_list<fixed_size_list<float>[D]>` a modality (null
where the sample has none), and where kept `raw:NAME` (large_utf8) and `tokens:NAME` (large_list<int32>). Arrow lays out
values, 64-bit offsets and validity apart, and uncompressed, so a mapped file is three numpy views. One record batch a
file. Opening refuses other column types, and offsets that point outside the values: they would read foreign memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray

from gapwise.data.arrays import ModalityArrays, SplitArrays, TokenArrays, check_split
from gapwise.data.manifest import Manifest, PartRecord
from gapwise.errors import DataError

_TEXTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A mapped part: views into `path`, and the digest that its content must have."""

    path: Path
    arrays: SplitArrays
    digest: str

    def __len__(self) -> int:
        return len(self.arrays)


def write_part(arrays: SplitArrays, path: Path) -> None:
    columns = {
        "id": pa.array(list(arrays.ids), pa.string()),
        "group": pa.array(list(arrays.groups), pa.string()),
        "label": pa.array(arrays.labels),
    }
    for name, modality in sorted(arrays.modalities.items()):
        columns[name] = _ragged_frames(modality)
    for name, texts in sorted(arrays.raw.items()):
        columns[f"raw:{name}"] = pa.array(list(texts), pa.large_string())
    for name, tokens in sorted(arrays.tokens.items()):
        columns[f"tokens:{name}"] = pa.LargeListArray.from_arrays(pa.array(tokens.offsets), pa.array(tokens.ids))
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as stream:
        stream.write_batch(batch)


def _ragged_frames(modality: ModalityArrays) -> Any:
    dim = modality.values.shape[1]
    frames = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(modality.values).reshape(-1)), dim)
    return pa.LargeListArray.from_arrays(pa.array(modality.offsets), frames, mask=pa.array(~modality.present))


def open_part(folder: Path, record: PartRecord, manifest: Manifest) -> Part:
    """Map one part; DataError if it is missing, torn, or not what the manifest says."""
    path = folder / record.file
    try:
        batch = _mapped_batch(path)
        arrays = _arrays(batch, manifest)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a readable part of this dataset: {error}", where=str(path)) from error
    if len(arrays) != record.samples:
        raise DataError(f"{len(arrays)} rows where the manifest says {record.samples}", where=str(path))
    check_split(arrays, str(path))
    return Part(path=path, arrays=arrays, digest=record.digest)


def _mapped_batch(path: Path) -> Any:
    reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
    if reader.num_record_batches != 1:
        raise DataError(f"{reader.num_record_batches} record batches", where=str(path), allowed="1")
    batch = reader.get_batch(0)
    batch.validate(full=True)  # offsets and text only: there is nothing to check, or to read, in floats
    return batch


def _arrays(batch: Any, manifest: Manifest) -> SplitArrays:
    modalities = manifest.modalities
    label = pa.float32() if manifest.task == "regression" else pa.int64()
    return SplitArrays(
        ids=_texts(_column(batch, "id", pa.string())),
        groups=_texts(_column(batch, "group", pa.string())),
        labels=_column(batch, "label", label).to_numpy(),
        modalities={
            name: _modality(_column(batch, name, _frames_type(record.dtype, record.dim)), record.dim)
            for name, record in modalities.items()
        },
        raw={
            name: MappedTexts(_column(batch, f"raw:{name}", pa.large_string()))
            for name, record in modalities.items()
            if record.raw
        },
        tokens={
            name: _tokens(_column(batch, f"tokens:{name}", pa.large_list(pa.int32())))
            for name, record in modalities.items()
            if record.tokens
        },
    )


def _column(batch: Any, name: str, expected: Any) -> Any:
    column = batch.column(name)
    if column.type != expected:
        raise TypeError(f"column {name} is {column.type}, not {expected}")
    return column


def _frames_type(dtype: str, dim: int) -> Any:
    return pa.large_list(pa.list_(pa.float16() if dtype == "float16" else pa.float32(), dim))


def _texts(column: Any) -> list[str]:
    return list(MappedTexts(column))


class MappedTexts(Sequence[str]):
    """Texts of a mapped column, made when they are asked for: every process of a node keeps the one copy on disk."""

    def __init__(self, column: Any) -> None:
        if column.null_count:
            raise TypeError("a null among the texts")
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        chosen = self._column[place]
        return list(chosen.to_pylist()) if isinstance(place, slice) else str(chosen.as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _TEXTS_AT_ONCE):
            yield from self._column[start : start + _TEXTS_AT_ONCE].to_pylist()


def _modality(column: Any, dim: int) -> ModalityArrays:
    return ModalityArrays(
        values=column.values.values.to_numpy().reshape(-1, dim),
        offsets=column.offsets.to_numpy(),
        present=column.is_valid().to_numpy(zero_copy_only=False),
    )


def _tokens(column: Any) -> TokenArrays:
    ids: NDArray[np.int32] = column.values.to_numpy()
    return TokenArrays(ids=ids, offsets=column.offsets.to_numpy())
