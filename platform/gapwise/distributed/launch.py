"""One Ray Train run from the driver's side: worker function in, last report out."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch

from gapwise.distributed.cluster import resources
from gapwise.distributed.placement import Share
from gapwise.distributed.threads import keep_to_own_cpus


class Restart(Exception):
    """A worker asks for all of them to be started again."""


Worker = Callable[[dict[str, Any]], None]


def run_workers(
    worker: Worker, config: dict[str, Any], *, workers: int, name: str, storage: Path, share: Share | None = None
) -> dict[str, Any]:
    """Run `worker(config)` on every worker of a TorchTrainer and return the metrics that rank 0 reported last.

    `name` is the run's identity in `storage`: a run of the same name is continued by Ray Train, never repeated. Without
    a `share` each worker gets a core, and a GPU if there are enough. Raises what the workers raised, without Ray's
    wrapping, so that a user's error stays a user's error.
    """
    share = share or Share(cpus=1, gpus=1.0 if resources().gpus >= workers else 0.0)
    trainer = ray.train.torch.TorchTrainer(
        partial(_with_own_threads, worker),
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=share.gpus > 0,
            resources_per_worker={"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {}),
        ),
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
