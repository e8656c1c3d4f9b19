"""One Ray Train run from the driver's side: worker function in, last report out.

What a worker trains is kept in snapshots of our own, so a run whose worker or node died is simply started again.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
import ray.train.torch
import torch

from gapwise.distributed.cluster import resources
from gapwise.distributed.placement import Share
from gapwise.distributed.threads import keep_to_own_cpus

_log = logging.getLogger(__name__)

_LOSSES = 3
"""How often a run that lost a worker goes on by itself; after that a person looks at it, and continues it."""
_SECONDS_BETWEEN_SIZES = 30.0
"""How often Ray Train considers another number of workers, where it may choose: each change starts all of them again,
from the last snapshot."""
_COLLECTIVES = ("gloo", "NCCL")
"""In the words of an error whose type says nothing."""


class Restart(Exception):
    """A worker asks for all of them to be started again."""


Worker = Callable[[dict[str, Any]], None]
Count = int | tuple[int, int]
"""How many workers; of two numbers, the least and the most: as many as there is room for, now and later."""


def least(workers: Count) -> int:
    return workers if isinstance(workers, int) else workers[0]


def most(workers: Count) -> int:
    return workers if isinstance(workers, int) else workers[1]


def run_through_losses(worker: Worker, config: dict[str, Any], *, workers: Count, storage: Path) -> dict[str, Any]:
    """`run_workers`, again when a worker or its node died, or left because its node is about to go.

    `worker` must go on from what it kept. Raises what `run_workers` raises, a loss after the last of them included.
    """
    losses = 0
    while True:
        try:
            return run_workers(worker, config, workers=workers, name=next_attempt(storage), storage=storage)
        except Restart as left:
            _log.warning("%s; going on from the last checkpoint", left)
        except Exception as error:
            losses += 1
            if losses > _LOSSES or not lost_a_worker(error):
                raise
            _log.warning("a worker was lost (%d of %d); going on from the last checkpoint", losses, _LOSSES)


def next_attempt(storage: Path, prefix: str = "attempt") -> str:
    """A name that no run in `storage` has."""
    return f"{prefix}-{len(list(storage.glob(f'{prefix}-*'))) + 1}"


def lost_a_worker(error: BaseException) -> bool:
    """Whether a worker went away, as Ray tells it, or as another one does whose collective failed with it."""
    inner = getattr(error, "health_check_failure", error)
    lost = ray.exceptions.RayActorError | ray.exceptions.NodeDiedError | torch.distributed.DistError
    return isinstance(inner, lost) or any(word in str(error) for word in _COLLECTIVES)


class _Trainer(ray.train.torch.TorchTrainer):
    """Without the process that Ray Train keeps for Ray Data in every run: nothing here reads through it.

    Ray Train has no public way; where it renames what is overridden, the process is merely there again.
    """

    def _create_default_callbacks(self) -> list[Any]:
        every = super()._create_default_callbacks()  # type: ignore[misc]
        return [one for one in every if type(one).__name__ != "DatasetsCallback"]


def run_workers(
    worker: Worker, config: dict[str, Any], *, workers: Count, name: str, storage: Path, share: Share | None = None
) -> dict[str, Any]:
    """Run `worker(config)` on every worker of a TorchTrainer and return the metrics that rank 0 reported last.

    `name` is the run's identity in `storage`: a run of the same name is continued by Ray Train, never repeated. Without
    a `share` each worker gets a core, and a GPU if there are enough. Raises what the workers raised, without Ray's
    wrapping, so that a user's error stays a user's error.
    """
    share = share or Share(cpus=1, gpus=1.0 if resources().gpus >= least(workers) else 0.0)
    scaling: dict[str, Any] = {
        "num_workers": workers,
        "use_gpu": share.gpus > 0,
        "resources_per_worker": {"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {}),
        "elastic_resize_monitor_interval_s": _SECONDS_BETWEEN_SIZES,
    }
    trainer = _Trainer(
        partial(_with_own_threads, worker),
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(**scaling),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=0),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error
    return dict(result.metrics or {})


def _with_own_threads(worker: Worker, config: dict[str, Any]) -> None:
    keep_to_own_cpus()
    worker(config)


def _cause(error: Exception) -> BaseException:
    """The first worker's, but for what the others say once one has gone."""
    failures = list(getattr(error, "worker_failures", {}).values())
    return next((one for one in failures if isinstance(one, Restart)), failures[0] if failures else error)
