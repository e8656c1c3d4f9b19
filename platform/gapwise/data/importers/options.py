"""What a person says about a file to import, and what reading one gives: two frozen values that all formats share.

Reading a file and writing a dataset are apart, because a file that is appended to a dataset is read alike.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gapwise.data.arrays import SplitArrays
from gapwise.data.fingerprint import file_digest
from gapwise.data.manifest import SPLIT_NAMES, SourceRecord
from gapwise.data.shape import Task
from gapwise.data.writer import WriteOptions
from gapwise.errors import DataError

EACH_ITS_OWN = "sample: each id is its own group"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    name: str
    """What the dataset will be called."""
    task: Task = "regression"
    """Which labels to read."""
    modalities: tuple[str, ...] = ()
    """MMSA: modalities beyond text, audio and vision. Parquet and npz: read only these; empty reads all."""
    label_range: tuple[float, float] | None = None
    """Overrides the rule that picks the range (see `WriteOptions`)."""
    strict: bool = False
    """Refuse non-finite values instead of repairing them."""
    rows_per_part: int = 4096
    """Rows of one Arrow file."""
    partial: bool = False
    """Take a file that has only some of the splits, as one that is appended may."""

    def splits_among(self, found: Collection[str], path: Path) -> tuple[str, ...]:
        """The splits to read: all three, or under `partial` those that were found. Raises DataError for none."""
        if not self.partial:
            return SPLIT_NAMES
        names = tuple(name for name in SPLIT_NAMES if name in found)
        if not names:
            raise DataError("holds no split", where=str(path), allowed=SPLIT_NAMES)
        return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a file holds, read but not yet checked against anything."""

    splits: Mapping[str, SplitArrays]
    groups: str
    """What a group is, in words."""


def write_options(path: Path, groups: str, options: ImportOptions) -> WriteOptions:
    """The writer's options for content that came from `path`."""
    return WriteOptions(
        name=options.name,
        task=options.task,
        source=source_of(path),
        groups=groups,
        label_range=options.label_range,
        strict=options.strict,
        rows_per_part=options.rows_per_part,
        origin=str(path),
    )


def source_of(path: Path) -> SourceRecord:
    return SourceRecord(file=path.name, digest=file_digest(path))


def refuse_missing(path: Path) -> None:
    if not path.exists():
        raise DataError("no such file or folder", where=str(path))


def refuse_unprintable(key: str, path: Path) -> None:
    """Keys appear in messages, which are one line."""
    if not key.isprintable():
        raise DataError(f"the name {key!r} holds characters that cannot be printed", where=str(path))
