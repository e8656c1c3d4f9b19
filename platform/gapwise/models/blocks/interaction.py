"""ProgInteract: the other modalities approach the dominant one, step by step (PRLF as reconstructed, methods.md 2).

Each step, every weak modality takes gated cross-attention to the dominant, and the dominant takes back only as much
from each as that modality is reliable, so that an intact modality is not distorted by noisy ones. The steps share
their weights. A wholly missing modality starts from a placeholder and, its reliability being zero, gives nothing back.
Zero steps are the ablation, which owns no weights at all, so that DDP finds no parameter without a gradient.

Shape legend: B samples, M modalities, S summary tokens, N = M * S tokens in a row, W model width, K steps.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.models.blocks.attention import Attention, Drop, split_axis
from gapwise.models.blocks.reliability import Choice


class Interaction(NamedTuple):
    """`dominant` (B, S, W) and `tokens` (B, M, S, W) after the last step, nothing yet in the dominant's own place among
    them. Step by step, `pooled` (B, M, W) after it, and `target` (B, 1, W), the pooled dominant before it.

    A teacher needs no more than the dominant, so the rest is computed on demand.
    """

    dominant: Tensor
    tokens: Tensor
    pooled: list[Tensor]
    target: list[Tensor]

    def settled(self, hard_BM: Tensor) -> Tensor:
        """(B, M, S, W): the tokens, with the dominant in its own place."""
        return torch.lerp(self.tokens, self.dominant.unsqueeze(1), hard_BM.unsqueeze(-1).unsqueeze(-1))

    def distance(self) -> Tensor:
        """(B, M): sum over steps of (k/K)(1 - cosine to the dominant), zero without steps; meaningless for the dominant
        itself. No gradient to the dominant."""
        if not self.pooled:
            return self.tokens.new_zeros(self.tokens.shape[:2])
        cosine_KBM = functional.cosine_similarity(torch.stack(self.pooled), torch.stack(self.target).detach(), dim=-1)
        step_K = torch.arange(1, len(self.pooled) + 1, device=cosine_KBM.device, dtype=cosine_KBM.dtype)
        return ((step_K / len(self.pooled)).view(-1, 1, 1) * (1.0 - cosine_KBM)).sum(0)


class _Roles(NamedTuple):
    """What the choice says, the same in every step: `weak` (B, M, 1, 1) is 0 for the dominant and 1 for the others,
    `share` (B, M) what the dominant takes back of each, `reliabilities` (B, M, 2) each one's own and the dominant's."""

    weak: Tensor
    share: Tensor
    reliabilities: Tensor


class _Walk(NamedTuple):
    """Between two steps: `tokens` (B, M, S, W), the same `normed` and in a row (B, N, W), and `pooled` (B, M, W);
    `dominant` (B, S, W), and pooled as the `leader` (B, 1, W)."""

    tokens: Tensor
    dominant: Tensor
    normed: Tensor
    pooled: Tensor
    leader: Tensor


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
        if not self.steps:
            return Interaction(dominant_BSW, tokens_BMSW, [], [])
        roles, pooled, target = _roles(choice), [], []
        walk = self._at(tokens_BMSW, dominant_BSW)
        for _ in range(self.steps):
            target.append(walk.leader)
            walk = self._step(walk, roles, drop)
            pooled.append(walk.pooled)
        return Interaction(walk.dominant, walk.tokens, pooled, target)

    def _at(self, tokens_BMSW: Tensor, dominant_BSW: Tensor) -> _Walk:
        normed_BNW = self.weak_norm(tokens_BMSW).flatten(1, 2)
        return _Walk(tokens_BMSW, dominant_BSW, normed_BNW, tokens_BMSW.mean(2), dominant_BSW.mean(1, keepdim=True))

    def _step(self, walk: _Walk, roles: _Roles, drop: Drop) -> _Walk:
        normed_BSW = self.dominant_norm(walk.dominant)
        taken_BMSW = split_axis(self.to_weak(walk.normed, normed_BSW), 1, walk.tokens.shape[1:3])
        tokens_BMSW = walk.tokens + roles.weak * self._gate(walk, roles) * drop(taken_BMSW)
        normed_BNW = self.weak_norm(tokens_BMSW).flatten(1, 2)
        offered = self.to_dominant.remember(normed_BNW)
        returned_BSW = self.to_dominant.look_by_part(self.to_dominant.ask(normed_BSW), offered, roles.share)
        dominant_BSW = walk.dominant + drop(returned_BSW)
        return _Walk(tokens_BMSW, dominant_BSW, normed_BNW, tokens_BMSW.mean(2), dominant_BSW.mean(1, keepdim=True))

    def _gate(self, walk: _Walk, roles: _Roles) -> Tensor:
        """(B, M, 1, W) in (0, 1), from both pooled representations and both reliabilities."""
        seen = torch.cat([walk.pooled, walk.leader.expand_as(walk.pooled), roles.reliabilities], dim=-1)
        return torch.sigmoid(self.gate(seen)).unsqueeze(2)


def _roles(choice: Choice) -> _Roles:
    weak_BM = 1.0 - choice.hard
    leading_B1 = (choice.weight * choice.hard).sum(1, keepdim=True)
    reliabilities_BM2 = torch.stack([choice.weight, leading_B1.expand_as(choice.weight)], dim=-1)
    return _Roles(weak_BM.unsqueeze(-1).unsqueeze(-1), weak_BM * choice.weight, reliabilities_BM2)
