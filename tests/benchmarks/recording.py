"""Real trials, recorded once: random configurations of PRLF's space, each trained to its end, every epoch's curve kept.

    python tests/benchmarks/recording.py --trials 216 --out tests/benchmarks/results/recorded_prlf_small.json

The space is `search_spaces/prlf.yaml` (12 parameters), narrow models, 20 epochs, no early stopping, the synthetic
`small` data, one thread. The default configuration comes first, the others are drawn by gapwise's own random sampler.
Every sixth trial repeats an earlier configuration with another seed: what differs between the two is noise. The file is
written after every trial, so a recording that is ended early is a shorter one; `--skip` records a later part, whose
trials may be appended by hand. `surrogate.py` reads it.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from measuring import arguments, provenance
from optuna.storages import InMemoryStorage

from gapwise.data.synth import synthesise
from gapwise.spec.loader import read_mapping, validate
from gapwise.spec.search import SearchSpec
from gapwise.training.checkpoint import NoSink
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport
from gapwise.tuning.arm import ArmStudy, Shelf
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.trial import Place, job_of

ARM = "prlf"
RECORDED = Path(__file__).parent / "results" / "recorded_prlf_small.json"
_REPEAT_EVERY = 6


def space(**changes: Any) -> SearchSpec:
    """The space that was recorded; keywords replace top-level keys."""
    mapping = read_mapping(Path(__file__).parents[2] / "search_spaces" / "prlf.yaml")
    mapping["arms"] = {ARM: mapping["arms"][ARM]}
    mapping["common"] = {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2}
    protocol = {"name": "frames", "mask_visible": True, "rates": [0.0, 0.5, 0.9]}
    mapping["train"] |= {"epochs": 20, "patience": 0, "protocol": protocol, "objective": {"metric": "mae"}}
    return validate(SearchSpec, mapping | changes, where="benchmark")


class Curves:
    """A reporter that keeps what it hears and never says stop."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.curves: list[list[float]] = []

    def report(self, epoch: EpochReport) -> bool:
        self.costs.append(round(epoch.cost, 5))
        self.curves.append([round(value, 4) for value in epoch.metrics["mae"].values()])
        return False


def assignments(count: int) -> list[Assignment]:
    """Distinct configurations, and among them repeats of earlier ones with another seed."""
    asked = space(sampler={"name": "random"}, trials=count)
    arm = ArmStudy(asked, "search", ARM, Shelf(InMemoryStorage(), ""), retry_failed=False)
    listed: list[Assignment] = []
    fresh: list[Assignment] = []
    for index in range(count):
        if index % _REPEAT_EVERY == _REPEAT_EVERY - 1:
            listed.append(fresh[index // _REPEAT_EVERY]._replace(seed=asked.seed + 1))
        else:
            fresh.append(arm.ask())
            listed.append(fresh[-1])
    return listed


def record(count: int, skip: int, data: Path, out: Path) -> None:
    place = Place(space(), str(data), str(data))
    found: list[dict[str, Any]] = []
    for assignment in assignments(count)[skip:]:
        heard = Curves()
        fit(job_of(place, assignment), heard, NoSink())
        found.append(
            {"number": assignment.number, "seed": assignment.seed, "values": assignment.values}
            | {"costs": heard.costs, "curves": heard.curves}
        )
        _write(found, out)
        print(f"{len(found)} of {count - skip}: {min(heard.costs):.4f}", file=sys.stderr, flush=True)


def _write(trials: list[dict[str, Any]], out: Path) -> None:
    """One trial a line: costs by epoch, and MAE by epoch and missing rate (0, .5, .9)."""
    lines = ",\n".join(json.dumps(trial, separators=(",", ":")) for trial in trials)
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps(provenance())[:-1] + ', "trials": [\n' + lines + "\n]}\n")
    temporary.replace(out)


def main() -> None:
    chosen = arguments(__doc__, trials=216, skip=0).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="gapwise-bench-") as temporary:
        synthesise("small", Path(temporary) / "small", 0)
        record(chosen.trials, chosen.skip, Path(temporary) / "small", chosen.out or RECORDED)


if __name__ == "__main__":
    main()
