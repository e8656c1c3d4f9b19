"""Train a registered version again from what it says of itself, and compare: the proof that it is what its tags say."""

import tempfile
from collections.abc import Callable
from typing import Any

import torch

from gapwise.data.store import Dataset
from gapwise.distributed.side_by_side import Batch, Run, run_all, train_here
from gapwise.errors import CheckpointError, DataError
from gapwise.models.saved import ModelFolder, load_model_folder
from gapwise.promotion.judge import grid_of

_MASK_SEEDS = 5


def refuse_other_data(model: ModelFolder, dataset: Dataset) -> None:
    """Raises DataError where training or validation data are not those that the model was trained on."""
    now = dataset.fingerprints()
    other = [split for split in ("train", "valid") if model.fingerprints[split] != now[split]]
    if other:
        raise DataError(
            f"the content of {' and '.join(other)} is not what the model was trained on",
            where=str(dataset.folder),
            allowed=" and ".join(f"{split} {model.fingerprints[split][:12]}..." for split in other),
        )


def through_ray(batch: Batch, run: Run) -> None:
    """With the batch's workers; Ray is connected."""
    run_all(batch, [run], 1, lambda _: None)


def reproduce(
    model: ModelFolder, dataset: Dataset, *, workers: int = 1, train: Callable[[Batch, Run], None] = train_here
) -> dict[str, Any]:
    """Train as the model's own spec says, in this process or `through_ray`, and set both side by side on validation.

    Returns the keys of `gapwise reproduce --json`. Raises CheckpointError where the second training diverges.
    """
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        batch = Batch(str(dataset.folder), temporary, _MASK_SEEDS, workers)
        run = Run("again", model.spec, keep_last=model.trained["kept_epoch"] == model.trained["epochs"])
        train(batch, run)
        if batch.failed(run):
            raise CheckpointError("diverged when it was trained again", where=str(dataset.folder))
        again = load_model_folder(batch.place(run))
    before, after = _means(model, dataset), _means(again, dataset)
    return {
        "identical": all(torch.equal(value, again.weights[name]) for name, value in model.weights.items()),
        "largest_weight_difference": max(
            float((value.double() - again.weights[name].double()).abs().max()) for name, value in model.weights.items()
        ),
        "epochs": again.trained["epochs"],
        "seed": again.trained["seed"],
        "mask_seeds": _MASK_SEEDS,
        "valid": {
            metric: {rate: {"registered": value, "again": after[metric][rate]} for rate, value in curve.items()}
            for metric, curve in before.items()
        },
    }


def _means(model: ModelFolder, dataset: Dataset) -> dict[str, dict[str, float]]:
    """{metric: {condition: value}} on validation."""
    grid = grid_of(model, dataset.valid, model.spec.protocol, _MASK_SEEDS)
    return {name: grid.curve(name) for name in grid.metrics}
