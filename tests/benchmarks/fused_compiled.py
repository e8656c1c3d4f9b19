"""What `compile` brings to fused trials, and what it costs.

    python tests/benchmarks/fused_compiled.py --out tests/benchmarks/results/fused_compiled.json

The same groups with and without it. Told are the seconds of the first epoch, nearly all of them the compiler's (one
thread, nothing cached), and processor seconds of a trial's epoch with and without, taking turns in one process of one
thread, medians over rounds; masks, data, validation, optimiser and the last, smaller batch are not compiled. Data as in
`fused_gpu.py`.
"""

import argparse
import json
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config as inductor
from fused_gpu import MODELS, SHAPES, Fused, random_data


def epoch(trials: Fused, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds."""
    began = clock()
    trials.epoch()
    return clock() - began


def compare(folder: Path, model: dict[str, Any], trials: int, rounds: int) -> dict[str, float]:
    plain, compiled = Fused(folder, model, trials), Fused(folder, model, trials, compiles=True)
    epoch(plain)
    first = epoch(compiled, time.perf_counter)
    pairs = [(epoch(plain), epoch(compiled)) for _ in range(rounds)]
    before, after = (statistics.median(one) / trials for one in zip(*pairs, strict=True))
    return {
        "compiler_seconds": first - trials * after,
        "plain_seconds_a_trial_epoch": before,
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
    inductor.force_disable_caches = True
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
