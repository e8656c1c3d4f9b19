"""A whole run in this process, without Ray: dataset and spec in, trained model out."""

from pathlib import Path

from gapwise.data.store import Dataset, statistics
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import DirectorySink, NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.job import Job, Trained, whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import Position, Snapshot

TINY = {"width": 16, "heads": 2, "depth": 1, "summary_tokens": 2}
"""A model of milliseconds a step."""


class Interrupted(Exception):
    """What a `DyingSink` raises."""


class DyingSink(DirectorySink):
    """Saves before one position and dies right after, as a killed worker would."""

    def __init__(self, folder: Path, spec: TrainSpec, last: Position) -> None:
        super().__init__(folder, spec)
        self._last = last

    def wants(self, position: Position) -> bool:
        return position == self._last

    def save(self, snapshot: Snapshot) -> None:
        super().save(snapshot)
        raise Interrupted


def tiny_spec(model: str, **changes: object) -> TrainSpec:
    """Two epochs of a tiny model; `changes` are top-level keys of a training spec."""
    fields = {"model": {"name": model, **TINY}, "epochs": 2, "batch_size": 64, "patience": 0}
    return TrainSpec.model_validate(fields | changes)


def job_on(dataset: Dataset, spec: TrainSpec) -> Job:
    return whole_job(spec, dataset, statistics(dataset.train))


def trained_on(dataset: Dataset, spec: TrainSpec) -> tuple[Job, Trained]:
    job = job_on(dataset, spec)
    return job, fit(job, NoReporter(), NoSink())
