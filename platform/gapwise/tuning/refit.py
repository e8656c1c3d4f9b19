"""The refit: winners trained once more, on the training split alone, for a number of epochs fixed beforehand.

Seeds are fresh, so the figures of a shipped model are not those that made it win, and validation no longer chooses an
epoch. What ships is the seed at the validation median, not the luckiest.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gapwise.distributed.launch import Restart
from gapwise.distributed.side_by_side import Batch, Run, pending, train_here
from gapwise.errors import StudyError, no_room
from gapwise.evaluation.objective import reduce_curve
from gapwise.models.saved import ModelFolder, load_model_folder
from gapwise.spec.train import TrainSpec
from gapwise.tuning.assignment import Values
from gapwise.tuning.selection import median_index
from gapwise.tuning.space import trial_spec
from gapwise.tuning.trial import Place, StudyLine


class Winner(NamedTuple):
    """A distinct configuration that won somewhere."""

    arm: str
    source: int
    values: Values
    epochs: int
    """The median of its seeds' best epochs."""
    micro_batch: int | None = None
    """Samples at once, where one of its runs did not fit the memory otherwise."""

    @property
    def key(self) -> str:
        return f"{self.arm}-{self.source}"


def refit_batch(place: Place) -> Batch:
    space = place.space
    return Batch(
        place.data,
        str(Path(place.folder) / "refit"),
        space.second_phase.mask_seeds,
        space.workers_per_trial,
        place.fingerprint,
    )


def refit_run(place: Place, winner: Winner, seed: int) -> Run:
    """As many epochs as the winner's seeds needed; the learning rate falls to its end within them."""
    return Run(f"{winner.key}/seed-{seed}", refit_spec(place, winner, seed), keep_last=True)


def refit_spec(place: Place, winner: Winner, seed: int) -> TrainSpec:
    spec = trial_spec(place.space, winner.arm, winner.values, seed=seed)
    cut = {} if winner.micro_batch is None else {"micro_batch": winner.micro_batch}
    return spec.model_copy(update={"epochs": winner.epochs, **cut})


def refit_one(place: Place, run: Run, line: StudyLine, notice: Callable[[], bool], paused: Callable[[], bool]) -> None:
    """Train one of them on this process's device, or go on with it; nothing where it is done.

    When the study is `paused` it leaves with a checkpoint, and a full disk pauses the study. At a `notice` it keeps a
    checkpoint too, and raises Restart.
    """
    batch = refit_batch(place)
    if not pending(batch, [run]):  # done before its worker was lost
        return
    try:
        train_here(batch, run, lambda: notice() or paused())
    except Restart:
        if not paused():
            raise
    except Exception as error:
        said = no_room(error)
        if not said:
            raise
        line.pause_for_room(said)


def shipped(place: Place, winner: Winner, seeds: list[int]) -> tuple[int, dict[int, ModelFolder]]:
    """The seed at the validation median of the objective, and the models by seed, those that diverged left out.

    Raises StudyError where every seed diverged.
    """
    batch = refit_batch(place)
    runs = {seed: refit_run(place, winner, seed) for seed in seeds}
    models = {seed: load_model_folder(batch.place(run)) for seed, run in runs.items() if not batch.failed(run)}
    if not models:
        raise StudyError(f"every refit of {winner.key} diverged", where=batch.folder)
    objective = place.space.train.objective
    costs = [reduce_curve(model.validation[objective.metric], objective) for model in models.values()]
    return list(models)[median_index(costs)], models
