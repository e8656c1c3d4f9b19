"""Eight actors on two cores: does the study's book keep up with them?

    python tests/benchmarks/actors.py --out tests/benchmarks/results/actors.json

A real search with the warm executor at concurrency 8: the trials of `contenders.py`, 3 epochs each, without a break.
Told are the book's calls a second (questions, beginnings, epochs, endings), what share of one core the book's process
and the driver take, and how long a question from outside waits for its answer while all that goes on.
"""

import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import ray
from contenders import space
from measuring import arguments, publish

from gapwise.data.synth import synthesise
from gapwise.distributed.cluster import connected
from gapwise.distributed.progress import every
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.events import read_events
from gapwise.tuning.executor import PhaseRun, run_phases
from gapwise.tuning.trial import Place

ACTORS = 8
_MARK = "GAPWISE_BENCH_ACTORS"
_HERTZ = os.sysconf("SC_CLK_TCK")


def book_cpu_seconds() -> float:
    """Of the process that is this run's book."""
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            book = (entry / "cmdline").read_bytes().startswith(b"ray::BookActor")
            if book and mark in (entry / "environ").read_bytes().split(b"\0"):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) / _HERTZ
        except OSError:
            continue
    raise SystemExit("no book is running")


def measure(trials: int, data: Path, folder: Path) -> dict[str, Any]:
    os.environ[_MARK] = str(os.getpid())
    asked, record = space(trials), Record(folder)
    waits: list[float] = []
    with connected(cpus=ACTORS), running_book("actors", asked, record) as book:

        def ask() -> None:
            began = time.perf_counter()
            ray.get(book.spent.remote())
            waits.append(1000 * (time.perf_counter() - began))

        before, cpu, began = book_cpu_seconds(), time.process_time(), time.perf_counter()
        with every(0.2, ask, name="asking"):
            run_phases(book, iter([PhaseRun("search", "actors", Place(asked, str(data), str(folder)), ACTORS)]))
        wall = time.perf_counter() - began
        used, driver = book_cpu_seconds() - before, time.process_time() - cpu
    counted = Counter(event.kind for event in read_events(record.events, 0, most=100 * trials)[0])
    calls = 2 * counted["started"] + counted["reported"] + counted["finished"]  # asked for, begun, epochs, ended
    return {
        "actors": ACTORS,
        "trials": counted["finished"],
        "wall_seconds": wall,
        "book_calls": calls,
        "book_calls_a_second": calls / wall,
        "book_cpu_milliseconds_a_call": 1000 * used / calls,
        "book_share_of_a_core": used / wall,
        "driver_share_of_a_core": driver / wall,
        "milliseconds_until_an_answer": {
            "median": statistics.median(waits),
            "nineteen_of_20_within": statistics.quantiles(waits, n=20)[-1],
        },
    }


def main() -> None:
    chosen = arguments(__doc__, trials=64).parse_args()
    with tempfile.TemporaryDirectory(prefix="gapwise-bench-") as temporary:
        root = Path(temporary)
        synthesise("small", root / "small", 0)
        (root / "study").mkdir()
        publish(measure(chosen.trials, root / "small", root / "study"), chosen.out)


if __name__ == "__main__":
    main()
