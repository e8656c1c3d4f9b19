"""Inside a Ray Train worker: this worker's share of a job, and its last word to the driver."""

from dataclasses import replace
from typing import Any

import ray.train
import ray.train.torch
from torch import nn

from gapwise.models.collective import WorkerGroup
from gapwise.models.interface import MultimodalModel
from gapwise.training.job import Job


def rank() -> int:
    return int(ray.train.get_context().get_world_rank())


def world() -> int:
    return int(ray.train.get_context().get_world_size())


def tell_driver(metrics: dict[str, Any]) -> None:
    """Every worker must call it; the driver reads rank 0's."""
    ray.train.report(metrics)


def on_device(job: Job) -> Job:
    """The job on this worker's device, by itself."""
    return replace(job, device=ray.train.torch.get_device())


def data_parallel(job: Job) -> Job:
    """The job as this worker's share of a global batch; of one worker, the whole."""
    if world() == 1:
        return on_device(job)
    return replace(on_device(job), rank=rank(), workers=WorkerGroup(), wrap=_in_ddp)


def _in_ddp(model: MultimodalModel) -> nn.Module:
    """DDP averages gradients. An ablated term leaves parameters without gradient, so unused ones are looked for."""
    settings = {"broadcast_buffers": False, "find_unused_parameters": True}
    wrapped: nn.Module = ray.train.torch.prepare_model(model, parallel_strategy_kwargs=settings)
    return wrapped
