"""Whether trials that share a GPU fit its memory, asked before the first of them starts.

What a trial takes is found by a rehearsal of every model's default configuration, on the GPU itself: a few training
steps and a pass of validation. Configurations with more parameters take more; one that does not fit then is tried once
more with a smaller micro-batch. The arithmetic is tested; the probe has not been run on a GPU yet.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
import ray
import torch
from torch import nn

from gapwise.data.store import opened
from gapwise.errors import SpecError
from gapwise.evaluation.grid import predict_grid
from gapwise.models.catalogue import build_model
from gapwise.models.interface import MultimodalModel
from gapwise.spec.search import SearchSpec
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.job import Job, whole_job
from gapwise.training.loop import fit
from gapwise.tuning.space import default_spec

_STEPS = 3
_VALIDATION_ROWS = 64
_CONTEXT_BYTES = 512 << 20
"""What CUDA takes for every process beside its tensors."""
_SPARE = 0.9
"""Not all of the memory can be used: it comes in pieces."""


def check_shared_memory(space: SearchSpec, data: str) -> None:
    """Raises SpecError, saying how many fit, where `trials_per_device` trials do not. Ray is connected, with GPUs."""
    probe = ray.remote(num_gpus=1, max_calls=1)(probe_gpu)  # A process of its own, whose memory goes with it.
    free, peaks = ray.get(probe.remote(space, data))
    refuse_overfull(space.trials_per_device, free, peaks)


def refuse_overfull(trials: int, free: int, peaks: Mapping[str, int]) -> None:
    """`free` bytes of a GPU; `peaks` are bytes that a trial of each model takes at most, by name."""
    largest = max(peaks, key=lambda arm: peaks[arm])
    fit = int(_SPARE * free // peaks[largest])
    if trials > fit:
        need = f"{trials} trials a GPU need {trials} x {_gb(peaks[largest])} ({largest})"
        allowed = f"at most {fit}" if fit else "no trial fits: set train.micro_batch"
        raise SpecError(f"{need}, and {_gb(free)} are free", where="trials_per_device", allowed=allowed)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def probe_gpu(space: SearchSpec, data: str) -> tuple[int, dict[str, int]]:
    """Free bytes of this process's GPU before it took any, and what each model's default configuration takes."""
    device = torch.device("cuda")
    free = torch.cuda.mem_get_info(device)[0] + _CONTEXT_BYTES
    peaks = {}
    for arm in space.arm_names():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        rehearse(replace(default_job(space, arm, data), device=device))
        peaks[arm] = torch.cuda.max_memory_reserved(device) + _CONTEXT_BYTES
    return free, peaks


def default_job(space: SearchSpec, arm: str, data: str) -> Job:
    """A model's default configuration, for a single worker on the CPU."""
    return whole_job(default_spec(space, arm), *opened(data))


def rehearse(job: Job) -> None:
    """A few training steps, then one pass of validation."""
    with suppress(_Enough):
        fit(replace(job, wrap=_AFewSteps), NoReporter(), NoSink())
    model = build_model(job.spec.model, job.shape, job.statistics, job.spec.seed).to(job.device)
    state = {name: value.to(job.device) for name, value in model.initial_state().items()}
    rows = np.arange(min(_VALIDATION_ROWS, len(job.valid)), dtype=np.int64)
    predict_grid(
        lambda batch: model.predict(batch.to(job.device), state).output,
        job.valid,
        rows,
        job.spec.protocol,
        (0,),
        job.spec.micro_batch,
    )


class _Enough(Exception):
    pass


class _AFewSteps(nn.Module):
    def __init__(self, model: MultimodalModel) -> None:
        super().__init__()
        self.model, self.steps = model, 0

    def forward(self, *views: object) -> object:
        if self.steps == _STEPS:
            raise _Enough
        self.steps += 1
        return self.model(*views)
