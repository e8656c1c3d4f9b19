"""The writer: splits in memory become a dataset folder, whole or not at all.

All importers and the synthetic task end here, so that one place validates, repairs, fingerprints and writes. The folder
is built beside its destination and renamed at the end. It refuses splits that leak into each other, labels that are not
finite, and a destination that already holds something else; the same content written twice is a success that does
nothing. Non-finite values become zero, as the field does, and are counted by column; `strict` refuses them instead.
"""

import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gapwise.data.arrays import Floats, ModalityArrays, SplitArrays, check_split, check_together, shared_groups
from gapwise.data.fingerprint import overall_fingerprint, part_digest, sample_digests, split_fingerprint
from gapwise.data.manifest import (
    MANIFEST_FILE,
    SPLIT_NAMES,
    Manifest,
    ModalityRecord,
    PartRecord,
    SourceRecord,
    SplitRecord,
    read_manifest,
    write_manifest,
)
from gapwise.data.parts import write_part
from gapwise.data.shape import Task
from gapwise.errors import DataError

_FRAMES_AT_ONCE = 1 << 14
_STANDARD_RANGES = ((-1.0, 1.0), (-3.0, 3.0))

Splits = Mapping[str, SplitArrays]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What the content itself does not say."""

    name: str
    task: Task
    source: SourceRecord
    groups: str
    """What a group is, in words."""
    label_range: tuple[float, float] | None = None
    """None: the smallest of [-1, 1] and [-3, 3] that holds every label, otherwise their minimum and maximum."""
    strict: bool = False
    """Refuse non-finite values instead of repairing them."""
    rows_per_part: int = 4096
    """Rows of one Arrow file; no part of the identity."""
    origin: str = ""
    """What errors about the content begin with: the file that was imported."""
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """Further files for the folder, by name; no part of the identity."""


def write_dataset(splits: Splits, out: Path, options: WriteOptions) -> Manifest:
    """Write `splits` (train, valid and test) to the folder `out` and return its manifest.

    Raises DataError if a split is missing, empty or contradicts itself or another, if a value is not finite under
    `strict`, or if `out` holds anything but this very content.
    """
    _check(splits, options)
    repaired_splits, repaired = repair(splits, strict=options.strict, origin=options.origin)
    digests = {name: sample_digests(arrays) for name, arrays in repaired_splits.items()}
    manifest = _manifest(repaired_splits, digests, repaired, options)
    if _already_there(out, manifest):
        return read_manifest(out)
    _write_atomically(repaired_splits, manifest, out, options)
    return manifest


def _check(splits: Splits, options: WriteOptions) -> None:
    if set(splits) != set(SPLIT_NAMES):
        found = ", ".join(splits) or "none"
        raise DataError(f"the splits are {found}", where=options.origin, allowed=f"exactly {', '.join(SPLIT_NAMES)}")
    if options.rows_per_part < 1:
        raise DataError(f"rows_per_part is {options.rows_per_part}", allowed="1 or more")
    expected = np.float32 if options.task == "regression" else np.int64
    for name, arrays in splits.items():
        where = f"{options.origin}/{name}" if options.origin else name
        check_split(arrays, where)
        if arrays.labels.dtype != expected:
            raise DataError(f"{options.task} with labels of type {arrays.labels.dtype}", where=f"{where}/label")
    check_together(splits, options.origin)


def repair(splits: Splits, *, strict: bool, origin: str) -> tuple[dict[str, SplitArrays], dict[str, int]]:
    """The splits with zero for every value that is not finite, and how many those were by column.

    Raises DataError, naming `origin`, if there are any under `strict`.
    """
    counts: Counter[str] = Counter()
    repaired = {}
    for split, arrays in splits.items():
        modalities = {}
        for name, modality in arrays.modalities.items():
            modalities[name], columns = _repair_modality(modality)
            counts.update({f"{name}[{column}]": count for column, count in columns.items()})
        repaired[split] = replace(arrays, modalities=modalities)
    if strict and counts:
        column, count = counts.most_common(1)[0]
        total = sum(counts.values())
        raise DataError(f"{total} values are not finite, most in {column} ({count}); strict refuses them", where=origin)
    return repaired, dict(sorted(counts.items()))


def _repair_modality(modality: ModalityArrays) -> tuple[ModalityArrays, dict[int, int]]:
    if _all_finite(modality.values):
        return modality, {}
    finite_FD = np.isfinite(modality.values)
    bad_D = (~finite_FD).sum(axis=0)
    zero = modality.values.dtype.type(0)
    values = np.where(finite_FD, modality.values, zero)
    return replace(modality, values=values), {int(column): int(bad_D[column]) for column in np.flatnonzero(bad_D)}


def _all_finite(values: Floats) -> bool:
    """In blocks: values may be mapped from a file that memory does not hold."""
    blocks = range(0, len(values), _FRAMES_AT_ONCE)
    return all(bool(np.isfinite(values[start : start + _FRAMES_AT_ONCE]).all()) for start in blocks)


def _manifest(
    splits: Splits, digests: Mapping[str, list[bytes]], repaired: dict[str, int], options: WriteOptions
) -> Manifest:
    records = {name: _split_record(name, splits[name], digests[name], options.rows_per_part) for name in SPLIT_NAMES}
    classes = _classes(splits) if options.task == "classification" else 0
    return Manifest.model_validate(
        {
            "name": options.name,
            "task": options.task,
            "label_range": (0.0, classes - 1.0) if classes else _label_range(splits, options.label_range),
            "classes": classes,
            "modalities": _modality_records(splits),
            "groups": options.groups,
            "groups_shared_between_splits": shared_groups(splits),
            "splits": records,
            "fingerprint": overall_fingerprint({name: record.fingerprint for name, record in records.items()}),
            "source": options.source,
            "repaired": repaired,
        }
    )


def _split_record(name: str, arrays: SplitArrays, digests: list[bytes], rows_per_part: int) -> SplitRecord:
    return SplitRecord(
        samples=len(arrays),
        groups=len(set(arrays.groups)),
        parts=tuple(part_records(name, digests, rows_per_part)),
        fingerprint=split_fingerprint(arrays, digests),
    )


def part_records(
    split: str, digests: Sequence[bytes], rows_per_part: int, *, first: int = 0, step: int = 0
) -> list[PartRecord]:
    """How rows of these digests are cut into files, numbered from `first`; `step` is the append that brings them."""
    parts: list[PartRecord] = []
    for start in range(0, len(digests), rows_per_part):
        mine = digests[start : start + rows_per_part]
        file = f"{split}-{first + len(parts):05d}.arrow"
        parts.append(PartRecord(file=file, samples=len(mine), digest=part_digest(mine), step=step))
    return parts


def _modality_records(splits: Splits) -> dict[str, ModalityRecord]:
    records = {}
    for name, modality in sorted(splits["train"].modalities.items()):
        longest = longest_of(name, splits.values())
        if longest == 0:
            raise DataError(f"modality {name!r} is absent from every sample")
        dtype: Literal["float16", "float32"] = "float16" if modality.values.dtype == np.float16 else "float32"
        records[name] = ModalityRecord(
            dim=modality.values.shape[1],
            max_length=longest,
            dtype=dtype,
            raw=name in splits["train"].raw,
            tokens=name in splits["train"].tokens,
        )
    return records


def longest_of(modality: str, pieces: Iterable[SplitArrays]) -> int:
    """The most frames of any sample of any piece; 0 if none has the modality."""
    return max(int(np.diff(piece.modalities[modality].offsets).max()) for piece in pieces)


def _label_range(splits: Splits, asked: tuple[float, float] | None) -> tuple[float, float]:
    low = min(float(arrays.labels.min()) for arrays in splits.values())
    high = max(float(arrays.labels.max()) for arrays in splits.values())
    if asked is not None and not asked[0] <= low <= high <= asked[1]:
        raise DataError(f"labels {low:g}..{high:g} leave the label range {asked[0]:g}..{asked[1]:g}")
    ranges = _STANDARD_RANGES if asked is None else (asked,)
    return next(((a, b) for a, b in ranges if a <= low and high <= b), (low, high))


def _classes(splits: Splits) -> int:
    return 1 + max(int(arrays.labels.max()) for arrays in splits.values())


def _already_there(out: Path, manifest: Manifest) -> bool:
    """Whether `out` holds this very content; DataError if it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MANIFEST_FILE).is_file():
        raise DataError("exists and is no dataset; choose another folder or empty this one", where=str(out))
    there = read_manifest(out)
    if there.fingerprint != manifest.fingerprint:
        raise DataError(
            f"already holds another dataset ({there.name}, {there.fingerprint[:12]}; this one is "
            f"{manifest.fingerprint[:12]}); choose another folder or remove it",
            where=str(out),
        )
    if (there.task, there.label_range) != (manifest.task, manifest.label_range):
        raise DataError(
            "already holds this content under another task or label range; choose another folder", where=str(out)
        )
    return True


def _write_atomically(splits: Splits, manifest: Manifest, out: Path, options: WriteOptions) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.parent / f".{out.name}.{uuid.uuid4().hex}.partial"
    building.mkdir()
    try:
        _write_parts(splits, manifest, building)
        for name, content in options.extras.items():
            (building / name).write_bytes(content)
        write_manifest(manifest, building)
        _publish(building, out, manifest)
    finally:
        shutil.rmtree(building, ignore_errors=True)  # after the rename there is nothing left to remove


def _write_parts(splits: Splits, manifest: Manifest, folder: Path) -> None:
    for name, record in manifest.splits.items():
        start = 0
        for part in record.parts:
            write_part(splits[name].rows(start, start + part.samples), folder / part.file)
            start += part.samples


def _publish(building: Path, out: Path, manifest: Manifest) -> None:
    try:
        building.rename(out)
    except OSError:
        # Another writer may have finished first: then its content decides, as if we had come later.
        if not _already_there(out, manifest):
            raise
