"""What a study will cost, before it runs: counts that are exact, and a time from a short probe."""

import os
import time
from pathlib import Path
from typing import Any

import torch

from gapwise.data.loading import EpochBatches
from gapwise.data.store import Dataset, open_dataset, statistics
from gapwise.distributed.placement import Needs, Node, Resources, most_at_once, place
from gapwise.models.catalogue import build_model
from gapwise.models.interface import Alone, SeededNoise
from gapwise.spec.search import SearchSpec
from gapwise.training.footprint import footprint
from gapwise.training.fused.grouping import why_alone
from gapwise.training.job import whole_job
from gapwise.tuning.executor import needs_of
from gapwise.tuning.opening import settled_space
from gapwise.tuning.reading import study_folder
from gapwise.tuning.space import check_space, default_spec, describe
from gapwise.tuning.warm_start import take_over

_PROBE_STEPS = 3
_PROBE = (
    f"{_PROBE_STEPS} training steps of each model's default configuration, just now, on one thread of this machine; "
    "nothing pruned or stopped early"
)
_VALIDATION_SHARE = 1.5
"""Validation of the whole grid each epoch, and the second phase's mask seeds, on top of training steps."""


def plan_study(space: SearchSpec, data: Path | None, studies: Path) -> dict[str, Any]:
    """The keys of `gapwise plan --json`; earlier studies are looked for in `studies`.

    Raises SpecError where the space does not fit its models, the data or the studies that it starts from, StudyError
    for one of those that is unknown.
    """
    check_space(space)
    dataset = None if data is None else open_dataset(data, verify=True)
    if dataset is not None:
        space = settled_space(space, dataset)
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
        "objectives": {name: one.model_dump(mode="json") for name, one in space.objectives.items()},
        "pruned_on": space.pruner.on if space.pruner.name != "none" else None,
        "constraints": _constraints(space, dataset),
        "warm_start": _warm_start(space, dataset, studies),
        "executor": space.executor,
        "workers": space.workers_per_trial,
        "resources": f"{available} on this machine",
        "trial_resources": trial_resources(available, needs_of(space)),
        "at_once": most_at_once(available, needs_of(space)),
        "pack": _pack(space, available),
        "unfused": _unfused(space),
        "estimated_seconds": _seconds(space, trials, again, data) / devices if data else None,
        "estimated_from": _PROBE if data else None,
        "space": {arm: describe(space, arm) for arm in space.arm_names()},
        "resolved": space.model_dump(mode="json", exclude={"train": {"model"}}),
    }


def _pack(space: SearchSpec, available: Resources) -> int | str:
    """Trials on a device at once: fused, or in processes of their own."""
    return space.pack if space.pack != 1 else space.trials_per_device if available.gpus else 1


def _unfused(space: SearchSpec) -> dict[str, str]:
    """Models that a pack does not fuse, by name, with the reason."""
    reasons = {} if space.pack == 1 else {arm: why_alone(default_spec(space, arm)) for arm in space.arm_names()}
    return {arm: reason for arm, reason in reasons.items() if reason}


def trial_resources(available: Resources, needs: Needs) -> str:
    """What each trial gets where as many as fit run at once, in words."""
    if not most_at_once(available, needs):
        return f"{needs.workers} workers, which do not fit"
    share = place(available, needs).share
    return f"{needs.workers} x ({share})" if needs.workers > 1 else str(share)


def _constraints(space: SearchSpec, dataset: Dataset | None) -> dict[str, Any]:
    """Limits by name, and what each arm's default configuration needs, measured just now on this machine's CPU."""
    limits = space.constraints.limits()
    if not limits or dataset is None:
        return {"limits": limits, "defaults": None}
    moments = statistics(dataset.train)
    jobs = {arm: whole_job(default_spec(space, arm), dataset, moments) for arm in space.arm_names()}
    return {"limits": limits, "defaults": {arm: footprint(job, space.constraints) for arm, job in jobs.items()}}


def _warm_start(space: SearchSpec, dataset: Dataset | None, studies: Path) -> dict[str, Any] | None:
    """What is asked of earlier studies, and with a dataset, which settles the metric, what each would give."""
    if space.warm_start is None:
        return None
    for name in space.warm_start.studies:
        study_folder(studies, name)
    taken = None if dataset is None else take_over(space, dataset.manifest.fingerprint, studies)
    sources = None if taken is None else [source._asdict() for source in taken.sources]
    return space.warm_start.model_dump(mode="json") | {"sources": sources}


def _seconds(space: SearchSpec, trials: dict[str, int], again: dict[str, int], data: Path) -> float:
    """Device-seconds if nothing is pruned or stops early, from a few steps of each model's default."""
    total = 0.0
    for arm, count in trials.items():
        runs = count + 2 * again[arm] * space.second_phase.seeds
        total += runs * space.train.epochs * _epoch_seconds(space, arm, data)
    return total


def _epoch_seconds(space: SearchSpec, arm: str, data: Path) -> float:
    dataset = open_dataset(data)
    spec = default_spec(space, arm)
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
