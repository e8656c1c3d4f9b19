"""Orchestration seconds a trial: gapwise's two executors against a plain Optuna loop, interleaved in one run.

    python tests/benchmarks/overhead.py --out tests/benchmarks/results/overhead.json

All three train late_fusion of `search_spaces/smoke.yaml` on the synthetic `small` data (no pruning, a random sampler)
with one thread and one trial at a time, so that what differs is who orchestrates:

  plain   one process: Optuna ask, `fit`, tell; nothing else
  warm    `executor: warm`: Ray Tune, a reused actor, the study's book, checkpoints
  nested  `executor: train`: one TorchTrainer a trial inside Ray Tune

A trial's cost is the time between its neighbours' ends, so start-up (reported apart) is not smeared over few trials.
Overhead is that cost minus the median cost of a plain trial. Rounds alternate plain, warm, plain, nested, ...; the
figures are medians over all trials of a kind.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import optuna
import torch
from measuring import arguments, publish

from gapwise.data.synth import synthesise
from gapwise.distributed.cluster import connected
from gapwise.evaluation.objective import as_cost
from gapwise.spec.loader import read_mapping, validate
from gapwise.spec.search import SearchSpec
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.loop import fit
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.events import read_events
from gapwise.tuning.executor import PhaseRun, run_phases
from gapwise.tuning.space import distributions
from gapwise.tuning.trial import Place, job_of

ROOT = Path(__file__).parents[2]


class Ends:
    """When each trial of a phase ended, on this process's clock."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def space(executor: str, trials: int) -> SearchSpec:
    mapping = read_mapping(ROOT / "search_spaces" / "smoke.yaml")
    mapping |= {"executor": executor, "trials": trials, "baseline_share": 1.0, "sampler": {"name": "random"}}
    mapping["pruner"] = {"name": "none"}
    mapping["arms"] = {"late_fusion": mapping["arms"]["late_fusion"]}
    return validate(SearchSpec, mapping, where="benchmark")


def plain(data: Path, trials: int, folder: Path) -> tuple[Ends, float]:
    """A loop that a person would write by hand."""
    asked = space("warm", trials)
    place = Place(asked, str(data), str(folder))
    started = time.perf_counter()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    ends = Ends()
    for number in range(trials):
        trial = study.ask(distributions(asked, "late_fusion"))
        assignment = Assignment("search", "late_fusion", number, dict(trial.params), 0, number)
        trained = fit(job_of(place, assignment), NoReporter(), NoSink())
        study.tell(trial, as_cost("mae", trained.kept.cost))
        ends.times.append(time.perf_counter())
    return ends, ends.times[0] - started


def through_ray(executor: str, data: Path, trials: int, folder: Path) -> tuple[Ends, float]:
    """A search phase at concurrency 1; ends are when the book heard of them."""
    asked = space(executor, trials)
    name = folder.name
    with running_book(name, asked, Record(folder)) as book:
        started, clock = time.perf_counter(), time.time()
        run_phases(book, iter([PhaseRun("search", name, Place(asked, str(data), str(folder)), concurrency=1)]))
    events, _ = read_events(Record(folder).events, 0, most=100 * trials)
    ends = Ends()
    ends.times = [event.time - clock + started for event in events if event.kind == "finished"]
    return ends, ends.times[0] - started


def measure(rounds: int, warm_trials: int, nested_trials: int) -> dict[str, Any]:
    gaps: dict[str, list[float]] = {"plain": [], "warm": [], "nested": []}
    first: dict[str, list[float]] = {"plain": [], "warm": [], "nested": []}
    with tempfile.TemporaryDirectory(prefix="gapwise-bench-") as temporary, connected(cpus=4):
        root = Path(temporary)
        synthesise("small", root / "small", 0)
        for index in range(rounds):
            for kind, trials in (("plain", warm_trials), ("warm", warm_trials), ("nested", nested_trials)):
                folder = root / f"{kind}-{index}"
                folder.mkdir()
                run = plain if kind == "plain" else lambda d, t, f, k=kind: through_ray(_executor(k), d, t, f)
                ends, start_up = run(root / "small", trials, folder)
                gaps[kind] += ends.gaps()
                first[kind].append(start_up)
                print(f"round {index} {kind}: {statistics.median(ends.gaps()):.3f} s a trial", file=sys.stderr)
    return _summary(gaps, first)


def _executor(kind: str) -> str:
    return "train" if kind == "nested" else "warm"


def _summary(gaps: dict[str, list[float]], first: dict[str, list[float]]) -> dict[str, Any]:
    cost = {kind: statistics.median(values) for kind, values in gaps.items()}
    overhead = {kind: cost[kind] - cost["plain"] for kind in ("warm", "nested")}
    return {
        "trials": {kind: len(values) for kind, values in gaps.items()},
        "seconds_a_trial": cost,
        "first_trial_seconds": {kind: statistics.median(values) for kind, values in first.items()},
        "overhead_seconds_a_trial": overhead,
        "nested_over_warm": overhead["nested"] / max(overhead["warm"], 1e-9),
        "warm_over_plain": cost["warm"] / cost["plain"],
    }


def main() -> None:
    chosen = arguments(__doc__, rounds=3, trials=12, nested_trials=3).parse_args()  # trials and nested trials: a round
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    publish(measure(chosen.rounds, chosen.trials, chosen.nested_trials), chosen.out)


if __name__ == "__main__":
    main()
