"""What a person says about a file to import, in one frozen value that all formats share."""

from dataclasses import dataclass
from pathlib import Path

from gapwise.data.fingerprint import file_digest
from gapwise.data.manifest import SourceRecord
from gapwise.data.shape import Task
from gapwise.data.writer import WriteOptions
from gapwise.errors import DataError


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


def write_options(path: Path, groups: str, options: ImportOptions) -> WriteOptions:
    """The writer's options for content that came from `path`."""
    return WriteOptions(
        name=options.name,
        task=options.task,
        source=SourceRecord(file=path.name, digest=file_digest(path)),
        groups=groups,
        label_range=options.label_range,
        strict=options.strict,
        rows_per_part=options.rows_per_part,
        origin=str(path),
    )


def refuse_missing(path: Path) -> None:
    if not path.exists():
        raise DataError("no such file or folder", where=str(path))


def refuse_unprintable(key: str, path: Path) -> None:
    """Keys appear in messages, which are one line."""
    if not key.isprintable():
        raise DataError(f"the name {key!r} holds characters that cannot be printed", where=str(path))
