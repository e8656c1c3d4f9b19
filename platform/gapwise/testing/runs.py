"""A whole run in this process, without Ray: dataset and spec in, trained model out."""

from gapwise.data.store import Dataset, statistics
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import NoSink
from gapwise.training.job import Job, Trained, whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport

TINY = {"width": 16, "heads": 2, "depth": 1, "summary_tokens": 2}
"""A model of milliseconds a step."""


class Deaf:
    """A reporter that never stops a run."""

    def report(self, epoch: EpochReport) -> bool:
        del epoch
        return False


def tiny_spec(model: str, **changes: object) -> TrainSpec:
    """Two epochs of a tiny model; `changes` are top-level keys of a training spec."""
    fields = {"model": {"name": model, **TINY}, "epochs": 2, "batch_size": 64, "patience": 0}
    return TrainSpec.model_validate(fields | changes)


def job_on(dataset: Dataset, spec: TrainSpec) -> Job:
    return whole_job(spec, dataset, statistics(dataset.train))


def trained_on(dataset: Dataset, spec: TrainSpec) -> tuple[Job, Trained]:
    job = job_on(dataset, spec)
    return job, fit(job, Deaf(), NoSink())
