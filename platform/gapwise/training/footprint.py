"""What a configuration asks of whoever serves it, before it is trained: its size, and the time of an answer."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from gapwise.data.store import Split
from gapwise.models.catalogue import build_model
from gapwise.models.interface import MultimodalModel, State
from gapwise.spec.search import ConstraintsSpec, LatencyLimit
from gapwise.training.job import Job
from gapwise.training.precision import autocast

_WARM_UP = 3


def footprint(job: Job, constraints: ConstraintsSpec) -> dict[str, float]:
    """What the constraints are about, by name, of a model that is not trained yet: it answers as fast as a trained one.

    On the job's device, in its precision.
    """
    model = build_model(job.spec.model, job.shape, job.statistics, job.spec.seed).to(job.device).eval()
    return measured(
        model, model.initial_state(), job.valid, constraints, lambda: autocast(job.spec.precision, job.device)
    )


def measured(
    model: MultimodalModel,
    state: State,
    split: Split,
    constraints: ConstraintsSpec,
    passing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, float]:
    """The same of any model, where it is; `split` is read as the model reads it, and every pass is within `passing`.

    What is over its limit in size is not run for its time as well.
    """
    found: dict[str, float] = {}
    if constraints.parameters is not None:
        found["parameters"] = parameters(model)
        if found["parameters"] > constraints.parameters.max:
            return found
    if constraints.latency_ms is not None:
        found["latency_ms"] = latency_ms(model, state, split, constraints.latency_ms, passing)
    return found


def parameters(model: MultimodalModel) -> int:
    """Of the model; a frozen text encoder is none of it."""
    return sum(one.numel() for one in model.parameters())


def latency_ms(
    model: MultimodalModel,
    state: State,
    split: Split,
    limit: LatencyLimit,
    passing: Callable[[], AbstractContextManager[None]] = nullcontext,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Milliseconds a sample: the median of forward passes over the longest samples of a split.

    Nothing is missing, and copying to the device is not counted. Noisy: what else runs on the device counts too.
    """
    rows = longest(split, limit.batch_size)
    device = next(model.parameters()).device
    batch = split.batch(rows).to(device)
    there = {name: value.to(device) for name, value in state.items()}

    def seconds() -> float:
        started = clock()
        with torch.inference_mode(), passing():
            model.predict(batch, there)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - started

    passes = [seconds() for _ in range(_WARM_UP + limit.repeats)]
    return 1000.0 * statistics.median(passes[_WARM_UP:]) / len(rows)


def longest(split: Split, count: int) -> NDArray[np.int64]:
    """Rows of the samples with the most frames and tokens over all modalities, at most `count`."""
    lengths_N = np.sum(list(split.lengths.values()), axis=0)
    return np.argsort(-lengths_N, kind="stable")[:count]
