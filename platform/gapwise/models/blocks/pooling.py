"""Statistics pooling: a modality as the mean, spread and number of its observed frames, then two layers (ours).

After x-vectors (Snyder et al. 2018), with the number of frames beside the moments, because how much was observed says
how far they can be trusted. It ignores the order of frames and costs a fraction of a Transformer.

Shape legend: B samples, T steps, D features, C pooled features, S summary tokens, W model width.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.shape import ModalityShape, Moments
from gapwise.models.blocks.attention import Drop, split_axis
from gapwise.models.blocks.stem import Stem
from gapwise.spec.model import EncoderSpec

SPREAD_FLOOR = 0.1
"""Added to second moments of standardised features before the logarithm, so that a single frame says little of it."""


class StatisticsEncoder(nn.Module):
    """One modality's encoder; takes and gives what `ModalityEncoder` does."""

    def __init__(
        self, spec: EncoderSpec, shape: ModalityShape, moments: Moments, principal_PD: NDArray[np.float32] | None
    ) -> None:
        super().__init__()
        self.stem = Stem(spec, shape, moments, principal_PD)
        pooled = self.stem.features if self.stem.reduces else spec.width
        self.project = None if self.stem.reduces else nn.Linear(shape.dim, spec.width)
        self.summary = spec.summary_tokens
        self.rise = nn.Linear(2 * pooled + 1, 2 * spec.width)
        self.fall = nn.Linear(2 * spec.width, spec.summary_tokens * spec.width)
        self.norm = nn.LayerNorm(spec.width)

    def forward(self, value_BTD: Tensor, attend_BT: Tensor, drop: Drop) -> Tensor:
        """(B, S, W) summary tokens; finite for any `attend_BT`."""
        frames_BTC = self.stem(value_BTD, attend_BT)
        if self.project is not None:
            frames_BTC = torch.where(attend_BT.unsqueeze(-1), self.project(frames_BTC), 0.0)
        hidden_BX = drop(functional.gelu(self.rise(pooled(frames_BTC, attend_BT))))
        summary_BSW: Tensor = self.norm(split_axis(self.fall(hidden_BX), -1, (self.summary, -1)))
        return summary_BSW


def pooled(frames_BTC: Tensor, attend_BT: Tensor) -> Tensor:
    """(B, 2C + 1): mean, log second moment, log number of frames that are zero unless attended; zero without any."""
    count_B1 = attend_BT.sum(1, keepdim=True).to(frames_BTC.dtype)
    share_B1 = 1.0 / count_B1.clamp_min(1.0)
    mean_BC = frames_BTC.sum(1) * share_B1
    spread_BC = torch.log(frames_BTC.square().sum(1) * share_B1 + SPREAD_FLOOR)
    return torch.cat([mean_BC, torch.where(count_B1 > 0, spread_BC, 0.0), 0.5 * torch.log1p(count_B1)], dim=-1)
