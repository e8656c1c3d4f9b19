"""Growth: a dataset on disk takes in a further file, whole or not at all.

What is there is never touched: its parts stay where they are, byte for byte, so whoever reads or maps them goes on
undisturbed, and no sample ever changes its split. New parts are written beside them under temporary names, renamed, and
last the manifest is replaced: a reader sees the old dataset or the new one. Who dies in between leaves the old one and
some files that no manifest names; the next append removes them.

The splits that receive samples are read and hashed again, for a split's fingerprint is over all of its samples: data
that grew are the same dataset as the same rows imported at once, and damaged data do not grow. It refuses a file that
is not like the dataset in form, labels or grouping, samples that are known, a file that was taken in before, and a
second append at the same time.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gapwise.data.arrays import SplitArrays, check_split, check_together, form
from gapwise.data.durable import flush
from gapwise.data.fingerprint import overall_fingerprint, sample_digests, split_fingerprint
from gapwise.data.importers import ImportOptions, read_content
from gapwise.data.importers.options import EACH_ITS_OWN, Content, refuse_missing, source_of
from gapwise.data.lock import alone
from gapwise.data.manifest import (
    SPLIT_NAMES,
    GrowthRecord,
    Manifest,
    PartRecord,
    SourceRecord,
    SplitRecord,
    read_manifest,
    write_manifest,
)
from gapwise.data.parts import Part, open_part, write_part
from gapwise.data.placement import homes, placed, settled_shares
from gapwise.data.verify import verify_split
from gapwise.data.writer import longest_of, part_records, repair
from gapwise.errors import DataError

LOCK_FILE = ".append.lock"
_PART_FILE = re.compile(rf"({'|'.join(SPLIT_NAMES)})-\d{{5,}}\.arrow")

Pieces = Mapping[str, Sequence[SplitArrays]]
"""New rows by the split that they join."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendOptions:
    """What a person says about a file to append; the rest follows from the dataset."""

    modalities: tuple[str, ...] = ()
    """As in `ImportOptions`."""
    strict: bool = False
    """Refuse non-finite values instead of repairing them."""
    shares: tuple[int, int, int] | None = None
    """Weights of train, valid and test for unknown groups; None: as before, and at first the numbers of groups."""
    rows_per_part: int = 4096
    """Rows of one Arrow file; no part of the identity."""


class Grown(NamedTuple):
    """What an append did."""

    manifest: Manifest
    new_groups: int
    """Groups that the dataset did not know."""
    placed_elsewhere: int
    """Samples whose file said another split than the one that they joined."""


class _There(NamedTuple):
    """The dataset as it is, opened: ids and groups are read, values are mapped."""

    parts: Mapping[str, Sequence[Part]]
    groups: Mapping[str, set[str]]
    split_of: Mapping[str, str]
    """By sample id."""


def append(path: Path, folder: Path, file_format: str, options: AppendOptions) -> Grown:
    """Take the file `path` into the dataset `folder`. Raises DataError, and changes nothing, if it does not fit."""
    read_manifest(folder)  # no lock file where there is no dataset
    with alone(folder / LOCK_FILE, "appending to this dataset"):
        manifest = read_manifest(folder)
        shares = settled_shares(manifest, options.shares)
        content, source = _read(path, file_format, manifest, options)
        there = _opened(folder, manifest)
        _refuse_misfit(content, manifest, there, path)
        splits, repaired = repair(content.splits, strict=options.strict, origin=str(path))
        known = homes(there.groups)
        pieces, elsewhere = _sorted_out(splits, known, shares)
        record = GrowthRecord.model_validate(
            {
                "parent": manifest.fingerprint,
                "parent_test": manifest.splits["test"].fingerprint,
                "source": source,
                "added": {name: sum(map(len, pieces[name])) for name in SPLIT_NAMES},
                "repaired": repaired,
                "shares": shares,
            }
        )
        grown, new = _grown(folder, manifest, there, pieces, record, options.rows_per_part)
        _publish(folder, manifest, grown, new)
    brought = {group for arrays in splits.values() for group in arrays.groups}
    return Grown(grown, len(brought - known.keys()), elsewhere)


def _read(path: Path, file_format: str, manifest: Manifest, options: AppendOptions) -> tuple[Content, SourceRecord]:
    refuse_missing(path)
    source = source_of(path)
    earlier = [manifest.source.digest, *(step.source.digest for step in manifest.growth)]
    if source.digest in earlier:
        step = earlier.index(source.digest)
        told = f"was appended before (step {step})" if step else "is the file that the dataset was imported from"
        raise DataError(told, where=str(path))
    asked = ImportOptions(
        name=manifest.name,
        task=manifest.task,
        modalities=options.modalities,
        strict=options.strict,
        partial=True,
    )
    return read_content(path, file_format, asked), source


def _opened(folder: Path, manifest: Manifest) -> _There:
    parts = {
        str(name): [open_part(folder, part, manifest) for part in record.parts]
        for name, record in manifest.splits.items()
    }
    groups = {name: {group for part in own for group in part.arrays.groups} for name, own in parts.items()}
    split_of = {sample: name for name, own in parts.items() for part in own for sample in part.arrays.ids}
    return _There(parts, groups, split_of)


def _refuse_misfit(content: Content, manifest: Manifest, there: _There, path: Path) -> None:
    for name, arrays in content.splits.items():
        check_split(arrays, f"{path}/{name}")
    check_together(content.splits, str(path))
    arrays, own = next(iter(content.splits.values())), there.parts["train"][0].arrays
    if form(arrays) != form(own):
        raise DataError(f"it is {form(arrays)} but the dataset is {form(own)}", where=str(path))
    if (content.groups == EACH_ITS_OWN) != (manifest.groups == EACH_ITS_OWN):
        raise DataError(f"a group is {content.groups!r} here but {manifest.groups!r} in the dataset", where=str(path))
    _refuse_labels(content, manifest, path)
    _refuse_known(content, there, path)


def _refuse_labels(content: Content, manifest: Manifest, path: Path) -> None:
    low = min(float(arrays.labels.min()) for arrays in content.splits.values())
    high = max(float(arrays.labels.max()) for arrays in content.splits.values())
    lowest, highest = manifest.label_range
    if not lowest <= low <= high <= highest:
        raise DataError(f"labels are {low:g} to {high:g}", where=str(path), allowed=f"{lowest:g} to {highest:g}")


def _refuse_known(content: Content, there: _There, path: Path) -> None:
    ids = [sample for arrays in content.splits.values() for sample in arrays.ids]
    known = [sample for sample in ids if sample in there.split_of]
    if len(known) == len(ids):
        raise DataError(f"all of its {len(ids)} samples are in the dataset already", where=str(path))
    if known:
        told = f"sample {known[0]!r} is in the dataset already, in {there.split_of[known[0]]}"
        raise DataError(f"{told}; {len(known)} of {len(ids)} are", where=str(path))


def _sorted_out(
    splits: Mapping[str, SplitArrays], known: Mapping[str, str], shares: Mapping[str, int]
) -> tuple[dict[str, list[SplitArrays]], int]:
    """The pieces, in the file's order, and how many samples its own splits would have put elsewhere."""
    pieces: dict[str, list[SplitArrays]] = {name: [] for name in SPLIT_NAMES}
    elsewhere = 0
    for told, arrays in splits.items():
        split_N = np.array(placed(arrays.groups, known, shares))
        elsewhere += int((split_N != told).sum())
        for name, joining in pieces.items():
            rows = np.flatnonzero(split_N == name)
            if len(rows):
                joining.append(arrays.take(rows))
    return pieces, elsewhere


_New = list[tuple[PartRecord, SplitArrays]]


def _grown(
    folder: Path, manifest: Manifest, there: _There, pieces: Pieces, record: GrowthRecord, rows_per_part: int
) -> tuple[Manifest, _New]:
    """The new manifest, and what is to be written before it."""
    splits: dict[str, SplitRecord] = {str(name): split for name, split in manifest.splits.items()}
    new: _New = []
    for name, joining in pieces.items():
        if not joining:
            continue
        own, step = splits[name], len(manifest.growth) + 1
        digests = verify_split(folder, manifest, name, there.parts[name])
        parts, groups = list(own.parts), set(there.groups[name])
        for piece in joining:
            fresh = sample_digests(piece)
            cut = part_records(name, fresh, rows_per_part, first=len(parts), step=step)
            new += _paired(cut, piece)
            parts += cut
            digests += fresh
            groups |= set(piece.groups)
        content = split_fingerprint(there.parts[name][0].arrays, digests)
        splits[name] = SplitRecord(samples=len(digests), groups=len(groups), parts=tuple(parts), fingerprint=content)
    return _replaced(manifest, splits, pieces, record), new


def _paired(parts: Sequence[PartRecord], piece: SplitArrays) -> _New:
    ends = np.cumsum([part.samples for part in parts]).tolist()
    return [(part, piece.rows(end - part.samples, end)) for part, end in zip(parts, ends, strict=True)]


def _replaced(manifest: Manifest, splits: Mapping[str, SplitRecord], pieces: Pieces, record: GrowthRecord) -> Manifest:
    every = [piece for joining in pieces.values() for piece in joining]
    repaired = {
        column: manifest.repaired.get(column, 0) + record.repaired.get(column, 0)
        for column in sorted({*manifest.repaired, *record.repaired})
    }
    modalities = {
        name: one.model_copy(update={"max_length": max(one.max_length, longest_of(name, every))})
        for name, one in manifest.modalities.items()
    }
    changes = {
        "format_version": 2,
        "splits": splits,
        "fingerprint": overall_fingerprint({name: split.fingerprint for name, split in splits.items()}),
        "repaired": repaired,
        "modalities": modalities,
        "growth": (*manifest.growth, record),
    }
    return manifest.model_copy(update=changes)


def _publish(folder: Path, manifest: Manifest, grown: Manifest, new: _New) -> None:
    """Parts first, the manifest last; a failure takes the parts back, a death leaves them to the next append."""
    _sweep(folder, manifest)
    try:
        for part, arrays in new:
            building = folder / f".{part.file}.{uuid.uuid4().hex}.partial"
            write_part(arrays, building)
            flush(building)
            building.rename(folder / part.file)
        flush(folder)
        write_manifest(grown, folder)
    except BaseException:
        _sweep(folder, read_manifest(folder))
        raise


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what appends that died have left: parts that no manifest names, and temporary files."""
    named = {part.file for split in manifest.splits.values() for part in split.parts}
    for entry in folder.iterdir():
        torn = entry.name.startswith(".") and entry.name.endswith(".partial")
        if torn or (_PART_FILE.fullmatch(entry.name) and entry.name not in named):
            entry.unlink()
