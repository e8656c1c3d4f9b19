"""Trials an hour on two cores: gapwise against bare loops and against other ways to run a search, in turns.

    python tests/benchmarks/efficiency.py --out tests/benchmarks/results/efficiency.json
    PEERS/bin/python tests/benchmarks/efficiency.py --contenders gapwise syne_tune \\
        --out tests/benchmarks/results/efficiency_syne_tune.json    # an environment of its own, with syne-tune too

`contenders.py` says who they are and what they train: the same job, with the same allocator settings (those that
gapwise gives its workers). A rate is taken in the steady state: trials between the end of the fourth one and the last
end but one, over the time between. Every round runs every contender once, and is compared within itself: figures are
medians over rounds with the smallest and the largest. `busy_elsewhere` is the share of the machine's processor time
that others used meanwhile: where it is high, two processes suffer more than one. `loop_work_over_own` does not: it is
the processor time of a trial in the bare loop over that of a trial here, with everything that orchestrates it; twice
that is what two free cores would give.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contenders import CONTENDERS
from measuring import arguments, publish

from gapwise.data.synth import synthesise
from gapwise.distributed.cluster import _ALLOCATOR

_HERE = Path(__file__).parent
_INSTALLED = [name for name in CONTENDERS if name != "syne_tune"]
"""Whatever the environment of the project has."""
_SLOW = {"tune_train": 3, "syne_tune": 2}
"""Whoever pays seconds a trial runs so many times fewer trials."""
_WARM_UP = 4
_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Ray starts its workers at niceness 15: on a machine that others use they would stand behind every bare loop."""
_HERTZ = os.sysconf("SC_CLK_TCK")
_LOOK_SECONDS = 0.25
_MARK = "GAPWISE_BENCH_CONTENDER"


class Run(NamedTuple):
    """One contender in one round."""

    trials_an_hour: float
    cpu_seconds_a_trial: float
    first_trial_seconds: float
    wall_seconds: float
    busy_elsewhere: float


class Meter:
    """Processor seconds of a contender and all that it started, known by a variable that they inherit."""

    def __init__(self, mark: str) -> None:
        self._mark = f"{_MARK}={mark}".encode()
        self._seconds: dict[str, float] = {}
        self.times: list[float] = []
        self.totals: list[float] = []

    def look(self) -> None:
        """What a process used until it was last seen counts, after its end too."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                self._look_at(entry)
        self.times.append(time.time())
        self.totals.append(sum(self._seconds.values()))

    def _look_at(self, entry: Path) -> None:
        try:
            if self._mark in (entry / "environ").read_bytes().split(b"\0"):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                self._seconds[entry.name] = (int(fields[11]) + int(fields[12])) / _HERTZ
        except OSError:
            return

    def at(self, moment: float) -> float:
        return float(np.interp(moment, self.times, self.totals))


def busy_seconds() -> float:
    """Of all processors since the machine started, idle and waiting apart."""
    fields = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _HERTZ


def run(name: str, trials: int, data: Path, folder: Path) -> Run:
    folder.mkdir()
    command = [sys.executable, str(_HERE / "contenders.py"), name, "--trials", str(trials)]
    command += ["--data", str(data), "--folder", str(folder)]
    own = {"OMP_NUM_THREADS": "2" if name == "loop_2threads" else "1", "PYTHONPATH": _python_path(), _MARK: str(folder)}
    meter, busy, began = Meter(str(folder)), busy_seconds(), time.time()
    with (folder / "log.txt").open("w") as log:
        running = subprocess.Popen(command, env={**os.environ, **_ALLOCATOR, **_RAY, **own}, stdout=log, stderr=log)
        while running.poll() is None:
            meter.look()
            time.sleep(_LOOK_SECONDS)
    wall = time.time() - began
    if running.returncode:
        raise SystemExit(f"{name} failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    elsewhere = (busy_seconds() - busy - meter.totals[-1]) / (wall * (os.cpu_count() or 1))
    ends = sorted(float(line) for line in (folder / "ends.txt").read_text().split())
    steady = ends[min(_WARM_UP, len(ends) - 3) - 1 : -1]
    seconds, count = steady[-1] - steady[0], len(steady) - 1
    cpu = (meter.at(steady[-1]) - meter.at(steady[0])) / count
    return Run(3600 * count / seconds, cpu, ends[0] - began, wall, elsewhere)


def _python_path() -> str:
    return os.pathsep.join([str(_HERE), str(_HERE.parents[1] / "platform"), os.environ.get("PYTHONPATH", "")])


def measure(names: list[str], rounds: int, trials: int) -> dict[str, Any]:
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="gapwise-bench-") as temporary:
        root = Path(temporary)
        synthesise("small", root / "small", 0)
        for index in range(rounds):
            for name in names:
                count = max(_WARM_UP + 4, trials // _SLOW.get(name, 1))
                runs[name].append(run(name, count, root / "small", root / f"{name}-{index}"))
                print(f"round {index} {name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    return {
        "rounds": rounds,
        "trials": trials,
        "versions": {name: _version(name) for name in ("ray", "optuna", "torch", "syne-tune")},
        "contenders": {name: _figures(found, runs["loop"]) for name, found in runs.items()},
    }


def _figures(found: list[Run], alone: list[Run]) -> dict[str, Any]:
    against = [one.trials_an_hour / other.trials_an_hour for one, other in zip(found, alone, strict=True)]
    work = [other.cpu_seconds_a_trial / one.cpu_seconds_a_trial for one, other in zip(found, alone, strict=True)]
    figures: dict[str, Any] = {name: _spread([getattr(one, name) for one in found]) for name in Run._fields}
    return {"against_loop": _spread(against), "loop_work_over_own": _spread(work), **figures}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = arguments(__doc__, rounds=3, trials=24)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=_INSTALLED)
    chosen = parser.parse_args()
    names = list(dict.fromkeys(["loop", *chosen.contenders]))
    publish(measure(names, chosen.rounds, chosen.trials), chosen.out)


if __name__ == "__main__":
    main()
