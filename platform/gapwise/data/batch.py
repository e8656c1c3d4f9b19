"""`ModalityBatch`: the one value that travels from a dataset through a mask into a model.

Modalities are keyed by name, never by position, so that two or five of them work alike. It is a NamedTuple of
tensors and dicts, hence a pytree, so that `torch.func.vmap` can batch over it.

Shape legend: B samples, T steps of the modality, D features of the modality.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class ModalityBatch(NamedTuple):
    """Samples as a model sees them.

    `values[m]` is (B, T, D) float32, zero wherever nothing was observed. `attend[m]` is (B, T) bool: the frames that
    the model may look at. Frames past a sample's length are never attended; observed-but-hidden frames (protocol
    option `mask_visible: false`) are zero and attended. A modality is available to a sample iff any frame is attended.
    `labels` is (B,): float32 scores, or int64 classes. `rows` is (B,) int64: positions within the split.
    """

    values: dict[str, Tensor]
    attend: dict[str, Tensor]
    labels: Tensor
    rows: Tensor

    @property
    def size(self) -> int:
        return int(self.labels.shape[0])

    def to(self, device: torch.device) -> "ModalityBatch":
        return ModalityBatch(
            values={name: value.to(device, non_blocking=True) for name, value in self.values.items()},
            attend={name: value.to(device, non_blocking=True) for name, value in self.attend.items()},
            labels=self.labels.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
        )


def hide(batch: ModalityBatch, observed: Mapping[str, Tensor], *, mask_visible: bool) -> ModalityBatch:
    """Remove the frames that `observed[m]` (B, T) bool says are missing.

    The values become zero by selection, not by multiplication, so that a NaN under a mask cannot survive.
    With `mask_visible` the frames also leave `attend`; without, the model sees zeros and is not told (LNLN's protocol).
    """
    values, attend = {}, {}
    for name, value_BTD in batch.values.items():
        kept_BT = observed[name] & batch.attend[name]
        values[name] = torch.where(kept_BT.unsqueeze(-1), value_BTD, 0.0)
        attend[name] = kept_BT if mask_visible else batch.attend[name]
    return ModalityBatch(values=values, attend=attend, labels=batch.labels, rows=batch.rows)


def join(batches: list[ModalityBatch]) -> ModalityBatch:
    """Concatenate along the sample axis; every batch must have the same modalities, steps and features."""
    return ModalityBatch(
        values={name: torch.cat([batch.values[name] for batch in batches]) for name in batches[0].values},
        attend={name: torch.cat([batch.attend[name] for batch in batches]) for name in batches[0].attend},
        labels=torch.cat([batch.labels for batch in batches]),
        rows=torch.cat([batch.rows for batch in batches]),
    )
