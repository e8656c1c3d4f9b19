"""Does fused training end where unfused training ends? Whole trainings of the same configurations, both ways.

    python tests/benchmarks/fused_whole.py --out tests/benchmarks/results/fused_whole.json

For each model eight configurations, drawn as a random search draws them (learning rate, weight decay, dropout, and what
the model has: temperatures, Fisher weight, prompt length), each with its own seed, are trained on the synthetic `small`
set for all their epochs: one by one in the loop of `gapwise train`, and all eight as one batched program. Noise and
masks are the same by construction, so what differs is the order of additions, and whatever training makes of it in
the end. It is held against two things: the same trainings one by one once more, from initial weights that differ by
one part in ten million (`shaken`: what rounding alone does), and the noise between seeds, the standard deviation of
the objective over eight seeds of the model's defaults. Objective: mean absolute error on validation, mean over the ten
missing rates, of the kept epoch.
"""

import argparse
import json
import math
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
from gapwise.training import loop
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.fused.group import FusedGroup
from gapwise.training.job import Job, Trained, whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import CheckpointSink
from gapwise.training.run_state import RunState

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
    noise = statistics.stdev(one.kept.cost for one in trained_fused(seeds))
    return {
        "unfused": [one.kept.cost for one in plain],
        "sd_between_seeds": noise,
        "fused": apart(plain, trained_fused(drawn), noise),
        "shaken": apart(plain, trained_shaken(drawn), noise),
    }


def trained_shaken(jobs: list[Job]) -> list[Trained]:
    """One by one, from weights of which each differs by one part in ten million."""
    begin = loop.begin

    def shaken(job: Job, sink: CheckpointSink) -> RunState:
        run, noise = begin(job, sink), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in run.model.parameters():
                weight.mul_(1.0 + 1e-7 * torch.randn(weight.shape, generator=noise))
        return run

    loop.begin = shaken
    try:
        return [fit(job, NoReporter(), NoSink()) for job in jobs]
    finally:
        loop.begin = begin


def apart(plain: list[Trained], others: list[Trained], noise: float) -> dict[str, Any]:
    """How far the same configurations came apart."""
    pairs = list(zip(plain, others, strict=True))
    differences = [two.kept.cost - one.kept.cost for one, two in pairs]
    of_losses = [
        [abs(two.history[n].losses["total"] - one.history[n].losses["total"]) for one, two in pairs] for n in (0, 1)
    ]
    return {
        "costs": [two.kept.cost for two in others],
        "largest_difference_of_losses_in_epoch_1": max(of_losses[0]),
        "largest_difference_of_losses_in_epoch_2": max(of_losses[1]),
        "kept_epochs_alike": sum(one.kept.epoch == two.kept.epoch for one, two in pairs),
        "mean_difference": statistics.fmean(differences),
        "root_mean_square_difference": math.sqrt(statistics.fmean(one**2 for one in differences)),
        "largest_difference": max(map(abs, differences)),
        "largest_difference_in_sds": max(map(abs, differences)) / noise,
        "same_best": best(plain) == best(others),
    }


def best(trained: list[Trained]) -> int:
    """The number of the configuration with the lowest objective."""
    return int(np.argmin([one.kept.cost for one in trained]))


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
