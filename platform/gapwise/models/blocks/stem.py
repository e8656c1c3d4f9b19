"""The entrance of every encoder: what is not attended goes, what stays is standardised, and may be brought down.

With `components`, frames are projected on the principal directions of the training samples' means (found in
`data.principal`), which stay as they were found: on few samples a learned projection of many features learns the
samples by heart. Without, frames keep all their features.

Frames under a mask are replaced by zero, by selection, so that not even a NaN under a mask can reach the output.

Shape legend: B samples, T steps, D features, C features that leave the stem, P principal directions known.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.shape import ModalityShape, Moments
from gapwise.spec.model import EncoderSpec


class Stem(nn.Module):
    """Frames, (B, T, D) to (B, T, C); zero where not attended."""

    scale: Tensor
    shift: Tensor
    directions: Tensor

    def __init__(
        self, spec: EncoderSpec, shape: ModalityShape, moments: Moments, principal_PD: NDArray[np.float32] | None
    ) -> None:
        super().__init__()
        # Not persistent: the checkpoint keeps the statistics themselves, and one truth is enough.
        scale_D = 1.0 / torch.tensor(moments.deviation)
        self.register_buffer("scale", scale_D, persistent=False)
        self.register_buffer("shift", -torch.tensor(moments.mean) * scale_D, persistent=False)
        self.reduces = spec.components > 0
        self.features = min(spec.components, shape.dim) if self.reduces else shape.dim
        if self.reduces:
            self.register_buffer("directions", _first(principal_PD, self.features, shape.dim))

    def forward(self, value_BTD: Tensor, attend_BT: Tensor) -> Tensor:
        attend_BT1 = attend_BT.unsqueeze(-1)
        if not self.reduces:
            return torch.where(attend_BT1, torch.addcmul(self.shift, value_BTD, self.scale), 0.0)
        frames_BTD = torch.where(attend_BT1, value_BTD, 0.0)
        frames_BTC = functional.linear(frames_BTD, self.directions * self.scale, self.directions @ self.shift)
        return torch.where(attend_BT1, frames_BTC, 0.0)


def _first(principal_PD: NDArray[np.float32] | None, number: int, features: int) -> Tensor:
    """The first directions; zeros where none are known, because the weights of a trained model bring their own."""
    directions_CD = torch.zeros(number, features)
    if principal_PD is not None:
        directions_CD[: len(principal_PD)] = torch.tensor(principal_PD[:number])
    return directions_CD
