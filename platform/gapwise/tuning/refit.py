"""The refit: winners trained once more, on the training split alone, for a number of epochs fixed beforehand.

Seeds are fresh, so the figures of a shipped model are not those that made it win, and validation no longer chooses an
epoch. All of them run inside one Ray Train run, whose start-up is paid once; what ships is the seed at the validation
median, not the luckiest.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.distributed.launch import run_workers
from gapwise.distributed.progress import append_line, tail
from gapwise.errors import CheckpointError, StudyError
from gapwise.evaluation.objective import reduce_curve
from gapwise.models.saved import ModelFolder, load_model_folder, save_model
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import DirectorySink, trained_model
from gapwise.training.job import Diverged, Job
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport
from gapwise.training.validation import masked_curves
from gapwise.tuning.assignment import Assignment, Values
from gapwise.tuning.selection import median_index
from gapwise.tuning.trial import Place, job_of


class Winner(NamedTuple):
    """A distinct configuration that won somewhere."""

    arm: str
    source: int
    values: Values
    epochs: int
    """The median of its seeds' best epochs."""

    @property
    def key(self) -> str:
        return f"{self.arm}-{self.source}"


class Silent:
    """A refit is not judged while it runs."""

    def report(self, epoch: EpochReport) -> bool:
        del epoch
        return False


def refit_folder(place: Place, winner: Winner, seed: int) -> Path:
    return Path(place.folder) / "refit" / winner.key / f"seed-{seed}"


def pending(place: Place, winners: list[Winner], seeds: list[int]) -> list[tuple[Winner, int]]:
    """Every (winner, seed) that has no finished model folder yet."""
    return [(winner, seed) for winner in winners for seed in seeds if not _done(refit_folder(place, winner, seed))]


def refit(place: Place, runs: list[tuple[Winner, int]], concurrency: int, each: Callable[[str], None]) -> None:
    """Train them inside one Ray Train run, side by side; `each` hears the name of every one that is done."""
    if not runs:
        return
    together = place.space.workers_per_trial
    with tail(_progress(place), lambda event: each(event["done"])):
        run_workers(
            refit_worker,
            {"place": place, "runs": [(winner._asdict(), seed) for winner, seed in runs]},
            workers=together if together > 1 else min(concurrency, len(runs)),
            name=f"refit-{len(list(Path(place.folder).glob('train/refit-*')))}",
            storage=Path(place.folder) / "train",
        )


def _progress(place: Place) -> Path:
    return Path(place.folder) / "refit" / "progress.jsonl"


def _done(folder: Path) -> bool:
    try:
        load_model_folder(folder)
    except CheckpointError:
        return False
    return True


def refit_worker(config: dict[str, Any]) -> None:
    """Ray Train worker: whole runs side by side, or, with several workers a trial, each run data-parallel."""
    from gapwise.distributed import worker

    place: Place = config["place"]
    runs = [(Winner(**winner), seed) for winner, seed in config["runs"]]
    side_by_side = place.space.workers_per_trial == 1
    for winner, seed in runs[worker.rank() :: worker.world()] if side_by_side else runs:
        assignment = Assignment("seeds", winner.arm, winner.source, winner.values, seed, winner.source)
        job = refit_job(job_of(place, assignment), winner)
        shared = worker.on_device(job) if side_by_side else worker.data_parallel(job)
        _refit_one(place, shared, winner, refit_folder(place, winner, seed))
    worker.tell_driver({"done": len(runs)})


def refit_job(job: Job, winner: Winner) -> Job:
    """As many epochs as the winner's seeds needed, with a learning rate that falls to its end within them."""
    return replace(job, spec=refit_spec(job.spec, winner), keep_last=True)


def refit_spec(spec: TrainSpec, winner: Winner) -> TrainSpec:
    return spec.model_copy(update={"epochs": winner.epochs})


def _refit_one(place: Place, job: Job, winner: Winner, folder: Path) -> None:
    sink = DirectorySink(folder.with_name(f"{folder.name}.run"), job.spec)
    try:
        trained = fit(job, Silent(), sink)
    except Diverged as error:
        raise StudyError(f"the refit of {winner.key} with seed {job.spec.seed} diverged: {error}") from error
    curves = masked_curves(job, trained.model, trained.state, place.space.second_phase.mask_seeds)
    if job.rank == 0:
        save_model(folder, trained_model(job, trained, curves))
        sink.forget()
        append_line(_progress(place), {"done": f"{winner.key} seed {job.spec.seed}"})


def shipped(place: Place, winner: Winner, seeds: list[int]) -> tuple[int, list[ModelFolder]]:
    """The seed at the validation median of the objective, and every seed's model."""
    models = [load_model_folder(refit_folder(place, winner, seed)) for seed in seeds]
    objective = place.space.train.objective
    costs = [reduce_curve(model.validation[objective.metric], objective) for model in models]
    return seeds[median_index(costs)], models
