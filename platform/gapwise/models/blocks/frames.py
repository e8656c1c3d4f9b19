"""Which encoder reads a modality's frames."""

import numpy as np
from numpy.typing import NDArray

from gapwise.data.shape import ModalityShape, Moments
from gapwise.models.blocks.encoder import ModalityEncoder
from gapwise.models.blocks.pooling import StatisticsEncoder
from gapwise.spec.model import EncoderSpec

FrameEncoder = ModalityEncoder | StatisticsEncoder


def frame_encoder(
    spec: EncoderSpec, shape: ModalityShape, moments: Moments, principal_PD: NDArray[np.float32] | None = None
) -> FrameEncoder:
    """The spec's `encoder`; both take (values, attend, drop) and give (B, S, W) summary tokens."""
    kind = StatisticsEncoder if spec.encoder == "statistics" else ModalityEncoder
    return kind(spec, shape, moments, principal_PD)
