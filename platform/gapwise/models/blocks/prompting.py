"""Prompt attention: tokens of a missing modality from those available, and prompts for a present one.

PROMISE as reconstructed here (methods.md section 1, ours). A missing modality u asks with its own prompts P_u and the
scenario prompt P_s, which is a sum over modalities of one of two learnable vectors and so names any subset of them.
Tokens are generated for every modality as if it were missing: its own tokens leave the context, and the scenario prompt
that asks for it calls it missing. Which tokens are used is a selection, never a branch, and those of a present modality
can be compared with the real thing.

Shape legend: B samples, M modalities (U when they are the target), S summary tokens, L prompt tokens of a modality,
C scenario tokens, A = L + C asking tokens, W model width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.models.blocks.attention import Attention, AttentionPool, Drop, FeedForward, Memory, split_axis
from gapwise.models.blocks.bank import Encoded
from gapwise.models.blocks.encoder import learnable_tokens
from gapwise.spec.model import PromiseSpec


class Prompted(NamedTuple):
    """`tokens` (B, M, S, W): real ones with their prompts where available, generated ones elsewhere.
    `generated` (B, M, S, W): every modality as the others tell it. `scenario` (B, C, W): the prompt P_s."""

    tokens: Tensor
    generated: Tensor
    scenario: Tensor


def others(available_BM: Tensor) -> Tensor:
    """(B, U, M) bool: the modalities that may speak for target u."""
    itself_UM = torch.eye(available_BM.shape[1], dtype=torch.bool, device=available_BM.device)
    return available_BM.unsqueeze(1) & ~itself_UM


class PromptAttention(nn.Module):
    """Prompts, their attention to what is available, and the choice between real and generated tokens."""

    prompts: Tensor

    def __init__(self, spec: PromiseSpec, modalities: int) -> None:
        super().__init__()
        width, summary = spec.width, spec.summary_tokens
        if spec.prompt_length:
            self.prompts = learnable_tokens(modalities, spec.prompt_length, width)
        else:  # The ablation: a parameter without elements would trouble optimisers and checkpoints.
            self.register_buffer("prompts", torch.zeros(modalities, 0, width), persistent=False)
        self.scenarios = learnable_tokens(modalities, 2, spec.scenario_length, width)
        self.gate = nn.Parameter(torch.zeros(modalities, 1, 1))
        self.ask_norm = nn.LayerNorm(width)
        self.ask = Attention(width, spec.heads)
        self.forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.pool = AttentionPool(modalities, summary, width)
        self.generated_norm = nn.LayerNorm(width)
        self.adapt_norm = nn.LayerNorm(width)
        self.adapt = Attention(width, spec.heads)

    def forward(self, encoded: Encoded, drop: Drop, own_L: Tensor | None = None) -> Prompted:
        """`own_L` bool says which of padded prompts there are; the others are as if there were none."""
        scenario_BCW = self._scenario(encoded.available)
        generated_BUSW = self._generate(encoded, drop, own_L)
        present_BMSW = self._adapt(encoded.summary, scenario_BCW, drop, own_L)
        chosen_BM11 = encoded.available.unsqueeze(-1).unsqueeze(-1)
        return Prompted(torch.where(chosen_BM11, present_BMSW, generated_BUSW), generated_BUSW, scenario_BCW)

    def _scenario(self, available_BM: Tensor) -> Tensor:
        """(..., C, W) from (..., M): the sum over modalities of their `available` or `missing` vector."""
        missing_MCW, present_MCW = self.scenarios.unbind(1)
        share_BM = available_BM.to(missing_MCW.dtype)
        return missing_MCW.sum(0) + torch.einsum("...m,mcw->...cw", share_BM, present_MCW - missing_MCW)

    def _generate(self, encoded: Encoded, drop: Drop, own_L: Tensor | None) -> Tensor:
        """G_u for every u, (B, U, S, W). Where nothing else is available the prompts alone answer."""
        scenario_BUCW = self._scenario(others(encoded.available))
        own_ULW, common_BUCW = self.ask_norm(self.prompts), self.ask_norm(scenario_BUCW)
        asked_BUAW = beside(own_ULW, common_BUCW, 2)
        query_BHQE = beside(self.ask.ask(own_ULW), self.ask.ask(common_BUCW), 3).transpose(1, 2).flatten(2, 3)
        mask_BQK = self._speakers(encoded, own_L).repeat_interleave(asked_BUAW.shape[2], dim=1)
        told_BQW = self.ask.look(query_BHQE, self._context(encoded), mask_BQK)
        answer_BUAW = asked_BUAW + drop(split_axis(told_BQW, 1, asked_BUAW.shape[1:3]))
        answer_BUAW = answer_BUAW + drop(self.feed_forward(self.forward_norm(answer_BUAW)))
        asking_A = None if own_L is None else padded(own_L, 0, answer_BUAW.shape[2] - len(own_L))
        pooled: Tensor = self.generated_norm(self.pool(answer_BUAW, asking_A))
        return pooled

    def _context(self, encoded: Encoded) -> Memory:
        """Keys and values of [H_1 ; P_1 ; ... ; H_M ; P_M], (B, H, K, E)."""
        parts = [
            torch.cat([real, prompt.expand(real.shape[0], -1, -1, -1, -1)], dim=3).transpose(1, 2).flatten(2, 3)
            for real, prompt in zip(self.ask.remember(encoded.summary), self.ask.remember(self.prompts), strict=True)
        ]
        return Memory(*parts)

    def _speakers(self, encoded: Encoded, own_L: Tensor | None) -> Tensor:
        """(B, U, K) bool: the tokens of the context that target u may look at."""
        mask_BUM, summary = others(encoded.available), encoded.summary.shape[2]
        mask_BUK = mask_BUM.repeat_interleave(summary + self.prompts.shape[1], dim=2)
        return mask_BUK if own_L is None else mask_BUK & padded(own_L, summary, 0).repeat(mask_BUM.shape[2])

    def _adapt(self, summary_BMSW: Tensor, scenario_BCW: Tensor, drop: Drop, own_L: Tensor | None) -> Tensor:
        """H_m + sigmoid(g_m) * attention of H_m to [P_m ; P_s]."""
        own, common = self.adapt.remember(self.prompts), self.adapt.remember(scenario_BCW.unsqueeze(1))
        memory = Memory(beside(own.key, common.key, 3), beside(own.value, common.value, 3))
        known_K = None if own_L is None else padded(own_L, 0, scenario_BCW.shape[1])
        told_BMSW = self.adapt.look(self.adapt.ask(self.adapt_norm(summary_BMSW)), memory, known_K)
        return summary_BMSW + self.gate.sigmoid() * drop(told_BMSW)


def padded(own_L: Tensor, before: int, after: int) -> Tensor:
    """The mask of prompts among tokens that are always there."""
    return functional.pad(own_L, (before, after), value=True)


def beside(own: Tensor, common: Tensor, axis: int) -> Tensor:
    """(B, M, ...) from prompts that differ by modality, (M, ...), and by sample, (B, M or 1, ...), joined along `axis`.

    Both are projected before they are joined, so that prompts are not projected once a sample.
    """
    own_BM = own.expand(common.shape[0], *own.shape)
    return torch.cat([own_BM, common.expand(-1, own.shape[0], *common.shape[2:])], dim=axis)
