"""One training run through Ray Train, from the driver's side and from the worker's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gapwise.data.loading import steps_per_epoch
from gapwise.data.store import Dataset, open_dataset, opened
from gapwise.distributed.launch import Count, run_through_losses
from gapwise.distributed.notice import LeavingSink, Notice
from gapwise.distributed.progress import append_line, tail
from gapwise.errors import CheckpointError, SpecError
from gapwise.evaluation.objective import settled
from gapwise.models.reading import read_shape
from gapwise.models.saved import ModelFolder, load_model_folder, save_model
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import DirectorySink, trained_model
from gapwise.training.decision import SharedDecision
from gapwise.training.job import whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport
from gapwise.training.validation import diagnostic_curves

MODEL, PROGRESS, RUN_FILE, _STORAGE = "model", "progress.jsonl", "run.json", "ray"


def train_run(
    spec: TrainSpec, data: Path, folder: Path, *, workers: Count, each_epoch: Callable[[dict[str, Any]], None]
) -> ModelFolder:
    """Train in `folder`, continuing from its snapshot where it has one, and return the kept model.

    Ray is connected, `check_train` has passed, and the caller holds the folder's lock.
    """
    dataset = open_dataset(data)
    spec = settled(spec, dataset.manifest.shape(), dataset.valid.labels)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).write_text(json.dumps(_identity(spec, dataset)))
    with tail(folder / PROGRESS, each_epoch):
        run_through_losses(
            train_worker,
            {"spec": spec, "data": str(data), "fingerprint": dataset.manifest.fingerprint, "folder": str(folder)},
            workers=workers,
            storage=folder / _STORAGE,
        )
    return load_model_folder(folder / MODEL)


def check_train(spec: TrainSpec, dataset: Dataset, *, workers: int, resume: Path | None) -> None:
    """Refuse, writing nothing, what cannot be trained here; `resume` is the folder of the run to continue.

    Raises SpecError for a metric that the task does not have, more workers than samples or a text encoder that is not
    there, DataError for one that does not fit the dataset's token ids, CheckpointError for a run that is finished,
    unknown here, or was started with another spec or dataset. `workers` is the most there may be.
    """
    spec = settled(spec, dataset.manifest.shape(), dataset.valid.labels)
    read_shape(spec.model, dataset)
    smallest_batch = len(dataset.train) // steps_per_epoch(len(dataset.train), spec.batch_size)
    most = min(smallest_batch, len(dataset.valid))
    if workers > most:
        raise SpecError(f"{workers} workers leave one without samples", where="--workers", allowed=f"at most {most}")
    if resume is not None:
        _refuse_foreign_run(spec, dataset, resume)


def _refuse_foreign_run(spec: TrainSpec, dataset: Dataset, folder: Path) -> None:
    try:
        recorded = json.loads((folder / RUN_FILE).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError("there is no run to continue", where=str(folder)) from error
    different = [key for key, value in _identity(spec, dataset).items() if recorded.get(key) != value]
    if different:
        raise CheckpointError(f"this run was started with another {' and '.join(different)}", where=str(folder))
    if (folder / MODEL).exists():
        raise CheckpointError("this run is finished; there is nothing to continue", where=str(folder))


def _identity(spec: TrainSpec, dataset: Dataset) -> dict[str, Any]:
    return {"spec": spec.model_dump(mode="json"), "dataset": dataset.manifest.fingerprint}


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
    job = worker.data_parallel(whole_job(config["spec"], *opened(config["data"], config["fingerprint"])))
    sink = DirectorySink(folder, job.spec, job.rank)
    trained = fit(job, SharedDecision(ProgressFile(folder / PROGRESS), job), LeavingSink(sink, job, Notice()))
    if job.rank == 0:
        kept = trained_model(job, trained, trained.kept.metrics)
        save_model(folder / MODEL, kept._replace(diagnostics=diagnostic_curves(job, trained)))
        sink.forget()
    worker.tell_driver({"done": 1})
