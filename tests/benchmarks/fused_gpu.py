"""How many trials an hour a device trains fused, against one process a trial: no Ray, no MLflow, a GPU if there is one.

    python tests/benchmarks/fused_gpu.py --out fused.json                    (CPU: a process a core, one thread each)
    python tests/benchmarks/fused_gpu.py --trials 1 8 32 128 --out gpu.json  (GPU: alone, and 8 plain processes)

A contender is a number of processes that train the same model for whole epochs, data, masks, validation at ten missing
rates and optimiser included, checkpoints left out: `plain` one trial each, in the loop of `gapwise train`, `fused` K
trials in all. On a CPU there are as many processes as cores, because that is the best that plain ones can do there;
fused trials are shared out among as many. On a GPU `plain 1` is one process a trial, `plain 8` are 8 processes on one
GPU, and fused is one process. Contenders take turns; figures are medians over rounds, and ratios are what to quote. By
`processor_ratio` work is counted in processor seconds and not by the clock: for a CPU that others use as well.

`over_floor` is a trial's time as a multiple of what its arithmetic and its memory traffic must take on this device: the
floating point operations of an epoch's matrix products, counted, at the rate of a large product measured here, or the
numbers that must move (each parameter ten times a step: read twice, gradient written and read, value and both moments
read and written; each sample once), at the rate of a large copy; whichever is longer.

Data: random numbers, 256 training samples in batches of 32 and 46 of validation. `utterance`: text, audio and vision
of one step (300, 74 and 35 features). `sequence`: text 50 x 300, audio 1 x 74.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from gapwise.data.arrays import ModalityArrays, SplitArrays
from gapwise.data.store import open_dataset
from gapwise.data.store import statistics as moments_of
from gapwise.spec.train import TrainSpec
from gapwise.testing.datasets import write
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.fused.group import FusedGroup
from gapwise.training.job import Job, whole_job
from gapwise.training.loop import advance, begin

SHAPES = {
    "utterance": {"text": (1, 300), "audio": (1, 74), "vision": (1, 35)},
    "sequence": {"text": (50, 300), "audio": (1, 74)},
}
SIZES = {"train": 256, "valid": 46, "test": 4}
BATCH = 32
STEPS = -(-SIZES["train"] // BATCH)
MODELS = {
    "narrow": {"width": 32, "heads": 4, "depth": 1, "summary_tokens": 1},
    "wide": {"width": 64, "heads": 4, "depth": 2, "summary_tokens": 4},
    "statistics": {"width": 64, "encoder": "statistics", "summary_tokens": 2},
}
"""`wide` is that of search_spaces/prlf.yaml."""
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


def random_data(kind: str, folder: Path) -> None:
    random, splits = np.random.default_rng(0), {}
    for name, size in SIZES.items():
        modalities = {
            modality: ModalityArrays(
                values=random.standard_normal((size * steps, dim)).astype(np.float32),
                offsets=np.arange(size + 1) * steps,
                present=np.ones(size, np.bool_),
            )
            for modality, (steps, dim) in SHAPES[kind].items()
        }
        ids = [f"{name}-{row}" for row in range(size)]
        labels = random.uniform(-3, 3, size).astype(np.float32)
        splits[name] = SplitArrays(ids=ids, groups=ids, labels=labels, modalities=modalities)
    write(splits, folder)


def job_of(folder: Path, model: dict[str, Any], seed: int) -> Job:
    spec = TrainSpec.model_validate(
        {
            "model": model,
            "epochs": 10_000,
            "patience": 0,
            "batch_size": BATCH,
            "seed": seed,
            "optimiser": {"lr": 10 ** (-4 + seed % 16 / 8)},
        }
    )
    dataset = open_dataset(folder)
    return replace(whole_job(spec, dataset, moments_of(dataset.train)), device=DEVICE)


class Plain:
    """One trial in the unfused loop."""

    def __init__(self, folder: Path, model: dict[str, Any]) -> None:
        self._job = job_of(folder, model, 0)
        self._run = begin(self._job, NoSink())
        self.parameters = sum(one.numel() for one in self._run.model.parameters())
        self.numbers_a_sample = sum(one.max_length * one.dim for one in self._job.shape.modalities.values())

    def epoch(self) -> None:
        advance(self._job, self._run, self._run.model, NoSink())


class Fused:
    def __init__(self, folder: Path, model: dict[str, Any], trials: int, *, compiles: bool = False) -> None:
        self._group = FusedGroup(compiles=compiles)
        for seed in range(trials):
            self._group.admit(str(seed), job_of(folder, model, seed), NoReporter(), NoSink())

    def epoch(self) -> None:
        assert not self._group.step_epoch(), "nobody ends"


def serve(line: Connection, folder: Path, model: dict[str, Any], trials: int | None) -> None:
    """A process that trains for as many epochs as it is told, and answers with its seconds (clock and processor)."""
    torch.set_num_threads(1)
    contender = Plain(folder, model) if trials is None else Fused(folder, model, trials)
    contender.epoch()
    line.send(None)
    while epochs := line.recv():
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(epochs):
            contender.epoch()
        if ON_GPU:
            torch.cuda.synchronize()
        line.send((time.perf_counter() - clock, time.process_time() - processor, peak_bytes()))


def peak_bytes() -> int:
    return torch.cuda.max_memory_allocated() if ON_GPU else 0


class Floor(NamedTuple):
    """Of one trial's epoch, on one process."""

    operations: int
    moved_bytes: int
    seconds: float


class Everything:
    """In place of torch's tracker of modules, whose hooks fail where a module is called without gradients."""

    parents = ("Global",)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def floor_of(folder: Path, model: dict[str, Any], peaks: tuple[float, float]) -> Floor:
    plain = Plain(folder, model)
    plain.epoch()
    counted = FlopCounterMode(display=False)
    counted.mod_tracker = Everything()  # type: ignore[assignment]
    with counted:
        plain.epoch()
    operations = int(counted.get_total_flops())
    numbers = 10 * plain.parameters * STEPS + plain.numbers_a_sample * sum(SIZES[name] for name in ("train", "valid"))
    return Floor(operations, 4 * numbers, max(operations / peaks[0], 4 * numbers / peaks[1]))


def measured_peaks() -> tuple[float, float]:
    """Operations and bytes a second, of one thread on a CPU: the best of a few large products and copies."""
    torch.set_num_threads(1)
    side, size = (8192, 1 << 28) if ON_GPU else (1024, 1 << 25)
    square, vector = torch.randn(side, side, device=DEVICE), torch.randn(size, device=DEVICE)
    product, copy = torch.empty_like(square), torch.empty_like(vector)
    return (
        2 * side**3 / _best_seconds(lambda: torch.mm(square, square, out=product)),
        2 * 4 * size / _best_seconds(lambda: copy.copy_(vector)),
    )


def _best_seconds(deed: Callable[[], object]) -> float:
    seconds = []
    for _ in range(8):
        if ON_GPU:
            torch.cuda.synchronize()
        began = time.perf_counter()
        deed()
        if ON_GPU:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class Contender:
    """Processes that train at the same time; `trials` in all."""

    def __init__(self, name: str, folder: Path, model: dict[str, Any], shares: list[int | None]) -> None:
        self.name, self.trials = name, sum(share or 1 for share in shares)
        self._lines, self._processes = [], []
        context = multiprocessing.get_context("spawn")
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, folder, model, share), daemon=True)
            process.start()
            self._lines.append(ours)
            self._processes.append(process)
        for line in self._lines:
            line.recv()
        self.processes = 1 if ON_GPU else len(shares)
        self.clock: list[float] = []
        self.processor: list[float] = []
        self.peak = 0

    def turn(self, epochs: int) -> None:
        """Seconds a trial's epoch: of the clock over all trials at once, of the processors for each."""
        for line in self._lines:
            line.send(epochs)
        answers = [line.recv() for line in self._lines]
        self.clock.append(max(clock for clock, _, _ in answers) / epochs / self.trials)
        self.processor.append(sum(processor for _, processor, _ in answers) / epochs / self.trials)
        self.peak = max(self.peak, *(peak for _, _, peak in answers))

    def close(self) -> None:
        for line, process in zip(self._lines, self._processes, strict=True):
            line.send(0)
            process.join()


def shares_of(trials: int, processes: int) -> list[int | None]:
    used = min(trials, processes)
    return [len(range(index, trials, used)) for index in range(used)]


def contenders(folder: Path, model: dict[str, Any], numbers: list[int]) -> list[Contender]:
    processes = 1 if ON_GPU else len(os.sched_getaffinity(0))
    plain = [1, 8] if ON_GPU else sorted({1, processes})
    found = [Contender(f"plain {count}", folder, model, [None] * count) for count in plain]
    return found + [Contender(f"fused {count}", folder, model, shares_of(count, processes)) for count in numbers]


def compare(
    folder: Path, model: dict[str, Any], numbers: list[int], rounds: int, peaks: tuple[float, float]
) -> dict[str, Any]:
    floor = floor_of(folder, model, peaks)
    every = contenders(folder, model, numbers)
    for _ in range(rounds):
        for one in every:
            one.turn(max(1, round(4 / one.trials)))
    for one in every:
        one.close()
    clock = {one.name: statistics.median(one.clock) for one in every}
    processor = {one.name: statistics.median(one.processor) for one in every}
    best = {
        kind: min(value for name, value in kind_of.items() if "plain" in name)
        for kind, kind_of in (("clock", clock), ("processor", processor))
    }
    return {"floor": floor._asdict()} | {
        one.name: {
            "trial_steps_a_second": STEPS / clock[one.name],
            "trials_an_hour_of_100_epochs": 3600 / clock[one.name] / 100,
            "ratio_to_best_plain": best["clock"] / clock[one.name],
            "processor_ratio": best["processor"] / processor[one.name],
            "processor_milliseconds_a_trial_step": 1000 * processor[one.name] / STEPS,
            "over_floor": clock[one.name] * one.processes / floor.seconds,
            **({"peak_mib": one.peak / 2**20} if ON_GPU else {}),
        }
        for one in every
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument(
        "--models", nargs="+", choices=["late_fusion", "prlf", "promise"], default=["late_fusion", "prlf", "promise"]
    )
    parser.add_argument("--sizes", nargs="+", choices=MODELS, default=["narrow", "wide"])
    parser.add_argument("--trials", nargs="+", type=int, default=[1, 8, 32, 128] if ON_GPU else [1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found: dict[str, Any] = {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "device": torch.cuda.get_device_name() if ON_GPU else "cpu",
    }
    peaks = measured_peaks()
    found["peaks"] = {"operations_a_second": peaks[0], "bytes_a_second": peaks[1]}
    for kind in chosen.data:
        with tempfile.TemporaryDirectory() as place:
            random_data(kind, Path(place) / kind)
            for name in chosen.models:
                for size in chosen.sizes:
                    model = {"name": name, **MODELS[size]}
                    figures = compare(Path(place) / kind, model, chosen.trials, chosen.rounds, peaks)
                    found[f"{kind} {name} {size}"] = figures
                    print(kind, name, size, json.dumps(figures), flush=True)
                    if chosen.out:
                        chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
