"""The batches of K trials, each at an epoch of its own and in its own order, under its own masks.

Masks are functions of the sample, so they are drawn for many batches at once and not batch by batch. The training split
stays in memory, on the device, where that is small; else each step reads the rows that it needs.

Shape legend: K trials, B samples of a batch, T steps.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gapwise.data.batch import ModalityBatch, hide
from gapwise.data.loading import EpochBatches, Rows, Views, steps_per_epoch
from gapwise.data.masks import Samples
from gapwise.data.store import TrainSplit
from gapwise.models.blocks.attention import split_axis
from gapwise.training.fused.member import Member

RESIDENT_BYTES = 1 << 30
"""Largest training split that is kept in memory as a whole."""
MASKED_FRAMES = 1 << 25
"""Frames of all trials that masks are drawn for at a time, at most (but for one batch)."""


class Source:
    """Samples of the training split by row number, on the device."""

    def __init__(self, split: TrainSplit, device: torch.device) -> None:
        self._split, self._device = split, device
        shapes = split.manifest.modalities.values()
        size = 4 * len(split) * sum(one.max_length * one.dim for one in shapes)
        every = np.arange(len(split), dtype=np.int64)
        self._whole = split.batch(every).to(device) if size <= RESIDENT_BYTES else None

    def read(self, rows_KB: Tensor) -> ModalityBatch:
        """(K, B, ...)."""
        flat = rows_KB.flatten()
        if self._whole is None:
            found = self._split.batch(flat.numpy()).to(self._device)
        else:
            found = self._whole.part(flat.to(self._device))
        return by_trial(found, rows_KB.shape[0])


def by_trial(batch: ModalityBatch, trials: int) -> ModalityBatch:
    """(K, B, ...) from (K * B, ...)."""

    def parted(value: Tensor) -> Tensor:
        return split_axis(value, 0, (trials, -1))

    return ModalityBatch(
        values={name: parted(value) for name, value in batch.values.items()},
        attend={name: parted(value) for name, value in batch.attend.items()},
        labels=parted(batch.labels),
        rows=parted(batch.rows),
    )


def fused_batches(members: Sequence[Member], source: Source) -> Iterator[Views]:
    """(K, B, ...) views, one an index, of the epoch that each member is at the beginning of."""
    epochs = [_epoch(member) for member in members]
    for window in _windows(epochs[0], members):
        rows = [[epoch.rows(index) for index in window] for epoch in epochs]
        rows_KN = torch.from_numpy(np.stack([np.concatenate(own) for own in rows]))
        masks = [
            _observed(epoch, member, np.concatenate(own))
            for epoch, member, own in zip(epochs, members, rows, strict=True)
        ]
        observed = {name: torch.from_numpy(np.stack([mask[name] for mask in masks])) for name in masks[0]}
        stops = np.cumsum([len(batch) for batch in rows[0]])
        for start, stop in zip([0, *stops[:-1]], stops, strict=True):
            complete = source.read(rows_KN[:, start:stop])
            shown = {name: mask[:, start:stop].to(complete.labels.device) for name, mask in observed.items()}
            visible = members[0].job.spec.protocol.mask_visible
            yield Views(hide(complete, shown, mask_visible=visible), complete)


def number_of_batches(member: Member) -> int:
    """The same for all members of a group."""
    return steps_per_epoch(len(member.job.train), member.job.spec.batch_size)


def _epoch(member: Member) -> EpochBatches:
    job, epoch = member.job, member.run.position.epoch
    return EpochBatches(job.train, job.spec, epoch=epoch, share=(0, 1))


def _windows(epoch: EpochBatches, members: Sequence[Member]) -> Iterator[range]:
    job = members[0].job
    frames = len(members) * job.spec.batch_size * sum(one.max_length for one in job.shape.modalities.values())
    size = max(1, MASKED_FRAMES // frames)
    for start in range(0, len(epoch), size):
        yield range(start, min(start + size, len(epoch)))


def _observed(epoch: EpochBatches, member: Member, rows: Rows) -> dict[str, np.ndarray]:
    split = member.job.train
    lengths = {name: known[rows] for name, known in split.lengths.items()}
    steps = {name: one.max_length for name, one in member.job.shape.modalities.items()}
    return epoch.observed(Samples(keys=split.keys[rows], lengths=lengths, steps=steps))
