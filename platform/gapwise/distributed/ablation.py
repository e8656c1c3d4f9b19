"""The ablation table of a spec: each named idea taken out in turn, the whole model and late_fusion beside, over seeds.

Every row trains with the same seeds, hence the same batches and masks, and keeps its best validation epoch, so a row's
difference from the whole model is paired by seed. Validation only; nothing is selected from the table.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gapwise.data.store import Dataset
from gapwise.distributed.side_by_side import Batch, Run, run_all
from gapwise.errors import CheckpointError, SpecError
from gapwise.evaluation.metrics import floor
from gapwise.evaluation.objective import settled
from gapwise.models.ablations import ABLATIONS, ablate
from gapwise.models.saved import load_model_folder
from gapwise.spec.model import EncoderSpec, LateFusionSpec
from gapwise.spec.train import TrainSpec

WHOLE, BASELINE = "whole", "late_fusion"


class Ablation(NamedTuple):
    """A table to make: where, of which spec, with which seeds."""

    spec: TrainSpec
    seeds: list[int]
    batch: Batch

    def runs(self) -> dict[str, list[Run]]:
        """Runs by row."""
        return {
            row: [
                Run(f"{row}/seed-{seed}", spec.model_copy(update={"seed": seed}), keep_last=False)
                for seed in self.seeds
            ]
            for row, spec in _rows(self.spec).items()
        }


def _rows(spec: TrainSpec) -> dict[str, TrainSpec]:
    """The whole model, late_fusion with the same encoders, and one row an ablation that changes anything."""
    shared = {field: getattr(spec.model, field) for field in EncoderSpec.model_fields}
    rows = {WHOLE: spec.model, BASELINE: LateFusionSpec(**shared)}
    rows |= {name: ablate(spec.model, name) for name in ABLATIONS[spec.model.name]}
    return {
        name: spec.model_copy(update={"model": model})
        for name, model in rows.items()
        if name == WHOLE or model != spec.model
    }


def check_ablation(folder: Path, spec: TrainSpec, seeds: list[int], dataset: Dataset) -> TrainSpec:
    """The spec settled on the dataset; writes what the folder is for, or refuses one that is for something else.

    Raises SpecError for a model without ablations, CheckpointError for a folder of another spec, dataset or seeds.
    """
    if not ABLATIONS.get(spec.model.name):
        named = sorted(name for name, known in ABLATIONS.items() if known)
        raise SpecError(f"{spec.model.name} has no ablations", where="model.name", allowed=named)
    spec = settled(spec, dataset.manifest.shape(), dataset.valid.labels)
    asked = {"spec": spec.model_dump(mode="json"), "dataset": dataset.manifest.fingerprint, "seeds": seeds}
    file = folder / "ablation.json"
    if file.exists() and json.loads(file.read_text()) != asked:
        raise CheckpointError("another ablation has this name", where=str(folder), allowed="another --name")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asked))
    return spec


def run_ablation(ablation: Ablation, dataset: Dataset, concurrency: int, each: Callable[[str], None]) -> dict[str, Any]:
    """Train what is missing and make the table. Ray is connected."""
    rows = ablation.runs()
    run_all(ablation.batch, [run for runs in rows.values() for run in runs], concurrency, each)
    curves = {row: [_curves(ablation.batch, run) for run in runs] for row, runs in rows.items()}
    metric = ablation.spec.objective.metric
    return {
        "model": ablation.spec.model.name,
        "metric": metric,
        "split": "valid",
        "seeds": ablation.seeds,
        "mask_seeds": ablation.batch.mask_seeds,
        "rows": {row: _row(found, curves[WHOLE], metric) for row, found in curves.items()},
        "floor": floor(dataset.train.labels, dataset.valid.labels, dataset.manifest.shape())[metric],
        "dataset_fingerprint": dataset.manifest.fingerprint,
    }


def _curves(batch: Batch, run: Run) -> dict[str, dict[str, float]] | None:
    return None if batch.failed(run) else load_model_folder(batch.place(run)).validation


def _row(found: list[Any], whole: list[Any], metric: str) -> dict[str, Any]:
    """Means over conditions, then mean and sd over seeds; the difference from the whole model is paired by seed."""
    averaged = [float(np.mean(list(one[metric].values()))) for one in found if one is not None]
    paired = [
        float(np.mean([one[metric][key] - other[metric][key] for key in other[metric]]))
        for one, other in zip(found, whole, strict=True)
        if one is not None and other is not None
    ]
    conditions = list(next((one for one in found if one is not None), {metric: {}})[metric])
    return {
        "mean": _spread(averaged),
        "difference": _spread(paired),
        "conditions": {key: _spread([one[metric][key] for one in found if one is not None]) for key in conditions},
        "failed": sum(one is None for one in found),
    }


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
