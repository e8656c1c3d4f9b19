"""What a study will cost, before it runs: counts that are exact, and a time from a short probe."""

import os
import time
from pathlib import Path
from typing import Any

import torch

from gapwise.data.loading import EpochBatches
from gapwise.data.store import open_dataset, statistics
from gapwise.distributed.placement import Needs, Node, Resources, most_at_once, place
from gapwise.evaluation.objective import settled
from gapwise.models.catalogue import build_model
from gapwise.models.interface import Alone, SeededNoise
from gapwise.spec.search import SearchSpec
from gapwise.training.job import whole_job
from gapwise.tuning.executor import needs_of
from gapwise.tuning.space import check_space, default_values, describe, trial_spec

_PROBE_STEPS = 3
_PROBE = (
    f"{_PROBE_STEPS} training steps of each model's default configuration, just now, on one thread of this machine; "
    "nothing pruned or stopped early"
)
_VALIDATION_SHARE = 1.5
"""Validation of the whole grid each epoch, and the second phase's mask seeds, on top of training steps."""


def plan_study(space: SearchSpec, data: Path | None) -> dict[str, Any]:
    """The keys of `gapwise plan --json`. Raises SpecError where the space does not fit its models or the data."""
    check_space(space)
    if data is not None:
        dataset = open_dataset(data, verify=True)
        train = settled(space.train, dataset.manifest.shape(), dataset.valid.labels)
        space = space.model_copy(update={"train": train})
    trials = {arm: space.trials_of(arm) for arm in space.arm_names()}
    phase = space.second_phase
    again = {arm: min(phase.cap, count) for arm, count in trials.items()}
    second = sum(again.values()) * phase.seeds
    refits = second
    available = Resources((Node(cpus=os.cpu_count() or 1, gpus=torch.cuda.device_count()),))
    devices = available.gpus or available.cpus
    return {
        "question": space.question,
        "trials": trials,
        "seeds": phase.seeds,
        "second_phase": {**phase.model_dump(), "configurations": again},
        "second_phase_runs": second,
        "refit_runs": refits,
        "executor": space.executor,
        "workers": space.workers_per_trial,
        "resources": f"{available} on this machine",
        "trial_resources": trial_resources(available, needs_of(space)),
        "at_once": most_at_once(available, needs_of(space)),
        "pack": space.trials_per_device if available.gpus else 1,
        "estimated_seconds": _seconds(space, trials, again, data) / devices if data else None,
        "estimated_from": _PROBE if data else None,
        "space": {arm: describe(space, arm) for arm in space.arm_names()},
        "resolved": space.model_dump(mode="json", exclude={"train": {"model"}}),
    }


def trial_resources(available: Resources, needs: Needs) -> str:
    """What each trial gets where as many as fit run at once, in words."""
    if not most_at_once(available, needs):
        return f"{needs.workers} workers, which do not fit"
    share = place(available, needs).share
    return f"{needs.workers} x ({share})" if needs.workers > 1 else str(share)


def _seconds(space: SearchSpec, trials: dict[str, int], again: dict[str, int], data: Path) -> float:
    """Device-seconds if nothing is pruned or stops early, from a few steps of each model's default."""
    total = 0.0
    for arm, count in trials.items():
        runs = count + 2 * again[arm] * space.second_phase.seeds
        total += runs * space.train.epochs * _epoch_seconds(space, arm, data)
    return total


def _epoch_seconds(space: SearchSpec, arm: str, data: Path) -> float:
    dataset = open_dataset(data)
    spec = trial_spec(space, arm, default_values(space, arm), seed=space.seed)
    job = whole_job(spec, dataset, statistics(dataset.train))
    model = build_model(spec.model, job.shape, job.statistics, spec.seed)
    batches = EpochBatches(job.train, spec, epoch=0, share=(0, 1))
    noise, state = SeededNoise(torch.Generator().manual_seed(0)), model.initial_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step in range(_PROBE_STEPS + 1):
            if step == 1:
                started = time.perf_counter()
            views = batches[step % len(batches)]
            model(views.incomplete, views.complete, state, noise, Alone()).total.backward()
        return _VALIDATION_SHARE * len(batches) * (time.perf_counter() - started) / _PROBE_STEPS
    finally:
        torch.set_num_threads(threads)
