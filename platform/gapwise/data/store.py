"""The reader: a dataset on disk as three splits of three types.

Parts are memory-mapped Arrow files. Opening one reads ids, labels and offsets; the values stay on disk until `batch`
copies exactly the frames of the rows it was asked for. Train, validation and test are distinct classes, so that a
function which selects can say in its signature that it takes no test split; reading the test split needs a reason and
is logged. With `verify` the content is hashed again and refused if it is no longer what its fingerprint says.

Shape legend: N samples of the split, B rows asked for, T steps, D features, F frames of one part.
"""

import copy
import hashlib
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from gapwise.data.arrays import Labels, TokenArrays
from gapwise.data.batch import ModalityBatch
from gapwise.data.exposure import count_exposures, record_exposure
from gapwise.data.fingerprint import content_keys
from gapwise.data.manifest import SPLIT_NAMES, Manifest, read_manifest
from gapwise.data.parts import open_part
from gapwise.data.shape import DataShape, Moments, Statistics
from gapwise.data.tokens import TokenColumn, joined, refuse_foreign_ids
from gapwise.data.verify import verify_dataset
from gapwise.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

_FRAMES_AT_ONCE = 1 << 14
_FEW_LABELS = 64
"""Up to so many distinct labels, a score is taken to lie on one of them."""


class Split:
    """What the three splits have in common. Never opened as itself: see the subclasses."""

    name: ClassVar[str]

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        record = next(record for split, record in manifest.splits.items() if split == self.name)
        self.folder = folder
        self.manifest = manifest
        self.fingerprint = record.fingerprint
        self._parts = [open_part(folder, part, manifest) for part in record.parts]
        self._part_N = np.repeat(np.arange(len(self._parts)), [len(part) for part in self._parts])
        self.steps = np.repeat([part.step for part in record.parts], [part.samples for part in record.parts])
        """(N,), the growth step that brought each row; 0 came with the import."""
        self.labels: Labels = np.concatenate([part.arrays.labels for part in self._parts])
        """(N,) float32 scores or int64 classes."""
        self.lengths = {name: self._joined_lengths(name) for name in manifest.modalities}
        """(N,) int64 by modality, in frames or tokens; 0 where the sample has no such modality."""
        self._starts = {name: self._joined_starts(name) for name in manifest.modalities}
        self._columns: dict[str, TokenColumn] = {}

    def reading(self, shape: DataShape) -> Self:
        """This split as a model of `shape` reads it: token ids in place of the frames of some modalities.

        Raises DataError if no such ids are kept, or if they are not those of the model's tokenizer.
        """
        other = copy.copy(self)
        for name, modality in shape.modalities.items():
            if modality.tokens is None:
                continue
            column = joined(self._token_parts(name), modality.tokens)
            refuse_foreign_ids(column, f"{self.folder}/{self.name}/tokens:{name}")
            other._columns = {**other._columns, name: column}
            other.lengths = {**other.lengths, name: column.lengths}
        return other

    def by_length(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions within `rows` from short to long, where batches are trimmed; elsewhere as they are."""
        if not self._columns:
            return np.arange(len(rows))
        lengths = sum(column.lengths[rows] for column in self._columns.values())
        return np.argsort(lengths, kind="stable")

    def to_frame(self) -> "pd.DataFrame":
        """One row a sample, by id: group, label, and each modality's (T, D) frames, None where the sample has none.

        Reads all of the split into memory.
        """
        import pandas as pd  # workers, which open datasets all the time, do without

        cells = {}
        for name in self.manifest.modalities:
            blocks = [part.arrays.modalities[name] for part in self._parts]
            cut = [frames for one in blocks for frames in np.split(one.values, one.offsets[1:-1])]
            cells[name] = pd.Series([frames if len(frames) else None for frames in cut], dtype=object)
        columns = {"group": self.groups, "label": self.labels, **cells}
        return pd.DataFrame(columns).set_index(pd.Index(self.ids, name="id"))

    @property
    def trimmed(self) -> bool:
        """Whether batches are only as long as their longest sample, so that alike lengths belong together."""
        return bool(self._columns)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def ids(self) -> list[str]:
        return [sample for part in self._parts for sample in part.arrays.ids]

    @cached_property
    def groups(self) -> list[str]:
        return [group for part in self._parts for group in part.arrays.groups]

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """(N,) stable 64-bit hash of each id: what masks are drawn by, so that they follow the sample anywhere."""
        digests = b"".join(hashlib.blake2b(sample.encode(), digest_size=8).digest() for sample in self.ids)
        return np.frombuffer(digests, dtype="<u8").astype(np.uint64)

    @cached_property
    def content_keys(self) -> NDArray[np.uint64]:
        """(N,) hash of what each sample holds: a recording under another id has the same; 0 for one that holds nothing.

        Reads all of the split.
        """
        return np.array([key for part in self._parts for key in content_keys(part.arrays)], np.uint64)

    def raw(self, modality: str) -> list[str]:
        """Raw text of every sample; KeyError if the manifest says that none is kept."""
        return [text for part in self._parts for text in part.arrays.raw[modality]]

    def tokens(self, modality: str) -> list[NDArray[np.int32]]:
        """Token ids of every sample; DataError if none are kept."""
        kept = self._token_parts(modality)
        return [ids for tokens in kept for ids in np.split(tokens.ids, tokens.offsets[1:-1])]

    def longest_tokens(self, modality: str) -> int:
        """The most tokens of any sample; DataError if none are kept."""
        return max(int(np.diff(tokens.offsets).max()) for tokens in self._token_parts(modality))

    def _token_parts(self, modality: str) -> list[TokenArrays]:
        kept = sorted(name for name, record in self.manifest.modalities.items() if record.tokens)
        if modality not in kept:
            raise DataError(
                f"keeps no token ids of {modality!r}", where=str(self.folder), allowed=kept or "none in this dataset"
            )
        return [part.arrays.tokens[modality] for part in self._parts]

    def batch(self, rows: NDArray[np.int64]) -> ModalityBatch:
        """Collate `rows` (B,): every modality padded to the manifest's max_length, float32, zero past its length.

        Token ids are padded to the longest of these rows only.
        """
        rows = np.asarray(rows, dtype=np.int64)
        values, attend, tokens = {}, {}, {}
        for name, column in self._columns.items():
            tokens[name], attend[name] = column.collate(rows)
        for name, record in self.manifest.modalities.items():
            if name in tokens:
                continue
            lengths_B = self.lengths[name][rows]
            values[name] = torch.from_numpy(self._gather(name, rows, lengths_B))
            attend[name] = torch.from_numpy(np.arange(record.max_length) < lengths_B[:, None])
        return ModalityBatch(
            values=values,
            attend=attend,
            labels=torch.from_numpy(self.labels[rows]),
            rows=torch.from_numpy(rows.copy()),
            tokens=tokens,
        )

    def frames(self, modality: str) -> Iterator[NDArray[np.float64]]:
        """Every stored frame once, in blocks (at most 16384, D) of float64."""
        for part in self._parts:
            values_FD = part.arrays.modalities[modality].values
            for start in range(0, len(values_FD), _FRAMES_AT_ONCE):
                yield values_FD[start : start + _FRAMES_AT_ONCE].astype(np.float64)

    def frames_with_rows(self, modality: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """The blocks of `frames`, each with the row (F,) that a frame belongs to, in ascending order."""
        row_F, start = np.repeat(np.arange(len(self)), self.lengths[modality]), 0
        for frames_FD in self.frames(modality):
            yield row_F[start : start + len(frames_FD)], frames_FD
            start += len(frames_FD)

    def frame_sums(self, modality: str) -> NDArray[np.float64]:
        """(N, D): the sum of each sample's frames; 0 where it has none. Reads all of the split."""
        sums_ND = np.zeros((len(self), self.manifest.modalities[modality].dim))
        for row_F, frames_FD in self.frames_with_rows(modality):
            rows, first = np.unique(row_F, return_index=True)
            sums_ND[rows] += np.add.reduceat(frames_FD, first, axis=0)
        return sums_ND

    def _gather(self, name: str, rows: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.float32]:
        record = self.manifest.modalities[name]
        steps_T = np.arange(record.max_length)
        source_BT = self._starts[name][rows][:, None] + steps_T
        real_BT = steps_T < lengths_B[:, None]
        part_B = self._part_N[rows]
        out_BTD = np.zeros((len(rows), record.max_length, record.dim), dtype=np.float32)
        for part in np.unique(part_B):
            mine_BT = real_BT & (part_B == part)[:, None]
            out_BTD[mine_BT] = self._parts[part].arrays.modalities[name].values[source_BT[mine_BT]]
        return out_BTD

    def _joined_lengths(self, name: str) -> NDArray[np.int64]:
        return np.concatenate([np.diff(part.arrays.modalities[name].offsets) for part in self._parts])

    def _joined_starts(self, name: str) -> NDArray[np.int64]:
        return np.concatenate([part.arrays.modalities[name].offsets[:-1] for part in self._parts])


class TrainSplit(Split):
    name = "train"


class ValidationSplit(Split):
    name = "valid"


class TestSplit(Split):
    """Comes only from `Dataset.test`, which logs the reason."""

    __test__ = False  # pytest would take the name for a test class
    name = "test"


class Dataset:
    """A dataset on disk. Splits open when first asked for."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def __repr__(self) -> str:
        manifest = self.manifest
        low, high = manifest.label_range
        splits = ", ".join(f"{name} {record.samples}" for name, record in manifest.splits.items())
        kinds = ", ".join(f"{name} {one.max_length}x{one.dim}" for name, one in sorted(manifest.modalities.items()))
        return f"Dataset({manifest.name!r}, {manifest.task} {low:g} to {high:g}; {splits}; {kinds})"

    def to_frame(self) -> "pd.DataFrame":
        """One row a split: samples, groups, and how many samples have each modality at all."""
        import pandas as pd

        present = {name: self.present(name) for name in sorted(self.manifest.modalities)}
        rows = {
            str(name): {"samples": record.samples, "groups": record.groups, **{m: present[m][name] for m in present}}
            for name, record in self.manifest.splits.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.to_frame().to_html()}"

    @cached_property
    def train(self) -> TrainSplit:
        return TrainSplit(self.folder, self.manifest)

    @cached_property
    def valid(self) -> ValidationSplit:
        return ValidationSplit(self.folder, self.manifest)

    def test(self, reason: str) -> TestSplit:
        """The test split; each call is one more line in its exposure log."""
        if not reason.strip():
            raise DataError("a read of the test split needs a reason", where=str(self.folder))
        split = TestSplit(self.folder, self.manifest)
        record_exposure(self.folder, split.fingerprint, reason)
        return split

    def fingerprints(self) -> dict[str, str]:
        """What was trained on, in full: `dataset` and each split by name."""
        splits = {str(name): record.fingerprint for name, record in self.manifest.splits.items()}
        return {"dataset": self.manifest.fingerprint, **splits}

    def longest_tokens(self, modality: str) -> int:
        """The most tokens of any sample of any split, as the manifest's max_length is for frames."""
        return max(split.longest_tokens(modality) for split in self._counted())

    def present(self, modality: str) -> dict[str, int]:
        """How many samples of each split have the modality at all, by the name of the split."""
        return {split.name: int((split.lengths[modality] > 0).sum()) for split in self._counted()}

    def _counted(self) -> tuple[Split, ...]:
        """All splits, for counts alone: no exposure of test."""
        return self.train, self.valid, TestSplit(self.folder, self.manifest)

    def exposures(self) -> int:
        """How often the test split was read, also before it grew: its older samples were seen then."""
        seen = {self.manifest.splits["test"].fingerprint, *(step.parent_test for step in self.manifest.growth)}
        return sum(count_exposures(self.folder, fingerprint) for fingerprint in seen)

    def split(self, name: str, reason: str) -> Split:
        """A split by name; the reason is logged if it is test."""
        if name == "train":
            return self.train
        if name == "valid":
            return self.valid
        if name == "test":
            return self.test(reason)
        raise DataError(
            f"unknown split {name!r}{nearest(name, SPLIT_NAMES)}", where=str(self.folder), allowed=SPLIT_NAMES
        )


def open_dataset(path: Path | str, *, verify: bool = False) -> Dataset:
    """Open a dataset folder. With `verify`, every split's content is hashed again (not an exposure: nothing is shown).

    Raises DataError if the folder holds no dataset, a newer format, or (verify) content that has changed.
    """
    folder = Path(path)
    dataset = Dataset(folder, read_manifest(folder))
    if verify:
        verify_dataset(folder, dataset.manifest)
    return dataset


def statistics(train: TrainSplit) -> Statistics:
    """Mean and standard deviation by feature over the stored frames (before any mask), and of the labels.

    Streams in float64 (Chan, Golub and LeVeque 1979), so the data may be larger than memory.
    """
    labels = train.labels.astype(np.float64)
    deviation, values = float(labels.std()), np.unique(labels)
    return Statistics(
        modalities={name: _moments(train, name) for name in train.manifest.modalities},
        label_mean=float(labels.mean()),
        label_deviation=deviation if deviation > 0 else 1.0,
        label_values=tuple(values.tolist()) if len(values) <= _FEW_LABELS else (),
    )


def _moments(train: TrainSplit, name: str) -> Moments:
    count = 0
    mean_D = np.zeros(train.manifest.modalities[name].dim)
    squares_D = np.zeros_like(mean_D)
    for frames_FD in train.frames(name):
        block_D = frames_FD.mean(axis=0)
        total = count + len(frames_FD)
        squares_D += ((frames_FD - block_D) ** 2).sum(axis=0)
        squares_D += (block_D - mean_D) ** 2 * (count * len(frames_FD) / total)
        mean_D += (block_D - mean_D) * (len(frames_FD) / total)
        count = total
    deviation_D = np.sqrt(squares_D / max(count, 1))
    # Rounding leaves a constant column some 1e-16 of its mean; a float32 column that varies at all has far more.
    constant_D = deviation_D <= 1e-12 * np.abs(mean_D)
    return Moments(mean=mean_D.astype(np.float32), deviation=np.where(constant_D, 1.0, deviation_D).astype(np.float32))


@lru_cache(maxsize=2)
def opened(path: str, fingerprint: str = "") -> tuple[Dataset, Statistics]:
    """A dataset and its training statistics, once a process: a reused worker pays for its first run only.

    Raises DataError where it is not the one of this fingerprint any more; empty: whichever is there.
    """
    dataset = open_dataset(Path(path))
    if fingerprint and dataset.manifest.fingerprint != fingerprint:
        raise DataError("the dataset changed while it was trained on", where=path, allowed=f"{fingerprint[:12]}...")
    return dataset, statistics(dataset.train)
