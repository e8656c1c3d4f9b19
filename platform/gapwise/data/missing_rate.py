"""How much of a sample is missing, as far as the sample itself can say: what the router chooses a champion by.

Shape legend: B samples, T steps of the modality.
"""

import torch
from torch import Tensor

from gapwise.data.batch import ModalityBatch
from gapwise.data.shape import DataShape


def missing_rates(batch: ModalityBatch, shape: DataShape) -> Tensor:
    """(B,) the share of missing frames, averaged over modalities; `attend` holds every frame, missing or not.

    So whoever cuts missing frames off the end of a sample makes the rate look lower than it is. A modality without
    frames is missing throughout. Frames of zeros and unknown tokens count as missing, for they cannot be told from what
    a mask leaves; tokens that are never missing ([CLS], [SEP]) do not count.
    """
    shares = []
    for name in shape.modalities:
        real_BT, tokens = batch.attend[name], batch.tokens.get(name)
        if tokens is None:
            gone_BT = ~(batch.values[name] != 0).any(-1)
        else:
            real_BT = real_BT & ~tokens.special
            gone_BT = tokens.ids == tokens.unknown[:, None]
        length_B = real_BT.sum(1)
        gone_B = (gone_BT & real_BT).sum(1)
        shares.append(torch.where(length_B > 0, gone_B / length_B.clamp(min=1), 1.0))
    return torch.stack(shares).mean(0)
