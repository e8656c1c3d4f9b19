"""What the benchmarks share: the shapes of MOSI, models of equal size, taking turns, and writing figures down.

Others may use the machine at the same time, so whatever is compared takes turns within one run, figures are medians,
and ratios are what to quote.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapwise.data.batch import ModalityBatch, hide
from gapwise.data.shape import DataShape, ModalityShape, Moments, Statistics
from gapwise.models.catalogue import build_model
from gapwise.models.interface import Alone, MultimodalModel, SeededNoise, State
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
    """The same samples with some frames missing, and with none."""
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


def build(spec: Any) -> MultimodalModel:
    moments = {
        name: Moments(np.zeros(one.dim, np.float32), np.ones(one.dim, np.float32))
        for name, one in SHAPE.modalities.items()
    }
    return build_model(spec, SHAPE, Statistics(moments, 0.0, 1.0), seed=0)


class Stepper:
    """One training step a call: forward, backward and optimiser, dropout on."""

    def __init__(self, spec: Any) -> None:
        self.model = build(spec)
        self.state: State = self.model.initial_state()
        self.incomplete, self.complete = batches()
        self._optimiser = build_optimiser(self.model, OptimiserSpec())
        self._noise = SeededNoise(torch.Generator().manual_seed(0))

    def __call__(self) -> None:
        loss = self.model(self.incomplete, self.complete, self.state, self._noise, Alone())
        self._optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        self._optimiser.step()
        self.state = loss.state


def taking_turns(works: Mapping[str, Callable[[], object]], rounds: int, repeats: int) -> dict[str, float]:
    """Median seconds of one call of each; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for index in range(rounds + 1):
        for name, work in works.items():
            taken = [_timed(work) for _ in range(repeats)]
            seconds[name] += taken if index else []
    return {name: statistics.median(values) for name, values in seconds.items()}


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def arguments(description: str | None, **counts: int) -> argparse.ArgumentParser:
    """A command line with `--out` and these whole numbers, by name and default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in counts.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--out", type=Path)
    return parser


def provenance() -> dict[str, str]:
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    return {"command": f"python {shlex.join(sys.argv)}", "machine": machine}


def publish(found: Mapping[str, Any], out: Path | None) -> None:
    """Print the figures with the command and machine that made them; write them to `out` too."""
    text = json.dumps({**provenance(), **found}, indent=1)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
