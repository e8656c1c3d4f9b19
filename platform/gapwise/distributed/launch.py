"""One Ray Train run from the driver's side: worker function in, last report out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

Worker = Callable[[dict[str, Any]], None]


def run_workers(worker: Worker, config: dict[str, Any], *, workers: int, name: str, storage: Path) -> dict[str, Any]:
    """Run `worker(config)` on every worker of a TorchTrainer and return the metrics that rank 0 reported last.

    `name` is the run's identity in `storage`: a run of the same name is continued by Ray Train, never repeated.
    Raises what the workers raised, without Ray's wrapping, so that a user's error stays a user's error.
    """
    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=_gpus() >= workers),
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


def _gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))


def _cause(error: Exception) -> BaseException:
    failures = getattr(error, "worker_failures", {})
    return next(iter(failures.values()), error)
