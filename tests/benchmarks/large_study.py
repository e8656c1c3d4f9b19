"""What a study's record costs as it grows: 10,000 trials through the study's book, without workers.

    python tests/benchmarks/large_study.py --sampler random --out tests/benchmarks/results/large_study_random.json
    python tests/benchmarks/large_study.py --sampler tpe --out tests/benchmarks/results/large_study_tpe.json

The book is the real one (journal and events on disk, ASHA); faked is training: eight configurations are in the air at a
time and take turns to tell an epoch, whose cost is a smooth function of the configuration, with a body as long as a
real one. The space is that of PRLF, 12 parameters, 15 epochs. By thousands of trials: seconds and processor seconds a
trial in the book, how much of it is asking, resident memory and the size of both files; in the end, how long it takes
to open the study again.
"""

import math
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from measuring import arguments, publish
from recording import ARM, space

from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Outcome
from gapwise.tuning.book import StudyBook
from gapwise.tuning.events import events_beside

IN_THE_AIR = 8
_RATES = [f"{index / 10:.1f}" for index in range(10)]
_LOSSES = ("task", "uni", "nll", "conf", "align", "cons", "total")


def cost_of(assignment: Assignment, epoch: int) -> float:
    """Best at lr .001, dropout .1, little weight on alignment; falls with epochs."""
    values = assignment.values
    if assignment.arm != ARM:
        return 2.0 + 1.0 / epoch
    distances = (
        math.log10(values["optimiser.lr"] / 0.001),
        3.0 * (values["model.dropout"] - 0.1),
        math.log10(values["model.w_align"] / 0.01) / 3.0,
        values["model.fisher_lambda"] - 0.2,
    )
    return 0.7 + sum(one * one for one in distances) + 0.5 / epoch


class Trial:
    """A worker's side of one trial, faked."""

    def __init__(self, book: StudyBook, assignment: Assignment, epochs: int) -> None:
        self._book, self._assignment, self._epochs, self._epoch = book, assignment, epochs, 0

    def step(self) -> bool:
        """One more epoch; False where it was the last."""
        self._epoch += 1
        cost = cost_of(self._assignment, self._epoch)
        curve = dict.fromkeys(_RATES, cost)
        body = {"curve": curve, "losses": dict.fromkeys(_LOSSES, cost), "epochs": self._epochs}
        body |= {"samples_per_second": 1234.5, "train_seconds": 0.5 * self._epoch}
        stop = self._book.report(self._assignment, self._epoch, cost, body) == "stop"
        if not stop and self._epoch < self._epochs:
            return True
        metrics = dict.fromkeys(("mae", "corr", "acc2_non0", "f1_non0"), curve)
        state: Any = "pruned" if stop else "complete"
        self._book.finish(self._assignment, Outcome(state, cost, self._epoch, metrics, 0.5 * self._epoch))
        return False


class Meter:
    """Figures of each block of trials."""

    def __init__(self, journal: Path, block: int) -> None:
        self._files = {"journal": journal, "events": events_beside(journal)}
        self._block = block
        self._asking: list[float] = []
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self.blocks: list[dict[str, float]] = []

    def asked(self, seconds: float) -> None:
        self._asking.append(seconds)
        if len(self._asking) == self._block:
            self._close()

    def _close(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.blocks.append(
            {
                "trials": self._block * (len(self.blocks) + 1),
                "milliseconds_a_trial": 1000 * (wall - self._wall) / self._block,
                "cpu_milliseconds_a_trial": 1000 * (cpu - self._cpu) / self._block,
                "median_milliseconds_asking": 1000 * statistics.median(self._asking),
                "resident_megabytes": resident_megabytes(),
            }
            | {f"{name}_megabytes": file.stat().st_size / 1e6 for name, file in self._files.items()}
        )
        print(" ".join(f"{name} {value:.4g}" for name, value in self.blocks[-1].items()), flush=True)
        self._asking.clear()
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def resident_megabytes() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e6


def run(asked: SearchSpec, journal: Path, block: int) -> list[dict[str, float]]:
    book, meter = StudyBook(asked, journal), Meter(journal, block)
    running: deque[Trial] = deque()
    while True:
        while len(running) < IN_THE_AIR:
            began = time.perf_counter()
            assignment = book.next_search()
            if assignment is None:
                break
            meter.asked(time.perf_counter() - began)
            running.append(Trial(book, assignment, asked.train.epochs))
        if not running:
            return meter.blocks
        trial = running.popleft()
        if trial.step():
            running.append(trial)


def measure(sampler: dict[str, Any], trials: int, block: int) -> dict[str, Any]:
    train = space().train.model_copy(update={"epochs": 15}).model_dump(exclude={"model"})
    asked = space(sampler=sampler, trials=trials, baseline_share=1e-9, train=train)
    with tempfile.TemporaryDirectory(prefix="gapwise-bench-") as temporary:
        journal = Path(temporary) / "journal.log"
        before = resident_megabytes()
        blocks = run(asked, journal, block)
        began = time.process_time()
        StudyBook(asked, journal)
        opening = time.process_time() - began
    cost = [one["cpu_milliseconds_a_trial"] for one in blocks]
    return {
        "sampler": sampler,
        "in_the_air": IN_THE_AIR,
        "resident_megabytes_before": before,
        "blocks": blocks,
        "last_over_first": cost[-1] / cost[0],
        "last_over_second": cost[-1] / cost[1],
        "cpu_seconds_to_open_again": opening,
    }


def main() -> None:
    parser = arguments(__doc__, trials=10_000, block=1000)
    parser.add_argument("--sampler", choices=["random", "tpe", "qmc"], default="random")
    chosen = parser.parse_args()
    publish(measure({"name": chosen.sampler}, chosen.trials, chosen.block), chosen.out)


if __name__ == "__main__":
    main()
