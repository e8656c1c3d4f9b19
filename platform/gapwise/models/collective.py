"""`WorkerGroup`: the workers of one `torch.distributed` process group as a `Collective`.

Losses that compare samples need the whole global batch, with gradient, and shards may differ in size. Nothing here
runs under `vmap`: fused trials share one process and use `Alone`.

Shape legend: n_w rows of worker w, L rows of the largest shard, G rows of all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist


class WorkerGroup:
    """Every worker must make the same calls in the same order, as with any collective."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.world = dist.get_world_size(group)
        self.rank = dist.get_rank(group)

    def gather(self, local: Tensor) -> Tensor:
        """(G, ...) from (n_w, ...), in order of rank; differentiable for floating-point tensors."""
        sizes = self._sizes(local)
        if local.is_floating_point():
            gathered: Tensor = _Gather.apply(local, sizes, self)  # type: ignore[no-untyped-call]
            return gathered
        return self.concatenate(local.to(torch.int64), sizes).to(local.dtype)

    def total(self, local: Tensor) -> Tensor:
        """Sum over workers, equal on all of them, without gradient."""
        summed = local.detach().clone()
        dist.all_reduce(summed, group=self.group)
        return summed

    def concatenate(self, local: Tensor, sizes: Sequence[int]) -> Tensor:
        """Pad to the largest shard, gather, cut the padding away; no gradient."""
        padded = local.new_zeros((max(sizes), *local.shape[1:]))
        padded[: local.shape[0]] = local.detach()
        shards = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(shards, padded, group=self.group)
        return torch.cat([shard[:size] for shard, size in zip(shards, sizes, strict=True)])

    def _sizes(self, local: Tensor) -> list[int]:
        own = torch.tensor([local.shape[0]], device=local.device)
        every = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(every, own, group=self.group)
        return [int(size) for size in every]


class _Gather(torch.autograd.Function):
    """Backward: each worker's loss depends on every row, so the gradients of all workers are summed, then cut."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, local: Tensor, sizes: list[int], group: WorkerGroup
    ) -> Tensor:
        start = sum(sizes[: group.rank])
        ctx.own = slice(start, start + sizes[group.rank])  # type: ignore[attr-defined]
        ctx.group = group  # type: ignore[attr-defined]
        return group.concatenate(local, sizes)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        summed = ctx.group.total(grad)  # type: ignore[attr-defined]
        return summed[ctx.own], None, None  # type: ignore[attr-defined]
