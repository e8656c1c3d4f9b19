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


class Views(NamedTuple):
    """The same samples as training sees them and with nothing hidden."""

    incomplete: ModalityBatch
    complete: ModalityBatch


def epoch_order(split: TrainSplit, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the split's rows, decided sample by sample and so independent of their order on disk."""
    name = stream(seed=seed, split=split.name, epoch=epoch, purpose="order of rows")
    return np.lexsort((split.keys, uniforms(name, split.keys, 1)[:, 0])).astype(np.int64)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Batches of an epoch: as few as `batch_size` allows."""
    return -(-samples // batch_size)


class EpochBatches(Dataset[Views]):
    """Batch i of one epoch, restricted to this worker's share (rows rank, rank + world, ... of the global batch)."""

    def __init__(self, split: TrainSplit, spec: TrainSpec, *, epoch: int, share: tuple[int, int]) -> None:
        self._split = split
        self._protocol = build_protocol(spec.protocol)
        self._mask_visible = spec.protocol.mask_visible
        self._seed, self._epoch = spec.seed, epoch
        self._rank, self._world = share
        order = epoch_order(split, seed=spec.seed, epoch=epoch)
        self._batches = np.array_split(order, steps_per_epoch(len(split), spec.batch_size))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Views:
        rows = self._batches[index][self._rank :: self._world]
        complete = self._split.batch(rows)
        samples = samples_of(self._split.keys[rows], complete)
        observed = self._protocol.training(samples, seed=self._seed, epoch=self._epoch)
        return Views(hide(complete, as_tensors(observed), mask_visible=self._mask_visible), complete)


def samples_of(keys: Keys, complete: ModalityBatch) -> Samples:
    """What protocols draw masks from: the keys (B,) of a batch in which nothing is hidden yet, and its true lengths."""
    return Samples(
        keys=keys,
        lengths={name: mask.sum(1).numpy() for name, mask in complete.attend.items()},
        steps={name: int(value.shape[1]) for name, value in complete.values.items()},
    )


def as_tensors(observed: Observed) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(mask) for name, mask in observed.items()}
