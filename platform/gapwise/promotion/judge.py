"""Judging a trained model on a split: the robustness grid with floor, baseline and optima, as plain values for JSON.

And, where they are asked for, the model's diagnostics on the same masks.
"""

from pathlib import Path
from typing import Any

import torch

from gapwise.data.batch import ModalityBatch
from gapwise.data.manifest import Manifest
from gapwise.data.protocols import refuse_impossible_rates
from gapwise.data.shape import DataShape
from gapwise.data.store import Dataset, Split
from gapwise.data.synth import read_task
from gapwise.errors import DataError
from gapwise.evaluation.diagnostics import Diagnostics
from gapwise.evaluation.diagnostics import diagnose as diagnose_split
from gapwise.evaluation.grid import Grid, answers_of, robustness_grid
from gapwise.evaluation.hearing import tell_stage
from gapwise.evaluation.metrics import floor
from gapwise.evaluation.optimum import exact_form, optimal_grid
from gapwise.evaluation.plugin import fit_form
from gapwise.models.saved import ModelFolder, rebuild
from gapwise.spec.protocol import ProtocolSpec
from gapwise.tracking import registry
from gapwise.tracking.aliases import BASELINE_ALIAS
from gapwise.tracking.client import Tracking
from gapwise.tracking.locate import locate


def baseline_of(tracking: Tracking, model: str) -> ModelFolder | None:
    """The late_fusion that was registered beside a model of the registry; None for anything else."""
    if not model.startswith("models:/"):
        return None
    name = model.removeprefix("models:/").split("@")[0].split("/")[0]
    known = registry.aliases_if_any(tracking, name) or {}
    return locate(tracking, f"models:/{name}@{BASELINE_ALIAS}") if BASELINE_ALIAS in known else None


def judge(
    model: ModelFolder,
    baseline: ModelFolder | None,
    dataset: Dataset,
    protocol: ProtocolSpec,
    *,
    split: Split,
    mask_seeds: int,
) -> dict[str, Any]:
    """What `gapwise evaluate --json` prints.

    Both optima are None where the data are not synthetic, so that nobody knows them. Raises DataError for a dataset
    that is not of the model's kind, SpecError for rates that it cannot have.
    """
    refuse_impossible_rates(protocol, dataset.manifest.modalities)
    for one in (model, baseline) if baseline is not None else (model,):
        refuse_other_shape(one, dataset)
    models = 1 if baseline is None else 2
    tell_stage("answers", models * answers_of(split, protocol, mask_seeds))
    grid = grid_of(model, split, protocol, mask_seeds)
    beside = grid_of(baseline, split, protocol, mask_seeds) if baseline is not None else None
    return {
        "protocol": protocol.name,
        "split": split.name,
        "mask_seeds": grid.mask_seeds,
        "rates" if protocol.has_rates else "subsets": grid.table(),
        "mean": grid.mean(),
        "floor": dict(floor(dataset.train.labels, split.labels, dataset.manifest.shape())),
        "baseline": None if beside is None else _tables(beside),
        "optimum": None,
        "plugin_optimum": None,
        **{name: _tables(best) for name, best in optima(dataset, split, protocol, mask_seeds).items()},
        "dataset_fingerprint": dataset.manifest.fingerprint,
    }


def diagnose(
    model: ModelFolder, dataset: Dataset, protocol: ProtocolSpec, *, split: Split, mask_seeds: int
) -> Diagnostics:
    """What `gapwise evaluate --diagnostics` adds. Raises what `judge` raises."""
    refuse_impossible_rates(protocol, dataset.manifest.modalities)
    refuse_other_shape(model, dataset)
    network, state = rebuild(model), model.state

    def read(batch: ModalityBatch) -> dict[str, torch.Tensor]:
        return network.predict(batch, state).diagnostics

    tell_stage("diagnostics", answers_of(split, protocol, mask_seeds))
    return diagnose_split(read, split.reading(model.shape), protocol, range(1, mask_seeds + 1), dataset.train)


def optima(dataset: Dataset, split: Split, protocol: ProtocolSpec, mask_seeds: int) -> dict[str, Grid]:
    """`optimum` and `plugin_optimum` on the masks of `grid_of`; empty where the data are not synthetic."""
    task = read_task(dataset)
    if task is None:
        return {}
    forms = {"optimum": exact_form(task), "plugin_optimum": fit_form(dataset.train, task.preset)}
    tell_stage("the optima", len(forms) * answers_of(split, protocol, mask_seeds))
    seeds = range(1, mask_seeds + 1)
    return {name: optimal_grid(form, split, protocol, seeds) for name, form in forms.items()}


def _tables(grid: Grid) -> dict[str, Any]:
    return {"conditions": grid.table(), "mean": grid.mean()}


def reads(model: ModelFolder, dataset: Dataset) -> bool:
    """Whether the dataset is of the model's kind."""
    try:
        refuse_other_shape(model, dataset)
    except DataError:
        return False
    return True


def refuse_other_shape(model: ModelFolder, dataset: Dataset) -> None:
    """Raises DataError for a dataset that is not of the model's kind."""
    refuse_other_manifest(model, dataset.manifest, dataset.folder)


def refuse_other_manifest(model: ModelFolder, manifest: Manifest, folder: Path) -> None:
    """The same of what a dataset, or a split of it, says of itself."""
    as_ids = {name for name, record in manifest.modalities.items() if record.tokens}
    as_ids &= {name for name, one in model.shape.modalities.items() if one.tokens is not None}
    theirs, ours = _outline(manifest.shape(), as_ids), _outline(model.shape, as_ids)
    if theirs != ours:
        raise DataError(f"the data is {theirs}", where=str(folder), allowed=f"the model's {ours}")


def _outline(shape: DataShape, as_ids: set[str]) -> str:
    """The kind of data in words; modalities in `as_ids` are read as token ids, so their features do not matter."""
    dims = ", ".join(
        f"{name} {'tokens' if one.tokens is not None or name in as_ids else one.dim}"
        for name, one in sorted(shape.modalities.items())
    )
    classes = f" of {shape.classes}" if shape.task == "classification" else ""
    return f"{shape.task}{classes} on {dims}"


def grid_of(model: ModelFolder, split: Split, protocol: ProtocolSpec, mask_seeds: int) -> Grid:
    """The model's robustness grid under mask seeds 1..n, which training never looked at."""
    network, state = rebuild(model), model.state

    def answer(batch: ModalityBatch) -> torch.Tensor:
        return network.predict(batch, state).output

    return robustness_grid(answer, split.reading(model.shape), protocol, range(1, mask_seeds + 1), model.shape)
