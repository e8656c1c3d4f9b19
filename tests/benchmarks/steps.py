"""Training steps a second of each model against late_fusion, at equal width and depth, interleaved in one run.

    python tests/benchmarks/steps.py --out tests/benchmarks/results/steps.json

One step is forward, backward and optimiser on a batch of 64 with text 50x300 and audio 1x73 (the shapes of MOSI), one
thread, dropout on, some of the frames missing. Models take turns every few steps; figures are medians over all steps.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from gapwise.data.batch import ModalityBatch, hide
from gapwise.data.shape import DataShape, ModalityShape, Moments, Statistics
from gapwise.models.catalogue import build_model
from gapwise.models.interface import Alone, SeededNoise
from gapwise.spec.model import LateFusionSpec, PrlfSpec, PromiseSpec
from gapwise.spec.train import OptimiserSpec
from gapwise.training.optimiser import build_optimiser

SHAPE = DataShape(
    task="regression",
    modalities={"text": ModalityShape(dim=300, max_length=50), "audio": ModalityShape(dim=73, max_length=1)},
    label_range=(-3.0, 3.0),
)
SIZE = {"width": 64, "heads": 8, "depth": 2, "summary_tokens": 4}
BATCH = 64


def batches() -> tuple[ModalityBatch, ModalityBatch]:
    generator = torch.Generator().manual_seed(0)
    values, attend, observed = {}, {}, {}
    for name, one in SHAPE.modalities.items():
        values[name] = torch.randn(BATCH, one.max_length, one.dim, generator=generator)
        attend[name] = torch.ones(BATCH, one.max_length, dtype=torch.bool)
        keep = torch.rand(BATCH, 1, generator=generator).clamp_min(0.5)
        observed[name] = torch.rand(BATCH, one.max_length, generator=generator) < keep
    labels = torch.randn(BATCH, generator=generator)
    complete = ModalityBatch(values=values, attend=attend, labels=labels, rows=torch.arange(BATCH))
    return hide(complete, observed, mask_visible=True), complete


def stepper(spec: Any) -> Callable[[], float]:
    """A function that takes one training step and returns its seconds."""
    moments = {
        name: Moments(np.zeros(one.dim, np.float32), np.ones(one.dim, np.float32))
        for name, one in SHAPE.modalities.items()
    }
    model = build_model(spec, SHAPE, Statistics(moments, 0.0, 1.0), seed=0)
    optimiser = build_optimiser(model, OptimiserSpec())
    noise = SeededNoise(torch.Generator().manual_seed(0))
    incomplete, complete = batches()
    state = model.initial_state()

    def step() -> float:
        nonlocal state
        started = time.perf_counter()
        loss = model(incomplete, complete, state, noise, Alone())
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        optimiser.step()
        state = loss.state
        return time.perf_counter() - started

    return step


def measure(rounds: int, steps: int) -> dict[str, Any]:
    models = {spec.name: stepper(spec) for spec in (LateFusionSpec(**SIZE), PromiseSpec(**SIZE), PrlfSpec(**SIZE))}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for index in range(rounds + 1):
        for name, step in models.items():
            taken = [step() for _ in range(steps)]
            seconds[name] += taken if index else []
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "steps": rounds * steps,
        "milliseconds_a_step": {name: 1000 * value for name, value in medians.items()},
        "rate_against_late_fusion": {name: medians["late_fusion"] / value for name, value in medians.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5, help="of each model a round")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    text = json.dumps(measure(chosen.rounds, chosen.steps), indent=1)
    print(text)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
