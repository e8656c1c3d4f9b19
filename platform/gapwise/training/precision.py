"""Mixed precision: bf16 where a GPU has it, and only where it was not ruled out."""

from contextlib import AbstractContextManager
from typing import Literal

import torch


def autocast(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> AbstractContextManager[None]:
    """The context a forward pass runs in. bf16 needs no loss scaling, so there is none."""
    by_itself = wanted == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted == "bf16" or by_itself)
