"""What four trials at once on one node hold in memory against one: the dataset should count once.

    gapwise data synth /tmp/mosi-like --preset mosi-like
    python tests/benchmarks/node_memory.py --data /tmp/mosi-like --out tests/benchmarks/results/node_memory.json

Each trial is a fresh process that opens the dataset, takes its training statistics, trains late_fusion (with statistics
pooling, so that little is computed) for an epoch and validates, as a worker of a study does; Ray's own processes are
left out. All of them are counted while all of them live. Pss counts a page that k processes share as 1/k in each, so
that the total is what the node holds; of the mapped Arrow files it is given apart. Bytes, in MB.
"""

import multiprocessing
from collections.abc import Mapping
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from measuring import arguments, publish

from gapwise.data.store import opened
from gapwise.spec.train import TrainSpec
from gapwise.testing.memory import memory, memory_of_files
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

SPEC = TrainSpec.model_validate(
    {
        "model": {"name": "late_fusion", "width": 64, "encoder": "statistics"},
        "protocol": {"rates": [0.0, 0.5]},
        "epochs": 1,
        "batch_size": 64,
    }
)


def trial(data: str, together: Barrier, answers: "Queue[dict[str, int]]") -> None:
    torch.set_num_threads(1)
    empty = memory()["Anonymous"]
    job = whole_job(SPEC, *opened(data))
    fit(job, NoReporter(), NoSink())
    together.wait()
    whole, files = memory(), memory_of_files(".arrow")
    answers.put(
        {
            "pss": whole["Pss"],
            "own": whole["Anonymous"],
            "own_since_imports": whole["Anonymous"] - empty,
            "dataset_pss": files["Pss"],
            "dataset_rss": files["Rss"],
        }
    )
    together.wait()


def trials_at_once(data: Path, number: int) -> list[dict[str, int]]:
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(number), context.Queue()
    processes = [context.Process(target=trial, args=(str(data), together, answers)) for _ in range(number)]
    for one in processes:
        one.start()
    found = [answers.get() for _ in processes]
    for one in processes:
        one.join()
    return found


def summed(found: list[dict[str, int]]) -> dict[str, Any]:
    """Totals over the processes, and what each of them had, in MB."""
    each = {name: [round(one[name] / 1e6, 1) for one in found] for name in found[0]}
    total = {name: round(sum(one[name] for one in found) / 1e6, 1) for name in ("pss", "dataset_pss")}
    return {"total": total, "each": each}


def compared(one: Mapping[str, Any], four: Mapping[str, Any]) -> dict[str, float]:
    return {f"{name}_four_over_one": round(four["total"][name] / one["total"][name], 2) for name in one["total"]}


def main() -> None:
    parser = arguments(__doc__, trials=4)
    parser.add_argument("--data", type=Path, required=True)
    chosen = parser.parse_args()
    on_disk = sum(file.stat().st_size for file in chosen.data.glob("*.arrow"))
    one, several = (summed(trials_at_once(chosen.data, number)) for number in (1, chosen.trials))
    publish(
        {
            "dataset_on_disk": round(on_disk / 1e6, 1),
            "one": one,
            f"{chosen.trials}": several,
            **compared(one, several),
        },
        chosen.out,
    )


if __name__ == "__main__":
    main()
