"""Would `torch.compile` pay for fused trials? An experiment: nothing of gapwise is compiled.

    python tests/benchmarks/fused_compiled.py --out tests/benchmarks/results/fused_compiled.json

The losses of all trials of a step, forward and backward, are compiled as one program of fixed shapes; data, masks,
validation and optimiser stay as they are. Told are the seconds of the first epoch, nearly all of them the compiler's
(one thread, nothing cached), and processor seconds of a trial's epoch with and without, taking turns in one process of
one thread, medians over rounds. Each other number of trials, and a last batch of another size, is compiled again. Data
as in `fused_gpu.py`.
"""

import argparse
import json
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config as inductor
from fused_gpu import MODELS, SHAPES, Fused, random_data

from gapwise.data.loading import Views
from gapwise.training.fused.step import Stepper, of_trial


def compiled_losses() -> Callable[[Stepper, Views, Sequence[int]], Any]:
    """In place of `Stepper._losses`, for one stack."""
    programs: list[Callable[..., Any]] = []

    def losses(self: Stepper, views: Views, steps: Sequence[int]) -> Any:
        stack = self._stack
        given: list[Any] = [stack.parameters, stack.fixed, *views, stack.state]
        if self._dropout.needed:
            given.append(self._dropout.factors(steps, of_trial(views, 0)))
        if not programs:
            mapped = torch.vmap(self._loss)
            programs.append(torch.compile(lambda *values: mapped(*values), dynamic=False))
        return programs[0](*given)

    return losses


def epoch(trials: Fused, losses: Any, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds."""
    Stepper._losses = losses  # type: ignore[method-assign]
    began = clock()
    trials.epoch()
    return clock() - began


def compare(folder: Path, model: dict[str, Any], trials: int, rounds: int) -> dict[str, float]:
    own, other = Stepper._losses, compiled_losses()
    eager, compiled = Fused(folder, model, trials), Fused(folder, model, trials)
    epoch(eager, own)
    first = epoch(compiled, other, time.perf_counter)
    pairs = [(epoch(eager, own), epoch(compiled, other)) for _ in range(rounds)]
    Stepper._losses = own  # type: ignore[method-assign]
    before, after = (statistics.median(one) / trials for one in zip(*pairs, strict=True))
    return {
        "compiler_seconds": first - trials * after,
        "eager_seconds_a_trial_epoch": before,
        "compiled_seconds_a_trial_epoch": after,
        "ratio": before / after,
        "pays_after_epochs": (first - trials * after) / (trials * (before - after)) if before > after else float("inf"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SHAPES, default="utterance")
    parser.add_argument("--models", nargs="+", default=["late_fusion", "prlf", "promise"])
    parser.add_argument("--sizes", nargs="+", choices=MODELS, default=["narrow"])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    inductor.force_disable_caches, inductor.compile_threads = True, 1
    found: dict[str, Any] = {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread",
    }
    with tempfile.TemporaryDirectory() as place:
        random_data(chosen.data, Path(place) / "data")
        for name in chosen.models:
            for size in chosen.sizes:
                figures = compare(Path(place) / "data", {"name": name, **MODELS[size]}, chosen.trials, chosen.rounds)
                found[f"{chosen.data} {name} {size}, {chosen.trials} trials"] = figures
                print(name, size, json.dumps(figures), flush=True)
                if chosen.out:
                    chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
