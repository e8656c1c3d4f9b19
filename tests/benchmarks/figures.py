"""Figures over seeds: train given specs with fresh seeds, read a split once, and write one small JSON.

    python tests/benchmarks/figures.py search_spaces/train_synthetic_*.yaml --data data/synthetic \\
        --out tests/benchmarks/results/synthetic_1284.json

Each run is chosen by validation alone (the kept epoch); `--split test` is read afterwards and logged with the dataset.
Beside the models stand the floor and, on synthetic data, both optima on the same masks. Runs are independent processes
of one thread each; what `--work` holds of the same spec and data is not done again, so an interrupted command can be
repeated.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import re
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import provenance

from gapwise.data.store import Dataset, opened
from gapwise.evaluation.grid import Grid
from gapwise.evaluation.metrics import floor
from gapwise.evaluation.objective import Curve
from gapwise.models.saved import ModelFolder, load_model_folder, save_model
from gapwise.promotion.judge import diagnose, grid_of, optima
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.loader import load_spec
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.job import whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport

FIRST_SEED = 1000
"""Seeds of the figures begin here: no search has used them."""
METRICS = ("mae", "acc2_non0", "corr", "acc7")


class Run(NamedTuple):
    label: str
    spec: TrainSpec
    data: str
    folder: Path
    split: str
    mask_seeds: int


class Say:
    """A line an epoch, so that a log shows where a long run stands."""

    def __init__(self, label: str) -> None:
        self.label = label

    def report(self, epoch: EpochReport) -> bool:
        done = f"epoch {epoch.epoch}/{epoch.epochs}  objective {epoch.cost:.4f}  best {epoch.best_cost:.4f}"
        print(f"{self.label}  {done}  {epoch.train_seconds:.0f} s", flush=True)
        return False


def main() -> None:
    chosen = arguments()
    runs = planned(chosen)
    with ProcessPoolExecutor(chosen.processes) as pool:
        found = list(pool.map(figures_of, runs))
    dataset = opened(chosen.data)[0]
    result = {
        **provenance(),
        "commit": subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True).strip(),
        "dataset": dataset.manifest.name,
        "dataset_fingerprint": dataset.manifest.fingerprint,
        "split": chosen.split,
        "seeds": [FIRST_SEED + number for number in range(chosen.seeds)],
        "mask_seeds": chosen.mask_seeds,
        "selected_on": "validation: the configuration by the study named in the README, the epoch by its one mask seed",
        **references(dataset, runs[0]),
        "models": {label: summary([one for one in found if one["label"] == label]) for label in labels(runs)},
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(compact(result) + "\n")
    print(f"wrote {chosen.out}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+", type=Path, metavar="SPEC.yaml")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mask-seeds", type=int, default=20)
    parser.add_argument("--split", default="test", choices=["valid", "test"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="for every spec")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(".gapwise/figures"), help="where trained models are kept")
    return parser.parse_args()


def planned(chosen: argparse.Namespace) -> list[Run]:
    runs, data = [], opened(chosen.data)[0].manifest.fingerprint
    for number in range(chosen.seeds):
        for path in chosen.specs:
            seed = FIRST_SEED + number
            spec = load_spec(TrainSpec, path, (*chosen.set, f"seed={seed}"))
            folder = (
                chosen.work / f"{path.stem}-{fingerprint({'spec': spec.model_dump(mode='json'), 'data': data})[:12]}"
            )
            runs.append(Run(path.stem, spec, chosen.data, folder, chosen.split, chosen.mask_seeds))
    return runs


def labels(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(run.label for run in runs))


def figures_of(run: Run) -> dict[str, Any]:
    """Read from `--work` where this run was scored before on the same split and masks."""
    kept = run.folder.parent / f"{run.folder.name}-{run.split}-{run.mask_seeds}.json"
    if not kept.exists():
        found = scored(run)
        kept.write_text(json.dumps(found))
    return dict(json.loads(kept.read_text()))


def scored(run: Run) -> dict[str, Any]:
    torch.set_num_threads(1)
    dataset = opened(run.data)[0]
    model = load_model_folder(run.folder) if run.folder.exists() else trained(run)
    split, protocol = dataset.split(run.split, reason=f"figures of {run.label}"), model.spec.protocol
    said = diagnose(model, dataset, protocol, split=split, mask_seeds=min(5, run.mask_seeds))
    return {
        "label": run.label,
        "curves": curves_of(grid_of(model, split, protocol, run.mask_seeds)),
        "diagnostics": said._asdict(),
        "trained": model.trained,
        "spec": model.spec.model_dump(mode="json"),
    }


def references(dataset: Dataset, run: Run) -> dict[str, Any]:
    """The floor and, on synthetic data, both optima on the models' masks."""
    split = dataset.split(run.split, reason="optima of figures")
    constant = floor(dataset.train.labels, split.labels, dataset.manifest.shape())
    found: dict[str, Any] = {"floor": {name: constant[name] for name in METRICS if name in constant}}
    best = optima(dataset, split, run.spec.protocol, run.mask_seeds)
    return found | {name: over_rates([curves_of(grid)]) for name, grid in best.items()}


def curves_of(grid: Grid) -> dict[str, Curve]:
    return {name: grid.curve(name) for name in METRICS if name in grid.metrics}


def trained(run: Run) -> ModelFolder:
    dataset, moments = opened(run.data)
    job = whole_job(run.spec, dataset, moments)
    result = fit(job, Say(f"{run.label}-{run.spec.seed}"), NoSink())
    folder = trained_model(job, result, dict(result.kept.metrics))
    save_model(run.folder, folder)
    return folder


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "spec": {key: value for key, value in runs[0]["spec"].items() if key != "seed"},
        **over_rates([one["curves"] for one in runs]),
        "kept_epochs": [one["trained"]["kept_epoch"] for one in runs],
        "train_seconds": [round(one["trained"]["train_seconds"]) for one in runs],
        "diagnostics": averaged([one["diagnostics"] for one in runs]),
    }


def over_rates(curves: list[dict[str, Curve]]) -> dict[str, Any]:
    """Mean and deviation over seeds of each metric by rate, and of its mean over the rates."""
    return {
        metric: {
            "mean": spread([float(np.mean(list(one[metric].values()))) for one in curves]),
            **{rate: spread([one[metric][rate] for one in curves]) for rate in curve},
        }
        for metric, curve in curves[0].items()
    }


def spread(values: list[float]) -> list[float]:
    """[mean, deviation over seeds]; the deviation of one is 0."""
    return [round(float(np.mean(values)), 4), round(float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, 4)]


def averaged(trees: list[Any]) -> Any:
    """The same tree with the mean of each number over the seeds; None where a seed has none."""
    first = trees[0]
    if any(tree is None for tree in trees):
        return None
    if isinstance(first, dict):
        return {key: averaged([tree[key] for tree in trees]) for key in first}
    return round(float(np.mean(trees)), 4) if isinstance(first, int | float) else first


def compact(result: dict[str, Any]) -> str:
    """JSON with innermost lists and objects on one line each."""
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: re.sub(r"\s+", " ", found[0]), json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
