"""`dataset.json`: what a dataset on disk says about itself.

The manifest is everything that can be known of a dataset without reading a sample: shapes, splits, fingerprints, where
it came from and what was repaired. It is written once, by the writer, and never edited. It refuses a format newer than
this code, unknown keys, and part names that would leave the dataset's folder.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gapwise.data.arrays import MODALITY_NAME
from gapwise.data.shape import DataShape, ModalityShape, Task
from gapwise.errors import DataError
from gapwise.spec.fingerprint import fingerprint as canonical_digest

FORMAT_VERSION = 1
MANIFEST_FILE = "dataset.json"
_DIGEST = "manifest_digest"
SPLIT_NAMES = ("train", "valid", "test")

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ModalityName = Annotated[str, Field(pattern=f"^{MODALITY_NAME}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModalityRecord(_Record):
    dim: Annotated[int, Field(ge=1)]
    """Features a frame."""
    max_length: Annotated[int, Field(ge=1)]
    """Longest sample of any split, in frames."""
    dtype: Literal["float16", "float32"]
    """How the values are stored; batches are float32 whatever it says."""
    raw: bool = False
    """Whether each sample's raw text is kept."""
    tokens: bool = False
    """Whether each sample's token ids are kept."""


class PartRecord(_Record):
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.arrow$")]
    """Name inside the dataset's folder."""
    samples: Annotated[int, Field(ge=1)]
    """Rows of this part."""
    digest: Digest
    """SHA-256 of the content of the rows (not of the file)."""


class SplitRecord(_Record):
    samples: Annotated[int, Field(ge=1)]
    """Rows of all parts."""
    groups: Annotated[int, Field(ge=1)]
    """Distinct groups among the rows."""
    parts: tuple[PartRecord, ...]
    """In row order."""
    fingerprint: Digest
    """SHA-256 of the content of the split; independent of how it is cut into parts."""


class SourceRecord(_Record):
    file: str
    """Name of the file that was imported, without its folder."""
    digest: Digest
    """SHA-256 of that file's bytes."""


class Manifest(_Record):
    format_version: int = FORMAT_VERSION
    """Version of this layout; a newer one is refused."""
    name: str
    """What people call the dataset; no part of its identity."""
    task: Task
    """What the labels are."""
    label_range: tuple[float, float]
    """Lowest and highest label; for classification (0, classes - 1)."""
    classes: Annotated[int, Field(ge=0)] = 0
    """Number of classes; 0 for regression."""
    modalities: dict[ModalityName, ModalityRecord]
    """By name. The order carries no meaning."""
    groups: str
    """What a group is: a video, a speaker, or the sample itself."""
    groups_shared_between_splits: Annotated[int, Field(ge=0)]
    """Groups that occur in more than one split: allowed, but resampling them is less independent than it looks."""
    splits: dict[Literal["train", "valid", "test"], SplitRecord]
    """All three, always."""
    fingerprint: Digest
    """SHA-256 over the three split fingerprints: the identity of the dataset."""
    source: SourceRecord
    """Where the content came from."""
    repaired: dict[str, int]
    """Non-finite values replaced, by column: {"audio[7]": 645}."""
    repair_rule: Literal["zero"] = "zero"
    """What a non-finite value became."""

    def shape(self) -> DataShape:
        modalities = {
            name: ModalityShape(dim=record.dim, max_length=record.max_length)
            for name, record in self.modalities.items()
        }
        return DataShape(task=self.task, modalities=modalities, label_range=self.label_range, classes=self.classes)


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `folder/dataset.json`; DataError if it is missing, broken or newer than this code."""
    path = folder / MANIFEST_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"no {MANIFEST_FILE} here: not a gapwise dataset", where=str(folder)) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    _refuse_newer(tree, path)
    written = tree.pop(_DIGEST, None)
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise DataError(f"{key}: {first['msg']}", where=str(path)) from error
    if written != _digest(manifest):
        raise DataError("it was edited: it no longer matches its own digest", where=str(path))
    return _complete(manifest, path)


def write_manifest(manifest: Manifest, folder: Path) -> None:
    fields = manifest.model_dump(mode="json") | {_DIGEST: _digest(manifest)}
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def _digest(manifest: Manifest) -> str:
    """Over everything that the content's fingerprint does not cover: label range, task, shapes, what was repaired."""
    return canonical_digest(manifest.model_dump(mode="json"))


def _refuse_newer(tree: object, path: Path) -> None:
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise DataError("format_version is missing or not a whole number", where=str(path))
    if not 1 <= version <= FORMAT_VERSION:
        raise DataError(
            f"format version {version} is not known to this gapwise; upgrade gapwise or import the source again",
            where=str(path),
            allowed=[str(known) for known in range(1, FORMAT_VERSION + 1)],
        )


def _complete(manifest: Manifest, path: Path) -> Manifest:
    missing = [name for name in SPLIT_NAMES if name not in manifest.splits]
    if missing:
        raise DataError(f"splits.{missing[0]} is missing", where=str(path), allowed=SPLIT_NAMES)
    if not manifest.modalities:
        raise DataError("modalities is empty", where=str(path))
    for name, split in manifest.splits.items():
        if split.samples != sum(part.samples for part in split.parts):
            raise DataError(f"splits.{name}.samples disagrees with its parts", where=str(path))
    return manifest
