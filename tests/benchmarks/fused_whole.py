"""Does fused training end where unfused training ends? Whole trainings of the same configurations, both ways.

    python tests/benchmarks/fused_whole.py --out tests/benchmarks/results/fused_whole.json

For each model eight configurations, drawn as a random search draws them (learning rate, weight decay, dropout, and what
the model has: temperatures, Fisher weight, prompt length), each with its own seed, are trained on the synthetic `small`
set for all their epochs: one by one in the loop of `gapwise train`, and all eight as one batched program. Noise and
masks are the same by construction, so what differs is the order of additions, and whatever training makes of it in
the end. It is held against the noise between seeds: the standard deviation of the objective over eight seeds of the
model's defaults. Objective: mean absolute error on validation, mean over the ten missing rates, of the kept epoch.
"""

import argparse
import json
import platform
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapwise.data.store import open_dataset
from gapwise.data.store import statistics as moments_of
from gapwise.data.synth import synthesise
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.fused.group import FusedGroup
from gapwise.training.job import Job, Trained, whole_job
from gapwise.training.loop import fit

CONFIGURATIONS = 8
SIZE = {"width": 32, "heads": 4, "depth": 1}
OWN: dict[str, dict[str, tuple[float, float]]] = {
    "late_fusion": {},
    "prlf": {"tau_rel": (0.1, 2.0), "fisher_lambda": (0.05, 1.0), "w_nll": (0.01, 1.0)},
    "promise": {"tau_cross": (0.05, 1.0), "tau_intra": (0.05, 1.0)},
}


def jobs_of(model: str, folder: Path, epochs: int) -> tuple[list[Job], list[Job]]:
    """Eight configurations, and eight seeds of the defaults."""
    random, dataset = np.random.default_rng(0), open_dataset(folder)
    moments = moments_of(dataset.train)

    def job(seed: int, fields: dict[str, Any], optimiser: dict[str, float]) -> Job:
        fixed = {"epochs": epochs, "patience": 0, "batch_size": 32, "objective": {"metric": "mae"}}
        spec = {"model": {"name": model, **SIZE, **fields}, "optimiser": optimiser, "seed": seed, **fixed}
        return whole_job(TrainSpec.model_validate(spec), dataset, moments)

    def between(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    drawn = []
    for seed in range(CONFIGURATIONS):
        own: dict[str, Any] = {name: between(*bounds) for name, bounds in OWN[model].items()}
        if model == "promise":
            own["prompt_length"] = int(random.integers(1, 9))
        own["dropout"] = float(random.uniform(0.0, 0.4))
        drawn.append(job(seed, own, {"lr": between(1e-4, 5e-3), "weight_decay": between(1e-4, 1e-1)}))
    return drawn, [job(100 + seed, {}, {}) for seed in range(CONFIGURATIONS)]


def trained_fused(jobs: list[Job]) -> list[Trained]:
    group, found = FusedGroup(), {}
    for number, job in enumerate(jobs):
        group.admit(str(number), job, NoReporter(), NoSink())
    while group.names:
        for ending in group.step_epoch():
            assert isinstance(ending.outcome, Trained), ending
            found[int(ending.name)] = ending.outcome
    return [found[number] for number in range(len(jobs))]


def compare(model: str, folder: Path, epochs: int) -> dict[str, Any]:
    drawn, seeds = jobs_of(model, folder, epochs)
    plain = [fit(job, NoReporter(), NoSink()) for job in drawn]
    fused = trained_fused(drawn)
    apart = [two.kept.cost - one.kept.cost for one, two in zip(plain, fused, strict=True)]
    curves = [
        max(abs(now.cost - other.cost) for now, other in zip(one.history, two.history, strict=True))
        for one, two in zip(plain, fused, strict=True)
    ]
    noise = statistics.stdev(one.kept.cost for one in trained_fused(seeds))
    return {
        "unfused": [one.kept.cost for one in plain],
        "fused": [two.kept.cost for two in fused],
        "kept_epochs_alike": sum(one.kept.epoch == two.kept.epoch for one, two in zip(plain, fused, strict=True)),
        "mean_difference": statistics.fmean(apart),
        "largest_difference": max(map(abs, apart)),
        "largest_difference_of_any_epoch": max(curves),
        "sd_between_seeds": noise,
        "largest_difference_in_sds": max(map(abs, apart)) / noise,
        "same_best": np.argmin([one.kept.cost for one in plain]) == np.argmin([two.kept.cost for two in fused]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=OWN, default=list(OWN))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread",
        "epochs": chosen.epochs,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "small"
        synthesise("small", folder, 0)
        for model in chosen.models:
            found[model] = compare(model, folder, chosen.epochs)
            print(model, json.dumps(found[model], default=bool), flush=True)
            if chosen.out:
                chosen.out.write_text(json.dumps(found, indent=1, default=bool) + "\n")


if __name__ == "__main__":
    main()
