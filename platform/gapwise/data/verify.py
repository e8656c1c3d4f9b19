"""Holding content against its digests again: of a part, and of a whole dataset.

Apart from the reader because it needs no tensor: who copies a dataset, or lets it grow, loads no torch for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gapwise.data.fingerprint import overall_fingerprint, part_digest, sample_digests, split_fingerprint
from gapwise.data.manifest import Manifest
from gapwise.data.parts import Part, open_part
from gapwise.errors import DataError


def verify_dataset(folder: Path, manifest: Manifest) -> None:
    """Read and hash everything. Raises DataError naming the first part, or split, that is not what it was."""
    for name, record in manifest.splits.items():
        parts = [open_part(folder, part, manifest) for part in record.parts]
        verify_split(folder, manifest, name, parts)
    verify_overall(folder, manifest)


def verify_split(folder: Path, manifest: Manifest, name: str, parts: Sequence[Part]) -> list[bytes]:
    """The digest of every sample of the split, in row order. Raises DataError as `verify_dataset`."""
    digests = [digest for part in parts for digest in verified_digests(part)]
    expected = {str(split): record.fingerprint for split, record in manifest.splits.items()}[name]
    if split_fingerprint(parts[0].arrays, digests) != expected:
        raise DataError(f"the content of {name} no longer matches its fingerprint", where=str(folder))
    return digests


def verified_digests(part: Part) -> list[bytes]:
    """The digest of every sample of a part; DataError if they are not those that its own digest was made of."""
    digests = sample_digests(part.arrays)
    if part_digest(digests) != part.digest:
        raise DataError(
            "the content no longer matches its digest: restore the file or import the source again",
            where=str(part.path),
        )
    return digests


def verify_overall(folder: Path, manifest: Manifest) -> None:
    """Raises DataError unless the dataset's fingerprint is that of its splits' fingerprints."""
    prints: Mapping[str, str] = {str(name): record.fingerprint for name, record in manifest.splits.items()}
    if overall_fingerprint(prints) != manifest.fingerprint:
        raise DataError("the overall fingerprint does not follow from the splits'", where=str(folder))
