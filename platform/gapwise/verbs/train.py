"""One training run through Ray Train, tracked in MLflow, for whoever asks: `gapwise train` or `gapwise.train`."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.data.store import open_dataset
from gapwise.distributed.cluster import connected
from gapwise.distributed.launch import Count, least, most
from gapwise.distributed.lock import DriverLock
from gapwise.distributed.placement import Resources
from gapwise.distributed.progress import told
from gapwise.distributed.shared import refuse_unshared
from gapwise.distributed.train import MODEL, PROGRESS, check_train, train_run
from gapwise.errors import SpecError
from gapwise.evaluation.objective import settled
from gapwise.models.saved import ModelFolder
from gapwise.spec.home import home
from gapwise.spec.train import TrainSpec
from gapwise.tracking.client import connect
from gapwise.tracking.train_run import TrainRun


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainWish:
    """A training run as somebody asked for it."""

    spec: TrainSpec
    data: Path
    workers: Count
    resume: str | None
    """Id of the run to continue."""
    address: str | None


Epoch = dict[str, Any]
"""An `EpochReport` as a dict."""


class TrainBegun(NamedTuple):
    """A run that exists from now on."""

    run_id: str
    spec: TrainSpec
    """Settled: its objective has a metric."""
    dataset: str
    earlier: list[Epoch]
    """Epochs from before a resume."""


class TrainDone(NamedTuple):
    """A run that has ended."""

    run_id: str
    folder: Path
    """Of the kept model."""
    model: ModelFolder
    wall_seconds: float
    samples_per_second: float | None
    """Of the last epoch; None where no epoch is on record."""


def train(wish: TrainWish, begun: Callable[[TrainBegun], Callable[[Epoch], object]]) -> TrainDone:
    """Check all that can be refused, connect, and train; `begun` says who is to hear of every epoch.

    Raises what `check_train` does, SpecError for workers that do not fit, and `training.job.Diverged` where the loss
    is no number any more; the run is then marked as failed.
    """
    dataset = open_dataset(wish.data, verify=True)
    spec = settled(wish.spec, dataset.manifest.shape(), dataset.valid.labels)
    started = time.perf_counter()
    earlier = home().runs / wish.resume if wish.resume else None
    check_train(spec, dataset, workers=most(wish.workers), resume=earlier)
    tracking = connect(home())
    with connected(wish.address) as found, ExitStack() as held:
        _refuse(found, least(wish.workers), wish.data)
        if earlier is not None:
            held.enter_context(DriverLock(earlier))
        # All that can be refused has been: from here on the run exists.
        run = held.enter_context(TrainRun.begin(tracking, home(), spec, dataset, resume=wish.resume))
        place = home().runs / run.run_id
        if earlier is None:
            held.enter_context(DriverLock(place))
        epochs = told(place / PROGRESS)
        listener = begun(TrainBegun(run.run_id, spec, dataset.manifest.name, list(epochs)))

        def each_epoch(epoch: Epoch) -> None:
            epochs.append(epoch)
            run.log_epoch(epoch)
            listener(epoch)

        model = train_run(spec, wish.data, place, workers=wish.workers, each_epoch=each_epoch)
        run.log_model(model, place / MODEL)
    seconds, speed = time.perf_counter() - started, epochs[-1]["samples_per_second"] if epochs else None
    return TrainDone(run.run_id, place / MODEL, model, seconds, speed)


def _refuse(found: Resources, workers: int, data: Path) -> None:
    """What this cluster cannot do."""
    if workers > max(found.cpus, found.gpus):
        raise SpecError(f"{workers} workers do not fit", where="--workers", allowed=f"at most {found.cpus} here")
    refuse_unshared(home().root, [data])
