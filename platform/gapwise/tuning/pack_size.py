"""How many trials a worker trains fused: what the space says, or, for `auto`, what a probe of this very machine finds.

The probe trains one epoch of 1, 4, 16, ... copies of a configuration, validation included, and goes on for as long as
a trial's epoch becomes cheaper by a tenth at least and the next size fits the memory by the growth so far. So where
fusing does not pay the answer is 1: the unfused loop. It costs a few epochs; where they take long it stops early.
"""

import logging
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import ray
import torch

from gapwise.errors import SpecError
from gapwise.spec.search import SearchSpec
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.fused.group import FusedGroup
from gapwise.training.fused.grouping import fusion_key, why_alone
from gapwise.training.job import Job
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.memory import default_job
from gapwise.tuning.trial import Place, free_memory, job_of

SIZES = (1, 4, 16, 64)
GAIN = 0.9
"""Of the cost of a trial's epoch: the next size must be cheaper than so much of the one before."""
_MOST_SECONDS = 30.0
"""An epoch that took longer is the last one that is probed."""
_SPARE = 0.8
"""Of the free memory, which others want too."""
_log = logging.getLogger(__name__)
_found: dict[tuple[str, str], int] = {}
"""Of this process, by data and kind of trial: a worker begins one pack after another."""


class Probed(NamedTuple):
    """One epoch of so many trials."""

    trials: int
    seconds: float
    bytes_each: int
    """That the process grew by, for each trial."""


def at_once(place: Place, left: list[Assignment]) -> int:
    """For a worker that begins with `left`."""
    pack = place.space.pack
    if pack != "auto":
        return pack
    job = job_of(place, left[0]) if left else None
    if job is None or why_alone(job.spec) is not None:
        return 1
    key = place.data, fusion_key(job.spec)
    if key not in _found:
        _found[key] = best_size(lambda trials: probe(job, trials), free_bytes(job.device))
        _log.info("pack: %d trials of %s at once", _found[key], job.spec.model.name)
    return _found[key]


def best_size(probed: Callable[[int], Probed], free: int, sizes: Iterable[int] = SIZES) -> int:
    """The largest of the sizes that pays and fits; pure but for what `probed` does."""
    best: Probed | None = None
    for size in sizes:
        if best is not None and not _worth_a_try(best, size, free):
            break
        found = probed(size)
        if best is not None and found.seconds / size > GAIN * best.seconds / best.trials:
            break
        best = found
    assert best is not None, "the first size is always tried"
    return best.trials


def _worth_a_try(best: Probed, size: int, free: int) -> bool:
    return best.seconds < _MOST_SECONDS and best.bytes_each * size < _SPARE * free


def probe(job: Job, trials: int) -> Probed:
    """An epoch of copies with seeds of their own; nothing is kept."""
    _reset_peak(job.device)
    before, group = _peak_bytes(job.device), FusedGroup()
    for copy in range(trials):
        spec = job.spec.model_copy(update={"seed": copy, "epochs": 1_000_000, "patience": 0})
        group.admit(str(copy), replace(job, spec=spec), NoReporter(), NoSink())
    started = time.perf_counter()
    group.step_epoch()
    seconds = time.perf_counter() - started
    grown = max(0, _peak_bytes(job.device) - before)
    del group
    free_memory()
    return Probed(trials, seconds, -(-grown // trials))


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_bytes(device: torch.device) -> int:
    """Of a GPU since the reset, of a process in all its life: growth is what counts."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def free_bytes(device: torch.device) -> int:
    """On the GPU, or that this machine could give to a process without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(found["MemAvailable"].split()[0]) << 10


def check_pack(space: SearchSpec, data: str, at_once: int) -> None:
    """Raises SpecError, saying how many fit, where `at_once` workers with `pack` trials each do not. Ray is connected.

    `auto` is left to the workers.
    """
    if space.pack in (1, "auto"):
        return
    rehearsal = ray.remote(num_cpus=1, max_calls=1)(largest_trial)  # a process of its own, whose memory goes with it
    arm, each, free = ray.get(rehearsal.remote(space, data))
    refuse_overfull(int(space.pack), at_once, arm, each, free)


def largest_trial(space: SearchSpec, data: str) -> tuple[str, int, int]:
    """The model whose default configuration takes most in a pack, the bytes of one trial, and what is free."""
    free, needs = free_bytes(torch.device("cpu")), {}
    for arm in space.arm_names():
        job = default_job(space, arm, data)
        if why_alone(job.spec) is None:
            probe(job, 1)  # the data and whatever else is there once
            needs[arm] = probe(job, 4).bytes_each
    arm = max(needs, key=lambda name: needs[name], default="")
    return arm, needs.get(arm, 0), free


def refuse_overfull(pack: int, workers: int, arm: str, each: int, free: int) -> None:
    fit = int(_SPARE * free / workers // each) if each else pack
    if pack > fit:
        need = f"{workers} workers x {pack} trials need {workers * pack} x {each / 1e6:.0f} MB ({arm})"
        raise SpecError(f"{need}, and {free / 1e9:.1f} GB are free", where="pack", allowed=f"at most {max(1, fit)}")
