"""From a modality's frames to S summary tokens: standardise, project, shorten, attend (methods.md section 1, ours).

Every model uses the same encoders, so that a comparison between models compares what they do about missing modalities.
Frames under a mask are replaced by zero at the entrance, by selection, so that not even a NaN under a mask can reach
the output. A modality without any frame yields finite summaries, which `available` tells the caller to ignore.
Refuses a batch with other modalities, other features, or longer samples than the model was built for.

Shape legend: B samples, T steps, D features, N tokens after shortening, R frames a token (stride), M modalities,
S summary tokens, W model width.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.batch import ModalityBatch
from gapwise.data.shape import ModalityShape, Moments
from gapwise.errors import DataError
from gapwise.models.blocks.attention import Drop, Transformer, split_axis
from gapwise.spec.model import EncoderSpec

PROMPT_DEVIATION = 0.02
"""Standard deviation of every learnable token at the start (methods.md)."""


class Encoded(NamedTuple):
    """`summary` is (B, M, S, W), modalities in the order of sorted names; `available` is (B, M) bool."""

    summary: Tensor
    available: Tensor


def learnable_tokens(*shape: int) -> nn.Parameter:
    """Tokens drawn from N(0, 0.02^2)."""
    return nn.Parameter(torch.randn(shape) * PROMPT_DEVIATION)


class MaskedShortening(nn.Module):
    """Non-overlapping convolution over R frames that ignores the unobserved ones and makes up for their number.

    Partial convolution (Liu et al. 2018), over time: what is observed is rescaled by R / observed, so that a token's
    size does not tell how much of it was missing.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.mix = nn.Linear(stride * width, width)

    def forward(self, frames_BTW: Tensor, attend_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, W) tokens, and (B, N) whether any frame of a token was observed; `frames` zero where not attended."""
        lacking = -frames_BTW.shape[1] % self.stride
        frames_BNX = split_axis(functional.pad(frames_BTW, (0, 0, 0, lacking)), 1, (-1, self.stride)).flatten(2)
        observed_BN = split_axis(functional.pad(attend_BT, (0, lacking)), 1, (-1, self.stride)).sum(-1)
        share_BN = observed_BN.to(frames_BTW.dtype).clamp_min(1.0) / self.stride
        return self.mix(frames_BNX / share_BN.unsqueeze(-1)), observed_BN > 0


class ModalityEncoder(nn.Module):
    """One modality's encoder. Sequences may be shorter than `shape.max_length`, never longer."""

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: EncoderSpec, shape: ModalityShape, moments: Moments) -> None:
        super().__init__()
        stride = math.ceil(shape.max_length / spec.max_tokens)
        # Not persistent: the checkpoint keeps the statistics themselves, and one truth is enough.
        scale_D = 1.0 / torch.tensor(moments.deviation)
        self.register_buffer("scale", scale_D, persistent=False)
        self.register_buffer("shift", -torch.tensor(moments.mean) * scale_D, persistent=False)
        self.project = nn.Linear(shape.dim, spec.width)
        self.shorten = MaskedShortening(spec.width, stride) if stride > 1 else None
        self.positions = learnable_tokens(math.ceil(shape.max_length / stride), spec.width)
        self.queries = learnable_tokens(spec.summary_tokens, spec.width)
        self.transformer = Transformer(spec.width, spec.heads, spec.depth)

    def forward(self, value_BTD: Tensor, attend_BT: Tensor, drop: Drop) -> Tensor:
        """(B, S, W) summary tokens; finite for any `attend_BT`."""
        tokens_BNW, attend_BN = self._tokens(value_BTD, attend_BT)
        batch, summary = value_BTD.shape[0], self.queries.shape[0]
        queries_BSW = self.queries.expand(batch, -1, -1)
        mask = torch.cat([attend_BN.new_ones(batch, summary), attend_BN], dim=1)
        summary_BSW: Tensor = self.transformer(torch.cat([queries_BSW, tokens_BNW], dim=1), mask, drop, summary)
        return summary_BSW

    def _tokens(self, value_BTD: Tensor, attend_BT: Tensor) -> tuple[Tensor, Tensor]:
        attend_BT1 = attend_BT.unsqueeze(-1)
        standard_BTD = torch.where(attend_BT1, torch.addcmul(self.shift, value_BTD, self.scale), 0.0)
        tokens_BNW, attend_BN = self.project(standard_BTD), attend_BT
        if self.shorten is not None:
            tokens_BNW, attend_BN = self.shorten(torch.where(attend_BT1, tokens_BNW, 0.0), attend_BT)
        return tokens_BNW + self.positions[: tokens_BNW.shape[1]], attend_BN


class EncoderBank(nn.Module):
    """One encoder a modality, and their summaries side by side in the order of sorted names.

    Raises DataError, from shapes alone, for a batch that the encoders were not built for.
    """

    def __init__(self, spec: EncoderSpec, shapes: Mapping[str, ModalityShape], moments: Mapping[str, Moments]) -> None:
        super().__init__()
        self.names = tuple(sorted(shapes))
        self.shapes = {name: shapes[name] for name in self.names}
        # The prefix keeps a modality called "type" or "keys" from meeting an attribute of ModuleDict.
        self.encoders = nn.ModuleDict(
            {f"of_{name}": ModalityEncoder(spec, shapes[name], moments[name]) for name in self.names}
        )

    def forward(self, batch: ModalityBatch, drop: Drop) -> Encoded:
        self.refuse_foreign(batch)
        summaries = [self.encoders[f"of_{name}"](batch.values[name], batch.attend[name], drop) for name in self.names]
        available = [batch.attend[name].any(dim=1) for name in self.names]
        return Encoded(torch.stack(summaries, dim=1), torch.stack(available, dim=1))

    def refuse_foreign(self, batch: ModalityBatch) -> None:
        if tuple(sorted(batch.values)) != self.names:
            raise DataError(f"batch has modalities {sorted(batch.values)}", allowed=self.names)
        for name, shape in self.shapes.items():
            _, steps, dim = batch.values[name].shape
            if dim != shape.dim:
                raise DataError(f"batch has {dim} features a frame", where=name, allowed=str(shape.dim))
            if steps > shape.max_length:
                raise DataError(f"batch has {steps} frames a sample", where=name, allowed=f"1 to {shape.max_length}")
