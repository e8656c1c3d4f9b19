"""Attention written out: matrix products and one masked softmax, so that `torch.func.vmap` can batch it over trials.

A query that may look at nothing gets exactly zero, in value and in gradient, and never NaN: a sample whose modalities
are all missing is an ordinary sample here. Dropout is a function that the caller hands in, because its probability is a
tensor that differs between trials. `nn.MultiheadAttention`, fused attention kernels and `nn.Dropout` are refused: the
first two have no batching rule for masks on every path, the last takes no tensor probability.

Shape legend: B samples (any number of leading axes that broadcast), Q queries, K keys, T tokens, W model width,
H heads, E width of a head.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Drop = Callable[[Tensor], Tensor]
"""Dropout with noise and probability already bound."""

FEW = 8
"""Elements that fill one vector register; softmax over a shorter last axis runs one element at a time on a CPU."""

FEED_FORWARD_FACTOR = 2
"""Hidden width of a feed-forward part, in model widths. Ours: the usual 4 costs a sixth more time a step, and these
datasets are small."""


class Memory(NamedTuple):
    """Projected keys and values, (..., H, K, E) each."""

    key: Tensor
    value: Tensor


def keep_all(value: Tensor) -> Tensor:
    """The dropout of evaluation: none."""
    return value


def floored(scores: Tensor, mask: Tensor) -> Tensor:
    """`scores` with a finite floor where `mask` is false; half the lowest number, so that sums with it stay finite."""
    return torch.where(mask, scores, torch.finfo(scores.dtype).min / 2)


def split_axis(value: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """`Tensor.unflatten`, which torch leaves untyped."""
    parted: Tensor = value.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return parted


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis; over a few elements by way of the axis before it, three times as fast."""
    return scores.softmax(-1) if scores.shape[-1] >= FEW else scores.mT.softmax(-2).mT


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among what `mask` (broadcast to `scores`) allows; all-masked rows are zero."""
    alive = mask.any(-1, keepdim=True)
    return torch.where(alive, floored(scores, mask).softmax(-1), 0.0)


class Attention(nn.Module):
    """Multi-head attention of (..., Q, W) over (..., K, W); leading axes broadcast. No bias on the way out, so a query
    without any key returns zero, not a constant. `width` must be a multiple of `heads`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width, bias=False)

    def ask(self, query_BQW: Tensor) -> Tensor:
        """Projected and scaled queries, (..., H, Q, E)."""
        return self._split(self.query(query_BQW) * (query_BQW.shape[-1] // self.heads) ** -0.5)

    def remember(self, context_BKW: Tensor) -> Memory:
        key_BKW, value_BKW = self.key_value(context_BKW).chunk(2, dim=-1)
        return Memory(self._split(key_BKW), self._split(value_BKW))

    def look(self, query_BHQE: Tensor, memory: Memory, mask: Tensor | None) -> Tensor:
        """(..., Q, W) from projected queries and memory; `mask` is (..., K) or (..., Q, K), true where one may look."""
        scores_BHQK = query_BHQE @ memory.key.mT
        if mask is None:
            return self._merge(softmax(scores_BHQK) @ memory.value)
        mask_BHQK = mask.unsqueeze(-2).unsqueeze(-2) if mask.dim() < scores_BHQK.dim() - 1 else mask.unsqueeze(-3)
        # A small tensor added in place, and the result emptied after the product: selecting among the scores, twice,
        # gives the same, but the scores are the largest tensor of a step, and each pass or copy of them shows.
        scores_BHQK.add_(floored(scores_BHQK.new_zeros(()), mask_BHQK))
        seen_BHQE = softmax(scores_BHQK) @ memory.value
        return self._merge(torch.where(mask_BHQK.any(-1, keepdim=True), seen_BHQE, 0.0))

    def look_by_part(self, query_BHQE: Tensor, memory: Memory, share_BP: Tensor) -> Tensor:
        """(B, Q, W): attention to each of P equal parts of the keys by itself, the results summed by `share_BP`."""
        parts = share_BP.shape[-1]
        weight_BHQPK = softmax(split_axis(query_BHQE @ memory.key.mT, -1, (parts, -1)))
        shared_BHQPK = weight_BHQPK * share_BP[..., None, None, :, None]
        return self._merge(shared_BHQPK.flatten(-2) @ memory.value)

    def forward(self, query_BQW: Tensor, context_BKW: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.look(self.ask(query_BQW), self.remember(context_BKW), mask)

    def _split(self, value_BTW: Tensor) -> Tensor:
        return split_axis(value_BTW, -1, (self.heads, -1)).transpose(-2, -3)

    def _merge(self, value_BHQE: Tensor) -> Tensor:
        merged: Tensor = self.out(value_BHQE.transpose(-2, -3).flatten(-2))
        return merged


class AttentionPool(nn.Module):
    """S learnable queries a group sum up that group's tokens, one head: (B, G, T, W) to (B, G, S, W)."""

    def __init__(self, groups: int, summary: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(groups, summary, width))
        self.out = nn.Linear(width, width)

    def forward(self, tokens_BGTW: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (B, G, T) leaves padded tokens out."""
        scores_BGST = self.queries @ tokens_BGTW.mT * tokens_BGTW.shape[-1] ** -0.5
        weight_BGST = scores_BGST.softmax(-1) if mask is None else masked_softmax(scores_BGST, mask.unsqueeze(-2))
        pooled: Tensor = self.out(weight_BGST @ tokens_BGTW)
        return pooled


class FeedForward(nn.Module):
    """Two linear layers around a GELU, on (..., W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, FEED_FORWARD_FACTOR * width)
        self.fall = nn.Linear(FEED_FORWARD_FACTOR * width, width)

    def forward(self, value: Tensor) -> Tensor:
        fallen: Tensor = self.fall(functional.gelu(self.rise(value)))
        return fallen


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward on (B, T, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, tokens_BTW: Tensor, mask: Tensor | None, drop: Drop, first: int | None = None) -> Tensor:
        """The tokens after this layer; with `first`, only that many from the front are computed and returned."""
        normed_BTW = self.attention_norm(tokens_BTW)
        attended = self.attention(normed_BTW[..., :first, :], normed_BTW, mask)
        tokens = tokens_BTW[..., :first, :] + drop(attended)
        return tokens + drop(self.feed_forward(self.forward_norm(tokens)))


class Transformer(nn.Module):
    """`depth` layers and a last normalisation; only the first tokens are read, so the last layer skips the rest."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BTW: Tensor, mask_BT: Tensor | None, drop: Drop, first: int) -> Tensor:
        """(B, first, W)."""
        last = len(self.layers) - 1
        for depth, layer in enumerate(self.layers):
            tokens_BTW = layer(tokens_BTW, mask_BT, drop, first if depth == last else None)
        normed: Tensor = self.norm(tokens_BTW)
        return normed
