"""Many training runs inside one Ray Train run, whose start-up (10 s and more) is paid once.

Refits of winners and ablation tables are lists of runs that know nothing of each other. With one worker a run, whole
runs go side by side on the workers; with several, each run in turn is data-parallel. A run that has left its model
folder is done, so an interrupted list continues where it stopped.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.data.store import opened
from gapwise.distributed.cluster import resources
from gapwise.distributed.launch import run_through_losses
from gapwise.distributed.notice import LeavingSink, Notice
from gapwise.distributed.progress import append_line, tail
from gapwise.distributed.threads import one_thread
from gapwise.errors import CheckpointError
from gapwise.models.saved import load_model_folder, save_model
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import DirectorySink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import Diverged, Job, this_device, whole_job
from gapwise.training.loop import fit
from gapwise.training.validation import diagnostic_curves, masked_outputs, mean_curves


class Run(NamedTuple):
    """One training run: a name that is also its folder's place below the batch's, and what to train."""

    name: str
    spec: TrainSpec
    keep_last: bool
    """Keep the last weights instead of the best epoch's."""


class Batch(NamedTuple):
    """Where a list of runs happens, and how each is judged at its end."""

    data: str
    folder: str
    mask_seeds: int
    """Masks behind each figure that is kept with a model."""
    workers_per_run: int = 1
    fingerprint: str = ""
    """Of the data; empty: whichever is there."""

    def place(self, run: Run) -> Path:
        return Path(self.folder) / run.name

    def job(self, run: Run) -> Job:
        return whole_job(run.spec, *opened(self.data, self.fingerprint), keep_last=run.keep_last)

    def failed(self, run: Run) -> bool:
        """Whether the run diverged; trying again would give the same."""
        return self._failure(run).exists()

    def note_failure(self, run: Run, reason: str) -> None:
        self._failure(run).parent.mkdir(parents=True, exist_ok=True)
        self._failure(run).write_text(reason)

    def _failure(self, run: Run) -> Path:
        return self.place(run).with_name(f"{self.place(run).name}.failed")

    @property
    def progress(self) -> Path:
        return Path(self.folder) / "progress.jsonl"


def pending(batch: Batch, runs: list[Run]) -> list[Run]:
    """Those that have neither a finished model folder nor a recorded failure."""
    return [run for run in runs if not batch.failed(run) and not _done(batch.place(run))]


def _done(folder: Path) -> bool:
    try:
        load_model_folder(folder)
    except CheckpointError:
        return False
    return True


def run_all(batch: Batch, runs: list[Run], concurrency: int, each: Callable[[str], None]) -> None:
    """Train what is pending; `each` hears the name of every run that is done. Ray is connected.

    A run that diverges leaves a note instead of a model (`Batch.failed`); the others go on.
    """
    left = pending(batch, runs)
    if not left:
        return
    storage = Path(batch.folder) / "ray"
    together, found = batch.workers_per_run, resources()
    alone = min(concurrency, len(left), found.gpus or found.cpus)
    with tail(batch.progress, lambda event: each(event["done"])):
        run_through_losses(
            _worker,
            {"batch": batch, "runs": left},
            workers=together if together > 1 else (1, alone) if len(found.nodes) > 1 else alone,  # a node may go
            storage=storage,
        )


def _worker(config: dict[str, Any]) -> None:
    from gapwise.distributed import worker

    batch: Batch = config["batch"]
    runs: list[Run] = config["runs"]
    alone = batch.workers_per_run == 1
    for run in runs[worker.rank() :: worker.world()] if alone else runs:
        if not pending(batch, [run]):  # done before a worker was lost
            continue
        job = batch.job(run)
        train_one(batch, run, worker.on_device(job) if alone else worker.data_parallel(job), Notice())
    worker.tell_driver({"done": len(runs)})


def train_here(batch: Batch, run: Run, notice: Callable[[], bool] = lambda: False) -> None:
    """`train_one` on this process's device; with one thread, or the last bits would depend on who trains it."""
    with one_thread():
        train_one(batch, run, replace(batch.job(run), device=this_device()), notice)


def train_one(batch: Batch, run: Run, job: Job, notice: Callable[[], bool]) -> None:
    """Train one of them, or go on with it, and keep its model, or a note that it diverged.

    Raises Restart at a `notice` that this worker has to leave, when a checkpoint is kept.
    """
    folder = batch.place(run)
    sink = DirectorySink(folder.with_name(f"{folder.name}.run"), job.spec, job.rank)
    try:
        trained = fit(job, NoReporter(), LeavingSink(sink, job, notice))
    except Diverged as error:
        if job.rank == 0:
            batch.note_failure(run, str(error))
            append_line(batch.progress, {"done": f"{run.name} diverged"})
        return
    curves = mean_curves(job, masked_outputs(job, trained.model, trained.state, batch.mask_seeds))
    if job.rank == 0:
        kept = trained_model(job, trained, curves)
        save_model(folder, kept._replace(diagnostics=diagnostic_curves(job, trained)))
        sink.forget()
        append_line(batch.progress, {"done": run.name})
