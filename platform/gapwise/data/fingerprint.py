"""What a dataset *is*: digests of its content, never of its files, names or places.

Every sample has a SHA-256 over its canonical bytes. A part's digest, a split's fingerprint and the dataset's are hashes
over those, so the same samples in the same order are the same dataset whatever file they came from, whatever it is
called and however it is cut into parts; one changed value anywhere is another dataset. Each field is preceded by its
length, so that no two contents share their bytes ("ab"+"c" and "a"+"bc").
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gapwise.data.arrays import SplitArrays

_ABSENT = (2**64 - 1).to_bytes(8, "little")
_CHUNK_BYTES = 1 << 20


def sample_digests(arrays: SplitArrays) -> list[bytes]:
    """The SHA-256 of each sample, 32 bytes each, in row order."""
    labels = np.ascontiguousarray(arrays.labels, dtype=arrays.labels.dtype.newbyteorder("<"))
    return [_sample_digest(arrays, row, labels[row].tobytes()) for row in range(len(arrays))]


def content_keys(arrays: SplitArrays) -> list[int]:
    """A 64-bit hash of each sample's modalities alone, whatever it is called and labelled; 0 where it has none."""
    return [_content_key(arrays, row) for row in range(len(arrays))]


def _content_key(arrays: SplitArrays, row: int) -> int:
    if not any(modality.present[row] for modality in arrays.modalities.values()):
        return 0
    running = hashlib.blake2b(digest_size=8)
    _update_with_content(running, arrays, row)
    return int.from_bytes(running.digest(), "little")


def part_digest(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def split_fingerprint(arrays: SplitArrays, digests: Iterable[bytes]) -> str:
    """Hash of the form (names, types and features of the modalities) and of every sample. `arrays` may be any rows."""
    form = {
        "label": arrays.labels.dtype.name,
        "modalities": {
            name: [modality.values.dtype.name, modality.values.shape[1]] for name, modality in arrays.modalities.items()
        },
        "raw": sorted(arrays.raw),
        "tokens": sorted(arrays.tokens),
    }
    header = json.dumps(form, sort_keys=True).encode()
    return hashlib.sha256(b"".join([_framed(header), *digests])).hexdigest()


def overall_fingerprint(split_fingerprints: Mapping[str, str]) -> str:
    lines = [f"{name}:{split_fingerprints[name]}\n" for name in sorted(split_fingerprints)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, over the names and digests of the files directly in it."""
    if path.is_dir():
        lines = [f"{entry.name}:{file_digest(entry)}\n" for entry in sorted(path.iterdir()) if entry.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    running = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            running.update(chunk)
    return running.hexdigest()


def _sample_digest(arrays: SplitArrays, row: int, label: bytes) -> bytes:
    running = hashlib.sha256()
    running.update(_framed(arrays.ids[row].encode()))
    running.update(_framed(arrays.groups[row].encode()))
    running.update(_framed(label))
    _update_with_content(running, arrays, row)
    return running.digest()


def _update_with_content(running: Any, arrays: SplitArrays, row: int) -> None:
    for name in sorted(arrays.modalities):
        modality = arrays.modalities[name]
        if not modality.present[row]:
            running.update(_ABSENT)
            continue
        values = modality.values[modality.offsets[row] : modality.offsets[row + 1]]
        running.update(len(values).to_bytes(8, "little"))
        running.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)
    for name in sorted(arrays.raw):
        running.update(_framed(arrays.raw[name][row].encode()))
    for name in sorted(arrays.tokens):
        tokens = arrays.tokens[name]
        running.update(_framed(tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].astype("<i4").tobytes()))


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(8, "little") + content
