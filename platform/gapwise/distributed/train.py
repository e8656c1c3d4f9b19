"""One training run through Ray Train, from the driver's side and from the worker's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gapwise.data.loading import steps_per_epoch
from gapwise.data.store import Dataset, open_dataset, statistics
from gapwise.distributed.launch import run_workers
from gapwise.distributed.progress import append_line, tail
from gapwise.errors import CheckpointError, SpecError
from gapwise.evaluation.objective import refuse_foreign_metric
from gapwise.models.reading import read_shape
from gapwise.models.saved import ModelFolder, load_model_folder, save_model
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import DirectorySink, trained_model
from gapwise.training.decision import SharedDecision
from gapwise.training.job import whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport

MODEL, PROGRESS, _STORAGE = "model", "progress.jsonl", "ray"


def train_run(
    spec: TrainSpec, data: Path, folder: Path, *, workers: int, each_epoch: Callable[[dict[str, Any]], None]
) -> ModelFolder:
    """Train in `folder`, continuing from its snapshot where it has one, and return the kept model.

    Ray is connected. Raises CheckpointError for a folder that another spec trained in, SpecError for more workers than
    samples, a metric that the dataset's task does not have, or a text encoder that is not there, DataError for one that
    does not fit the dataset's token ids.
    """
    dataset = open_dataset(data)
    refuse_foreign_metric(spec.objective, read_shape(spec.model, dataset))
    _refuse_empty_shares(spec, dataset, workers)
    _claim(folder, spec)
    attempts = len(list((folder / _STORAGE).glob("attempt-*")))
    with tail(folder / PROGRESS, each_epoch):
        run_workers(
            train_worker,
            {"spec": spec, "data": str(data), "folder": str(folder)},
            workers=workers,
            name=f"attempt-{attempts + 1}",
            storage=folder / _STORAGE,
        )
    return load_model_folder(folder / MODEL)


def _refuse_empty_shares(spec: TrainSpec, dataset: Dataset, workers: int) -> None:
    smallest_batch = len(dataset.train) // steps_per_epoch(len(dataset.train), spec.batch_size)
    most = min(smallest_batch, len(dataset.valid))
    if workers > most:
        raise SpecError(f"{workers} workers leave one without samples", where="--workers", allowed=f"at most {most}")


def _claim(folder: Path, spec: TrainSpec) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "spec.json"
    if not file.exists():
        file.write_text(spec.model_dump_json(indent=1))
    elif TrainSpec.model_validate_json(file.read_text()) != spec:
        raise CheckpointError("this run was started with another spec", where=str(folder), allowed=str(file))


class ProgressFile:
    """A reporter that writes epochs where the driver follows them; it never stops a run."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def report(self, epoch: EpochReport) -> bool:
        append_line(self._file, epoch._asdict())
        return False


def train_worker(config: dict[str, Any]) -> None:
    """Every Ray Train worker: its share of the job, one snapshot a chosen number of epochs, the model at the end."""
    from gapwise.distributed import worker

    folder = Path(config["folder"])
    dataset = open_dataset(Path(config["data"]))
    job = worker.data_parallel(whole_job(config["spec"], dataset, statistics(dataset.train)))
    sink = DirectorySink(folder, job.spec)
    trained = fit(job, SharedDecision(ProgressFile(folder / PROGRESS), job), sink)
    if job.rank == 0:
        save_model(folder / MODEL, trained_model(job, trained, trained.kept.metrics))
        sink.forget()
    worker.tell_driver({"done": 1})
