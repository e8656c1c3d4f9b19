"""A study with two objectives and a constraint, on a real local cluster. Nothing is faked.

A killed driver is a journal cut in the middle of the search, without the checkpoints of what was running.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import open_dataset
from gapwise.spec.search import SearchSpec
from gapwise.tuning.opening import Asked, open_study
from gapwise.tuning.reading import read_study
from gapwise.tuning.result import StudyResult
from gapwise.tuning.study import StudyPlan, run_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Quiet:
    def stage(self, name: str, total: int) -> None: ...

    def done(self, what: str) -> None: ...


def space(**changes: Any) -> SearchSpec:
    width = {"role": "searched", "choices": [64, 32, 16]}
    small = {"model.width": {"role": "fixed", "value": 16}}
    fields: dict[str, Any] = {
        "question": "what is the best compromise?",
        "trials": 3,
        "baseline_share": 0.2,
        "common": {"model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
        "train": {"epochs": 2, "patience": 0, "batch_size": 200, "objective": {"metric": "mae"}},
        "arms": {"prlf": {"parameters": {"model.width": width}}, "late_fusion": {"parameters": small}},
        "objectives": {"clean": {"reduce": "rate", "rate": 0.0}, "rank": {"metric": "corr", "reduce": "worst"}},
        "constraints": {"parameters": {"max": 60_000}},
        "sampler": {"name": "tpe", "startup": 2},
        "second_phase": {"top_k": 1, "seeds": 2, "cap": 2, "mask_seeds": 2},
        "pruner": {"name": "asha", "min_epochs": 1, "on": "train"},
    }
    fields["train"]["protocol"] = {"rates": [0.0, 0.7]}
    return SearchSpec.model_validate(fields | changes)


def study(asked: SearchSpec, data: Path, folder: Path, *, resume: bool = False) -> StudyResult:
    open_study(folder, Asked(folder.name, asked, open_dataset(data)), resume=resume)
    plan = StudyPlan(name=folder.name, space=asked, data=data, folder=folder, concurrency=1)
    return run_study(plan, Quiet(), [], "run")


def table(studies: Path, name: str) -> list[tuple[Any, ...]]:
    found = read_study(studies, name).trials
    return [(one.assignment, one.outcome._replace(train_seconds=0.0), one.costs) for one in found]


def test_a_study_of_several_objectives_continues_after_its_driver_was_killed_as_if_it_never_was(
    ray_cluster: None, small: Path, tmp_path: Path
) -> None:
    asked = space()
    whole = study(asked, small, tmp_path / "whole")
    assert whole.arms["prlf"].get("infeasible", 0) >= 1, "width 64, which comes first, is too large"
    assert whole.front and [one.arm for one in whole.baseline_front] == ["late_fusion"]
    assert all(one.seeds == 2 and set(one.objectives) == {"clean", "rank"} for one in whole.front)
    widths = {model.trial: model.values.get("model.width") for model in whole.models}
    assert 64 not in widths.values()

    shutil.copytree(tmp_path / "whole", tmp_path / "killed", ignore=shutil.ignore_patterns("trials", "refit", "tune"))
    for file in ("journal.log", "result.json", "journal.events.jsonl"):
        (tmp_path / "killed" / file).unlink()
    lines = (tmp_path / "whole" / "journal.log").read_bytes().splitlines(keepends=True)
    told = [n for n, line in enumerate(lines, 1) if json.loads(line).get("intermediate_value") is not None]
    (tmp_path / "killed" / "journal.log").write_bytes(b"".join(lines[: told[2]]))
    resumed = study(asked, small, tmp_path / "killed", resume=True)
    assert table(tmp_path, "killed") == table(tmp_path, "whole")
    for part in ("front", "baseline_front", "search_front", "best", "baseline", "arms"):
        assert getattr(resumed, part) == getattr(whole, part), part
