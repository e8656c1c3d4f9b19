"""`ModalityBatch`: the one value that travels from a dataset through a mask into a model.

Modalities are keyed by name, never by position, so that two or five of them work alike. It is a NamedTuple of
tensors and dicts, hence a pytree, so that `torch.func.vmap` can batch over it.

Shape legend: B samples, T steps of the modality, D features of the modality, V views of the same samples.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """A modality as token ids, trimmed to the longest sample of the batch."""

    ids: Tensor
    """(B, T) int64; the unknown token wherever nothing was observed."""
    special: Tensor
    """(B, T) bool: the tokens that frame a sequence ([CLS], [SEP]); they are never missing, and no content."""
    unknown: Tensor
    """(B,) int64: the id that a missing token becomes."""


class ModalityBatch(NamedTuple):
    """Samples as a model sees them.

    `values[m]` is (B, T, D) float32, zero wherever nothing was observed; a modality that is read as token ids stands in
    `tokens` instead. `attend[m]` is (B, T) bool: the frames that the model may look at. Frames past a sample's length
    are never attended; observed-but-hidden frames (protocol option `mask_visible: false`) are zero, or the unknown
    token, and attended. A modality is available to a sample iff any frame, or any token that is content, is attended.
    `labels` is (B,): float32 scores, or int64 classes. `rows` is (B,) int64: positions within the split.
    """

    values: dict[str, Tensor]
    attend: dict[str, Tensor]
    labels: Tensor
    rows: Tensor
    tokens: dict[str, Tokens] = {}  # noqa: RUF012  (never written to)

    @property
    def size(self) -> int:
        return int(self.labels.shape[0])

    def steps(self) -> dict[str, int]:
        """T by modality."""
        return {name: int(mask.shape[1]) for name, mask in self.attend.items()}

    def part(self, rows: slice | Tensor) -> "ModalityBatch":
        """Some of the samples; of a slice, as views."""
        return ModalityBatch(
            values={name: value[rows] for name, value in self.values.items()},
            attend={name: mask[rows] for name, mask in self.attend.items()},
            labels=self.labels[rows],
            rows=self.rows[rows],
            tokens={name: Tokens(*(part[rows] for part in one)) for name, one in self.tokens.items()},
        )

    def to(self, device: torch.device) -> "ModalityBatch":
        return ModalityBatch(
            values={name: value.to(device, non_blocking=True) for name, value in self.values.items()},
            attend={name: value.to(device, non_blocking=True) for name, value in self.attend.items()},
            labels=self.labels.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            tokens={
                name: Tokens(*(part.to(device, non_blocking=True) for part in one)) for name, one in self.tokens.items()
            },
        )


def hide(batch: ModalityBatch, observed: Mapping[str, Tensor], *, mask_visible: bool) -> ModalityBatch:
    """Remove the frames that `observed[m]` (B, T) bool says are missing; a leading axis of masks broadcasts.

    The values become zero by selection, not by multiplication, so that a NaN under a mask cannot survive; a token
    becomes the unknown one, and the special tokens stay. With `mask_visible` what is missing also leaves `attend`;
    without, the model sees zeros or unknown tokens and is not told (LNLN's protocol).
    """
    values, attend, tokens = {}, {}, {}
    for name, value_BTD in batch.values.items():
        kept_BT = observed[name] & batch.attend[name]
        values[name] = torch.where(kept_BT.unsqueeze(-1), value_BTD, 0.0)
        attend[name] = kept_BT if mask_visible else batch.attend[name]
    for name, one in batch.tokens.items():
        kept_BT = (observed[name] | one.special) & batch.attend[name]
        tokens[name] = one._replace(ids=torch.where(kept_BT, one.ids, one.unknown.unsqueeze(1)))
        attend[name] = kept_BT if mask_visible else batch.attend[name]
    return batch._replace(values=values, attend=attend, tokens=tokens)


def hide_in_turn(batch: ModalityBatch, masks: Sequence[Mapping[str, Tensor]], *, mask_visible: bool) -> ModalityBatch:
    """The samples under each of V masks, one view after the other, (V * B, ...): `hide`, with no copy in between."""

    def in_a_row(part: Tensor, shape_B: torch.Size) -> Tensor:
        return part.expand(len(masks), *shape_B).flatten(0, 1)

    stacked = {name: torch.stack([observed[name] for observed in masks]) for name in masks[0]}
    hidden = hide(batch, stacked, mask_visible=mask_visible)
    return ModalityBatch(
        values={name: in_a_row(value, batch.values[name].shape) for name, value in hidden.values.items()},
        attend={name: in_a_row(mask, batch.attend[name].shape) for name, mask in hidden.attend.items()},
        labels=in_a_row(batch.labels, batch.labels.shape),
        rows=in_a_row(batch.rows, batch.rows.shape),
        tokens={
            name: Tokens(*(in_a_row(part, was.shape) for part, was in zip(one, batch.tokens[name], strict=True)))
            for name, one in hidden.tokens.items()
        },
    )


def join(batches: list[ModalityBatch]) -> ModalityBatch:
    """Concatenate along the sample axis; every batch must have the same modalities, steps and features."""
    first = batches[0]
    return ModalityBatch(
        values={name: torch.cat([batch.values[name] for batch in batches]) for name in first.values},
        attend={name: torch.cat([batch.attend[name] for batch in batches]) for name in first.attend},
        labels=torch.cat([batch.labels for batch in batches]),
        rows=torch.cat([batch.rows for batch in batches]),
        tokens={
            name: Tokens(*(torch.cat(parts) for parts in zip(*(batch.tokens[name] for batch in batches), strict=True)))
            for name in first.tokens
        },
    )
