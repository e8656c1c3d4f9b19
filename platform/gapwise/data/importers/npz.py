"""npz: padded arrays by key, the least that a numpy script can save.

Keys are `SPLIT/id`, `SPLIT/label`, optionally `SPLIT/group`, and for each modality `SPLIT/NAME` (samples, steps,
features) with optionally `SPLIT/NAME_lengths` (without: every step counts; 0: the sample has no such modality). Nothing
is unpickled. Every header is read and held against the size of the archive before an array is made, so that neither a
header nor a deflate bomb can claim a terabyte.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import SplitArrays, is_sound_text
from gapwise.data.importers.options import (
    EACH_ITS_OWN,
    Content,
    ImportOptions,
    refuse_missing,
    refuse_unprintable,
)
from gapwise.data.importers.padded import as_block, as_labels, as_lengths, as_texts, pack
from gapwise.errors import DataError

_RESERVED = ("id", "label", "group")
_MAX_INFLATION = 256  # zero padding deflates well; deflate itself stops at about 1030
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, NotImplementedError, RuntimeError)

_Arrays = dict[str, NDArray[Any]]


def read_npz(path: Path, options: ImportOptions) -> Content:
    """The content of an npz file. Raises DataError naming file and key."""
    refuse_missing(path)
    try:
        arrays = _read(path)
    except _BROKEN as error:
        raise DataError(f"not readable as npz: {error}", where=str(path)) from error
    names = options.splits_among({key.split("/")[0] for key in arrays}, path)
    splits = {split: _split(_of_split(arrays, split, path), options, f"{path}/{split}") for split in names}
    return Content(splits=splits, groups="the key group" if f"{names[0]}/group" in arrays else EACH_ITS_OWN)


def _read(path: Path) -> _Arrays:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        declared = sum(member.file_size for member in members)
        if declared > _MAX_INFLATION * path.stat().st_size:
            raise DataError(f"it declares {declared} bytes in a file of {path.stat().st_size}", where=str(path))
        return {member.filename.removesuffix(".npy"): _member(archive, member, path) for member in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    refuse_unprintable(member.filename, path)
    where = f"{path}/{member.filename.removesuffix('.npy')}"
    with archive.open(member) as stream:
        shape, dtype = _header(stream, where)
        declared = math.prod(shape) * dtype.itemsize + stream.tell()
    if dtype.hasobject or dtype.kind not in "biufUS":
        raise DataError(f"numpy type {dtype} is refused", where=where, allowed="bool, int, float, str, bytes")
    if declared != member.file_size:
        raise DataError(f"the header declares {declared} bytes where {member.file_size} are given", where=where)
    with archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    if not is_sound_text(array):
        raise DataError("numbers that are no characters", where=where)
    return array


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"npy version {version}", where=where, allowed="1.0, 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _fortran, dtype = read(stream)
    return shape, dtype


def _of_split(arrays: _Arrays, split: str, path: Path) -> _Arrays:
    mine = {key.removeprefix(f"{split}/"): array for key, array in arrays.items() if key.startswith(f"{split}/")}
    missing = [key for key in ("id", "label") if key not in mine]
    if missing:
        raise DataError(f"key {split}/{missing[0]} is missing", where=str(path), allowed=f"{split}/id, {split}/label")
    return mine


def _split(arrays: _Arrays, options: ImportOptions, where: str) -> SplitArrays:
    ids = as_texts(arrays["id"], f"{where}/id")
    names = _modality_names(arrays, options, where)
    modalities = {}
    for name in names:
        block_NTD = as_block(arrays[name], f"{where}/{name}")
        whole = np.full(len(block_NTD), block_NTD.shape[1])
        lengths_N = as_lengths(arrays.get(f"{name}_lengths", whole), f"{where}/{name}_lengths")
        modalities[name] = pack(block_NTD, lengths_N, f"{where}/{name}")
    return SplitArrays(
        ids=ids,
        groups=as_texts(arrays["group"], f"{where}/group") if "group" in arrays else ids,
        labels=as_labels(arrays["label"], options.task, f"{where}/label"),
        modalities=modalities,
    )


def _modality_names(arrays: _Arrays, options: ImportOptions, where: str) -> list[str]:
    found = [key for key in arrays if key not in _RESERVED and not key.endswith("_lengths")]
    stray = [key for key in options.modalities if key not in found]
    if stray or not found:
        raise DataError(f"no modality {stray[0] if stray else ''!r}", where=where, allowed=found or "SPLIT/NAME")
    return list(options.modalities) or found
