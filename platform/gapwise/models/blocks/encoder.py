"""From a modality's frames to S summary tokens: stem, project, shorten, attend (methods.md section 1, ours).

Every model uses the same encoders, so that a comparison between models compares what they do about missing modalities.
A modality without any frame yields finite summaries, which `available` tells the caller to ignore.

Shape legend: B samples, T steps, D features, N tokens after shortening, R frames a token (stride), S summary tokens,
W model width.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.shape import ModalityShape, Moments
from gapwise.models.blocks.attention import Drop, Transformer, split_axis
from gapwise.models.blocks.stem import Stem
from gapwise.spec.model import EncoderSpec

PROMPT_DEVIATION = 0.02
"""Standard deviation of every learnable token at the start (methods.md)."""


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

    def __init__(
        self,
        spec: EncoderSpec,
        shape: ModalityShape,
        moments: Moments,
        principal_PD: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        stride = math.ceil(shape.max_length / spec.max_tokens)
        self.stem = Stem(spec, shape, moments, principal_PD)
        self.project = nn.Linear(self.stem.features, spec.width)
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
        tokens_BNW, attend_BN = self.project(self.stem(value_BTD, attend_BT)), attend_BT
        if self.shorten is not None:
            tokens_BNW, attend_BN = self.shorten(torch.where(attend_BT.unsqueeze(-1), tokens_BNW, 0.0), attend_BT)
        return tokens_BNW + self.positions[: tokens_BNW.shape[1]], attend_BN
