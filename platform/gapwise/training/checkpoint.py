"""Snapshots: all that a run needs to continue in the middle of an epoch, in one safetensors file replaced atomically.

The file's header carries the JSON part (position, history, best so far), so there is no moment at which tensors and
position disagree. What a finished run leaves is a model folder instead (`models.saved`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapwise.errors import CheckpointError
from gapwise.evaluation.objective import Curve
from gapwise.models.saved import ModelFolder, flatten, read_tensors, unflatten, write_tensors
from gapwise.spec.train import TrainSpec
from gapwise.training.job import Job, Trained
from gapwise.training.protocols import EpochReport, Position, Progress, Snapshot

FORMAT_VERSION = 1


class DirectorySink:
    """Keeps the latest snapshot of one run in a folder, as often as its spec says; of several workers, rank 0 does."""

    def __init__(self, folder: Path, spec: TrainSpec, rank: int = 0) -> None:
        self._file, self._rank = folder / "resume.safetensors", rank
        self._every_epochs, self._every_steps = spec.checkpoint_every, spec.checkpoint_steps

    def wants(self, position: Position) -> bool:
        if self._rank > 0:
            return False
        if position.batch > 0:
            return self._every_steps > 0 and position.batch % self._every_steps == 0
        return position.epoch > 0 and position.epoch % self._every_epochs == 0

    def save(self, snapshot: Snapshot) -> None:
        if self._rank > 0:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        header = {"format_version": FORMAT_VERSION, "progress": snapshot.progress}
        write_tensors(self._file, flatten(snapshot.tensors), header)

    def load(self) -> Snapshot | None:
        if not self._file.exists():
            return None
        flat, header = read_tensors(self._file)
        if header.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"snapshot format {header.get('format_version')!r}", where=str(self._file), allowed=str(FORMAT_VERSION)
            )
        return Snapshot(unflatten(flat), _progress(header["progress"]))

    def forget(self) -> None:
        """The run is over and its outcome is safe elsewhere."""
        self._file.unlink(missing_ok=True)
        if self._file.parent.is_dir() and not any(self._file.parent.iterdir()):
            self._file.parent.rmdir()


class NoSink:
    """Keeps nothing: for runs that are cheaper to repeat than to resume."""

    def wants(self, position: Position) -> bool:
        del position
        return False

    def save(self, snapshot: Snapshot) -> None:
        del snapshot
        raise AssertionError("NoSink never wants a snapshot")

    def load(self) -> Snapshot | None:
        return None


def _progress(fields: list[Any]) -> Progress:
    position, best_cost, best_epoch, history, seconds = fields
    return Progress(Position(*position), best_cost, best_epoch, [EpochReport(*one) for one in history], seconds)


def trained_model(job: Job, trained: Trained, curves: dict[str, Curve]) -> ModelFolder:
    """What a finished run leaves behind; `curves` are the kept weights' on validation."""
    return ModelFolder(
        spec=job.spec,
        shape=job.shape,
        statistics=job.statistics,
        fingerprints=job.fingerprints,
        validation=curves,
        trained={
            "epochs": trained.history[-1].epoch,
            "kept_epoch": trained.kept.epoch,
            "seed": job.spec.seed,
            "train_seconds": trained.history[-1].train_seconds,
        },
        weights=dict(trained.model.state_dict()),
        state=trained.state,
        seen=_seen(job),
    )


def _seen(job: Job) -> Tensor:
    keys = [one for split in (job.train, job.valid) for one in (split.keys, split.content_keys)]
    return torch.from_numpy(np.unique(np.concatenate(keys)).view(np.int64))
