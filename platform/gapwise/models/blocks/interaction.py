"""ProgInteract: the other modalities approach the dominant one, step by step (PRLF as reconstructed, methods.md 2).

Each step, every weak modality takes gated cross-attention to the dominant, and the dominant takes back only as much
from each as that modality is reliable, so that an intact modality is not distorted by noisy ones. The steps share
their weights. A wholly missing modality starts from a placeholder and, its reliability being zero, gives nothing back.
Zero steps are the ablation, which owns no weights at all, so that DDP finds no parameter without a gradient.

Shape legend: B samples, M modalities, S summary tokens, W model width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.models.blocks.attention import Attention, Drop, split_axis
from gapwise.models.blocks.reliability import Choice


class Interaction(NamedTuple):
    """`dominant` (B, S, W) and `tokens` (B, M, S, W) after the last step, the dominant in its own place among them;
    `distance` (B, M): sum over steps of (k/K)(1 - cosine to the dominant), meaningless for the dominant itself."""

    dominant: Tensor
    tokens: Tensor
    distance: Tensor


class ProgInteract(nn.Module):
    """K steps with shared weights."""

    def __init__(self, width: int, heads: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        if not steps:
            return
        self.weak_norm = nn.LayerNorm(width)
        self.dominant_norm = nn.LayerNorm(width)
        self.to_weak = Attention(width, heads)
        self.to_dominant = Attention(width, heads)
        self.gate = nn.Linear(2 * width + 2, width)

    def forward(self, tokens_BMSW: Tensor, choice: Choice, drop: Drop) -> Interaction:
        dominant_BSW = torch.einsum("bm,bmsw->bsw", choice.dominant, tokens_BMSW).to(tokens_BMSW.dtype)
        distance_BM = torch.zeros_like(choice.hard)
        for step in range(1, self.steps + 1):
            target_B1W = dominant_BSW.mean(1, keepdim=True).detach()
            tokens_BMSW, dominant_BSW = self._step(tokens_BMSW, dominant_BSW, choice, drop)
            cosine_BM = functional.cosine_similarity(tokens_BMSW.mean(2), target_B1W, dim=-1)
            distance_BM = distance_BM + (step / self.steps) * (1.0 - cosine_BM)
        leads_BM11 = choice.hard.unsqueeze(-1).unsqueeze(-1)
        return Interaction(dominant_BSW, torch.lerp(tokens_BMSW, dominant_BSW.unsqueeze(1), leads_BM11), distance_BM)

    def _step(self, tokens_BMSW: Tensor, dominant_BSW: Tensor, choice: Choice, drop: Drop) -> tuple[Tensor, Tensor]:
        weak_BM = 1.0 - choice.hard
        normed_BSW = self.dominant_norm(dominant_BSW)
        asked_BNW = self.weak_norm(tokens_BMSW).flatten(1, 2)
        taken_BMSW = split_axis(self.to_weak(asked_BNW, normed_BSW), 1, tokens_BMSW.shape[1:3])
        share_BM1W = weak_BM.unsqueeze(-1).unsqueeze(-1) * self._gate(tokens_BMSW, dominant_BSW, choice)
        tokens_BMSW = tokens_BMSW + share_BM1W * drop(taken_BMSW)
        offered = self.to_dominant.remember(self.weak_norm(tokens_BMSW).flatten(1, 2))
        asked_BHSE = self.to_dominant.ask(normed_BSW)
        returned_BSW = self.to_dominant.look_by_part(asked_BHSE, offered, weak_BM * choice.weight)
        return tokens_BMSW, dominant_BSW + drop(returned_BSW)

    def _gate(self, tokens_BMSW: Tensor, dominant_BSW: Tensor, choice: Choice) -> Tensor:
        """(B, M, 1, W) in (0, 1), from both pooled representations and both reliabilities."""
        weak_BMW = tokens_BMSW.mean(2)
        leader_BMW = dominant_BSW.mean(1, keepdim=True).expand_as(weak_BMW)
        weight_BM1 = choice.weight.unsqueeze(-1)
        leading_BM1 = (choice.weight * choice.hard).sum(1, keepdim=True).unsqueeze(-1).expand_as(weight_BM1)
        seen = torch.cat([weak_BMW, leader_BMW, weight_BM1, leading_BM1], dim=-1)
        return torch.sigmoid(self.gate(seen)).unsqueeze(2)
