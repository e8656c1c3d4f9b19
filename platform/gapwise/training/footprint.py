"""What a configuration asks of whoever serves it, before it is trained: its size, and the time of an answer."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from gapwise.data.store import Split
from gapwise.models.catalogue import build_model
from gapwise.models.interface import MultimodalModel
from gapwise.spec.search import ConstraintsSpec, LatencyLimit
from gapwise.training.job import Job
from gapwise.training.precision import autocast

_WARM_UP = 3


def footprint(job: Job, constraints: ConstraintsSpec) -> dict[str, float]:
    """What the constraints are about, by name; the model's fresh weights answer as fast as trained ones.

    What is over its limit in size is not run for its time as well.
    """
    model = build_model(job.spec.model, job.shape, job.statistics, job.spec.seed).to(job.device).eval()
    found: dict[str, float] = {}
    if constraints.parameters is not None:
        found["parameters"] = parameters(model)
        if found["parameters"] > constraints.parameters.max:
            return found
    if constraints.latency_ms is not None:
        found["latency_ms"] = latency_ms(job, model, constraints.latency_ms)
    return found


def parameters(model: MultimodalModel) -> int:
    """Of the model; a frozen text encoder is none of it."""
    return sum(one.numel() for one in model.parameters())


def latency_ms(
    job: Job, model: MultimodalModel, limit: LatencyLimit, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Milliseconds a sample: the median of forward passes over the longest validation samples, on the job's device.

    Nothing is missing, and copying to the device is not counted. Noisy: what else runs on the device counts too.
    """
    rows = longest(job.valid, limit.batch_size)
    batch = job.valid.batch(rows).to(job.device)
    state = {name: value.to(job.device) for name, value in model.initial_state().items()}

    def seconds() -> float:
        started = clock()
        with torch.inference_mode(), autocast(job.spec.precision, job.device):
            model.predict(batch, state)
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
        return clock() - started

    passes = [seconds() for _ in range(_WARM_UP + limit.repeats)]
    return 1000.0 * statistics.median(passes[_WARM_UP:]) / len(rows)


def longest(split: Split, count: int) -> NDArray[np.int64]:
    """Rows of the samples with the most frames and tokens over all modalities, at most `count`."""
    lengths_N = np.sum(list(split.lengths.values()), axis=0)
    return np.argsort(-lengths_N, kind="stable")[:count]
