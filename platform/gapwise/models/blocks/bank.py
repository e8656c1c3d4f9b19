"""Every modality's encoder, and their summaries side by side: how all models see a batch.

Refuses, from shapes alone, a batch with other modalities, other features, or longer samples than the model was built
for. Availability is decided here: a modality is available to a sample iff a frame of it is attended; where it is token
ids, a token that is content.

Shape legend: B samples, T steps, D features, M modalities, S summary tokens, L prompt tokens, W model width.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapwise.data.batch import ModalityBatch
from gapwise.data.shape import ModalityShape, Statistics
from gapwise.errors import DataError
from gapwise.models.blocks.attention import Drop
from gapwise.models.blocks.frames import FrameEncoder, frame_encoder
from gapwise.models.blocks.text import TextEncoder
from gapwise.spec.model import EncoderSpec


class Encoded(NamedTuple):
    """`summary` is (B, M, S, W), modalities in the order of sorted names; `available` is (B, M) bool; `share` (B, M) is
    how many frames may be looked at, over the longest sample's number; 0 where a modality is not available."""

    summary: Tensor
    available: Tensor
    share: Tensor


class EncoderBank(nn.Module):
    """One encoder a modality, in the order of sorted names. `prompts` is the length of a model's own prompts a
    modality, None for a model without; a prompted text encoder takes them in.

    Raises DataError for a batch that the encoders were not built for.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        shapes: Mapping[str, ModalityShape],
        statistics: Statistics,
        prompts: int | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(sorted(shapes))
        self.shapes = {name: shapes[name] for name in self.names}
        # The prefix keeps a modality called "type" or "keys" from meeting an attribute of ModuleDict.
        self.encoders = nn.ModuleDict(
            {f"of_{name}": _encoder(spec, name, shapes[name], statistics, prompts) for name in self.names}
        )

    def forward(self, batch: ModalityBatch, drop: Drop, prompts_MLW: Tensor | None = None) -> Encoded:
        self.refuse_foreign(batch)
        summaries, available = [], []
        for position, name in enumerate(self.names):
            encoder, attend_BT = self.encoders[f"of_{name}"], batch.attend[name]
            if name in batch.tokens:
                own_LW = None if prompts_MLW is None else prompts_MLW[position]
                summaries.append(encoder(batch.tokens[name], attend_BT, drop, own_LW))
                available.append((attend_BT & ~batch.tokens[name].special).any(dim=1))
            else:
                summaries.append(encoder(batch.values[name], attend_BT, drop))
                available.append(attend_BT.any(dim=1))
        summary_BMSW, available_BM = torch.stack(summaries, dim=1), torch.stack(available, dim=1)
        return Encoded(summary_BMSW, available_BM, self._share(batch, available_BM).to(summary_BMSW.dtype))

    def _share(self, batch: ModalityBatch, available_BM: Tensor) -> Tensor:
        shares = [batch.attend[name].sum(1) / self.shapes[name].max_length for name in self.names]
        return torch.where(available_BM, torch.stack(shares, dim=1), 0.0)

    def refuse_foreign(self, batch: ModalityBatch) -> None:
        given = sorted([*batch.values, *batch.tokens])
        if tuple(given) != self.names:
            raise DataError(f"batch has modalities {given}", allowed=self.names)
        for name, shape in self.shapes.items():
            if (shape.tokens is not None) != (name in batch.tokens):
                kinds = ("frames", "token ids") if shape.tokens is not None else ("token ids", "frames")
                raise DataError(f"batch has {kinds[0]}", where=name, allowed=kinds[1])
            steps = batch.attend[name].shape[1]
            dim = shape.dim if name in batch.tokens else batch.values[name].shape[-1]
            if dim != shape.dim:
                raise DataError(f"batch has {dim} features a frame", where=name, allowed=str(shape.dim))
            if steps > shape.max_length:
                raise DataError(f"batch has {steps} frames a sample", where=name, allowed=f"1 to {shape.max_length}")


def _encoder(
    spec: EncoderSpec, name: str, shape: ModalityShape, statistics: Statistics, prompts: int | None
) -> FrameEncoder | TextEncoder:
    if spec.text is None or name != spec.text.modality:
        return frame_encoder(spec, shape, statistics.modalities[name], statistics.principal.get(name))
    return TextEncoder(spec, spec.text, shape, prompts)
