"""`dataset.json`: what a dataset on disk says about itself.

The manifest is everything that can be known of a dataset without reading a sample: shapes, splits, fingerprints, where
it came from and what was repaired. Nobody edits it: the writer makes it, and an append replaces it whole, by a rename.
A dataset that never grew is version 1; one that did is version 2, where `growth` has an entry for every append and a
part says which of them brought it. It refuses a format newer than this code, unknown keys, part names that would leave
the dataset's folder, and a history that does not fit the parts.
"""

import json
import uuid
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gapwise.data.arrays import MODALITY_NAME
from gapwise.data.durable import flush
from gapwise.data.shape import DataShape, ModalityShape, Task
from gapwise.errors import DataError
from gapwise.spec.fingerprint import fingerprint as canonical_digest

FORMAT_VERSION = 2
MANIFEST_FILE = "dataset.json"
_DIGEST = "manifest_digest"
SPLIT_NAMES = ("train", "valid", "test")

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
SplitName = Literal["train", "valid", "test"]
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
    step: Annotated[int, Field(ge=0, exclude_if=lambda step: step == 0)] = 0
    """Which entry of `growth` brought it, counted from 1; 0 came with the import, and is not written."""


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


class GrowthRecord(_Record):
    parent: Digest
    """Fingerprint of the dataset before this step."""
    parent_test: Digest
    """Fingerprint of its test split: who looked at that one has seen part of this one."""
    source: SourceRecord
    """The file that was appended."""
    added: dict[SplitName, Annotated[int, Field(ge=0)]]
    """New samples by split; all three, and not all 0."""
    repaired: dict[str, int]
    """Non-finite values replaced in the new samples, by column."""
    shares: dict[SplitName, Annotated[int, Field(ge=0)]]
    """Weights by which unknown groups are spread over the splits; the same at every step."""


class Manifest(_Record):
    format_version: int = 1
    """Version of this layout: 1 if the dataset never grew, 2 if it did; a newer one is refused."""
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
    splits: dict[SplitName, SplitRecord]
    """All three, always."""
    fingerprint: Digest
    """SHA-256 over the three split fingerprints: the identity of the dataset."""
    source: SourceRecord
    """Where the content came from; what was appended says so itself."""
    repaired: dict[str, int]
    """Non-finite values replaced, by column: {"audio[7]": 645}."""
    repair_rule: Literal["zero"] = "zero"
    """What a non-finite value became."""
    growth: Annotated[tuple[GrowthRecord, ...], Field(exclude_if=lambda steps: not steps)] = ()
    """One entry an append, oldest first; empty, and not written, if there was none."""

    def shape(self) -> DataShape:
        modalities = {
            name: ModalityShape(dim=record.dim, max_length=record.max_length)
            for name, record in self.modalities.items()
        }
        return DataShape(task=self.task, modalities=modalities, label_range=self.label_range, classes=self.classes)

    def steps_since(self, fingerprint: str) -> range:
        """The growth steps (from 1) that made this dataset out of the one of that fingerprint; empty if it is this.

        Raises DataError if that one is no ancestor of this.
        """
        ancestors = [*(step.parent for step in self.growth), self.fingerprint]
        if fingerprint not in ancestors:
            known = ", ".join(one[:12] for one in ancestors)
            raise DataError(f"{self.name} did not grow out of a dataset {fingerprint[:12]}", allowed=known)
        return range(ancestors.index(fingerprint) + 1, len(ancestors))


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `folder/dataset.json`; DataError if it is missing, broken or newer than this code."""
    path = folder / MANIFEST_FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"no {MANIFEST_FILE} here: not a gapwise dataset", where=str(folder)) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, path: str) -> Manifest:
    """The manifest in the bytes of a `dataset.json` that came from `path`; DataError as in `read_manifest`."""
    try:
        tree = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", where=path) from error
    _refuse_newer(tree, path)
    written = tree.pop(_DIGEST, None)
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise DataError(f"{key}: {first['msg']}", where=path) from error
    if written != _digest(manifest):
        raise DataError("it was edited: it no longer matches its own digest", where=path)
    return _complete(manifest, path)


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Replace the folder's manifest in one rename: whoever reads sees the old one or the new one, whole."""
    fields = manifest.model_dump(mode="json") | {_DIGEST: _digest(manifest)}
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    building = folder / f".{MANIFEST_FILE}.{uuid.uuid4().hex}.partial"
    try:
        building.write_text(text + "\n", encoding="utf-8")
        flush(building)
        building.replace(folder / MANIFEST_FILE)
    finally:
        building.unlink(missing_ok=True)
    flush(folder)


def _digest(manifest: Manifest) -> str:
    """Over everything that the content's fingerprint does not cover: label range, task, shapes, what was repaired."""
    return canonical_digest(manifest.model_dump(mode="json"))


def _refuse_newer(tree: object, path: str) -> None:
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise DataError("format_version is missing or not a whole number", where=path)
    if not 1 <= version <= FORMAT_VERSION:
        raise DataError(
            f"format version {version} is not known to this gapwise; upgrade gapwise or import the source again",
            where=path,
            allowed=[str(known) for known in range(1, FORMAT_VERSION + 1)],
        )


def _complete(manifest: Manifest, path: str) -> Manifest:
    missing = [name for name in SPLIT_NAMES if name not in manifest.splits]
    if missing:
        raise DataError(f"splits.{missing[0]} is missing", where=path, allowed=SPLIT_NAMES)
    if not manifest.modalities:
        raise DataError("modalities is empty", where=path)
    for name, split in manifest.splits.items():
        if split.samples != sum(part.samples for part in split.parts):
            raise DataError(f"splits.{name}.samples disagrees with its parts", where=path)
    _refuse_untrue_history(manifest, path)
    return manifest


def _refuse_untrue_history(manifest: Manifest, path: str) -> None:
    if (manifest.format_version == 2) != bool(manifest.growth):
        told = f"format version {manifest.format_version} with {len(manifest.growth)} growth steps"
        raise DataError(told, where=path, allowed="1 without, 2 with")
    for name, split in manifest.splits.items():
        brought = [sum(part.samples for part in split.parts if part.step == step) for step in _steps(manifest)]
        recorded = [step.added.get(name) for step in manifest.growth]
        if brought != recorded or any(part.step > len(recorded) for part in split.parts):
            raise DataError(f"growth disagrees with the parts of splits.{name}", where=path)


def _steps(manifest: Manifest) -> range:
    return range(1, len(manifest.growth) + 1)
