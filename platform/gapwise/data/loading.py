"""One epoch of training as a list of batches that any process can compute on its own.

Order and masks are functions of (seed, epoch), so worker w of W takes its share of every global batch without talking
to anyone, a resumed run continues with the very batches it would have had, and a `DataLoader` with any number of
worker processes yields the same thing. An epoch is cut into nearly equal batches, so no tiny last batch starves a
contrastive loss.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from gapwise.data.batch import ModalityBatch, hide
from gapwise.data.masks import Keys, Samples, stream, uniforms
from gapwise.data.protocols import Observed, build_protocol
from gapwise.data.store import TrainSplit
from gapwise.spec.train import TrainSpec

Rows = NDArray[np.int64]

WINDOW = 8
"""Batches that are bucketed by length together."""


class Views(NamedTuple):
    """The same samples as training sees them and with nothing hidden."""

    incomplete: ModalityBatch
    complete: ModalityBatch

    def part(self, rows: slice) -> "Views":
        """Some of the samples."""
        return Views(self.incomplete.part(rows), self.complete.part(rows))

    def to(self, device: torch.device) -> "Views":
        return Views(self.incomplete.to(device), self.complete.to(device))


def epoch_order(split: TrainSplit, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the split's rows, decided sample by sample and so independent of their order on disk."""
    name = stream(seed=seed, split=split.name, epoch=epoch, purpose="order of rows")
    return np.lexsort((split.keys, uniforms(name, split.keys, 1)[:, 0])).astype(np.int64)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Batches of an epoch: as few as `batch_size` allows."""
    return -(-samples // batch_size)


def bucketed(split: TrainSplit, batches: list[Rows], *, seed: int, epoch: int) -> list[Rows]:
    """Batches of the same sizes and samples, windows of `WINDOW` batches regrouped so that lengths are alike.

    Trimmed batches then waste little. Within a window, rows are dealt by length and the batches return in random order,
    so that an epoch does not run from short to long. Still a function of (split, seed, epoch) alone.
    """
    name = stream(seed=seed, split=split.name, epoch=epoch, purpose="order of buckets")
    draw = uniforms(name, np.arange(len(batches), dtype=np.uint64), 1)[:, 0]
    made: list[Rows] = []
    for start in range(0, len(batches), WINDOW):
        window = batches[start : start + WINDOW]
        rows = np.concatenate(window)
        dealt = np.split(rows[split.by_length(rows)], np.cumsum([len(batch) for batch in window])[:-1])
        made += [dealt[place] for place in np.argsort(draw[start : start + WINDOW], kind="stable")]
    return made


class EpochBatches(Dataset[Views]):
    """Batch i of one epoch, restricted to this worker's share (rows rank, rank + world, ... of the global batch)."""

    def __init__(self, split: TrainSplit, spec: TrainSpec, *, epoch: int, share: tuple[int, int]) -> None:
        self._split = split
        self._protocol = build_protocol(spec.protocol)
        self._mask_visible = spec.protocol.mask_visible
        self._seed, self._epoch = spec.seed, epoch
        self._rank, self._world = share
        order = epoch_order(split, seed=spec.seed, epoch=epoch)
        batches = np.array_split(order, steps_per_epoch(len(split), spec.batch_size))
        self._batches = bucketed(split, batches, seed=spec.seed, epoch=epoch) if split.trimmed else batches

    def __len__(self) -> int:
        return len(self._batches)

    def samples(self, index: int) -> int:
        """Of the global batch, all workers' shares together."""
        return len(self._batches[index])

    def rows(self, index: int) -> Rows:
        """This worker's share of a batch."""
        return self._batches[index][self._rank :: self._world]

    def observed(self, samples: Samples) -> Observed:
        """What training sees of any samples in this epoch, whichever batches they are in."""
        return self._protocol.training(samples, seed=self._seed, epoch=self._epoch)

    def __getitem__(self, index: int) -> Views:
        rows = self.rows(index)
        complete = self._split.batch(rows)
        observed = self.observed(samples_of(self._split.keys[rows], complete))
        return Views(hide(complete, as_tensors(observed), mask_visible=self._mask_visible), complete)


def samples_of(keys: Keys, complete: ModalityBatch) -> Samples:
    """What protocols draw masks from: the keys (B,) of a batch in which nothing is hidden yet, and its true lengths."""
    return Samples(
        keys=keys,
        lengths={name: mask.sum(1).numpy() for name, mask in complete.attend.items()},
        steps=complete.steps(),
    )


def as_tensors(observed: Observed) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(mask) for name, mask in observed.items()}
