"""Studies on a real local cluster, through Ray Tune and Ray Train, with the real journal. Nothing is faked.

The space is the smallest that still has two arms, both phases and a refit.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from gapwise.data.store import open_dataset
from gapwise.errors import StudyError
from gapwise.models.saved import load_model_folder
from gapwise.spec.home import Home
from gapwise.spec.search import SearchSpec
from gapwise.testing.studies import StudyHere
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.assignment import Finished
from gapwise.tuning.executor import PhaseRun, run_phases
from gapwise.tuning.opening import Asked, open_study
from gapwise.tuning.reading import read_study
from gapwise.tuning.removal import removable, remove
from gapwise.tuning.result import StudyResult, load_result
from gapwise.tuning.retention import kept_models
from gapwise.tuning.study import StudyPlan, run_study
from gapwise.tuning.trial import Place

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Quiet:
    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.refits: list[str] = []

    def stage(self, name: str, total: int) -> None:
        self.stages.append((name, total))

    def done(self, what: str) -> None:
        self.refits.append(what)


def space(**changes: Any) -> SearchSpec:
    fields: dict[str, Any] = {
        "question": "does the machine run?",
        "trials": 3,
        "baseline_share": 0.34,
        "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
        "train": {"epochs": 2, "patience": 0, "batch_size": 200},
        "arms": {"prlf": {"parameters": {"model.tau_rel": {"role": "searched", "low": 0.1, "high": 2.0, "log": True}}}},
        "second_phase": {"top_k": 1, "seeds": 2, "cap": 1, "mask_seeds": 2},
        "pruner": {"name": "none"},
    }
    fields["train"] |= {"objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.5]}}
    return SearchSpec.model_validate(fields | changes)


def study(asked: SearchSpec, data: Path, folder: Path, *, resume: bool = False, concurrency: int = 2) -> StudyResult:
    open_study(folder, Asked(folder.name, asked, open_dataset(data)), resume=resume)
    plan = StudyPlan(name=folder.name, space=asked, data=data, folder=folder, concurrency=concurrency)
    return run_study(plan, Quiet(), [], "run")


def search(asked: SearchSpec, data: Path, folder: Path) -> list[Finished]:
    """The first phase alone, one trial at a time."""
    with running_book(folder.name, asked, Record(folder)) as book:
        place = Place(asked, str(data), str(folder))
        run_phases(book, iter([PhaseRun("search", folder.name, place, concurrency=1)]))
        finished: list[Finished] = ray.get(book.finished.remote("search"))
        return finished


@contextmanager
def no_room_in(folder: Path) -> Iterator[None]:
    """A file system of one page for root, whom permissions do not stop; for anybody else a folder that is read-only."""
    folder.mkdir(parents=True)
    root = os.geteuid() == 0
    if root:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)], check=True)
    else:
        folder.chmod(0o500)
    try:
        yield
    finally:
        if root:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(0o700)


_NO_ROOM = "cannot be written: .*; nothing is lost: make room and go on with --resume"


def test_a_study_that_a_full_disk_stopped_ends_with_refitted_winners_and_gc_knows_all_that_it_leaves(
    ray_cluster: None, small: Path, tmp_path: Path
) -> None:
    here = Home(tmp_path)
    folder = here.studies / "whole"
    with no_room_in(folder / "trials"), pytest.raises(StudyError, match=_NO_ROOM):
        study(space(), small, folder)
    result = study(space(), small, folder, resume=True)
    assert result.arms == {
        "prlf": {"complete": 3, "pruned": 0, "failed": 0, "running": 0},
        "late_fusion": {"complete": 2, "pruned": 0, "failed": 0, "running": 0},
    }
    assert list(result.best) == list(result.baseline) == ["0.0", "0.5"]
    assert all(best.seeds == 2 for best in result.best.values())
    for rate, best in result.best.items():
        chances = (best.probability_best, result.baseline[rate].probability_best)
        assert sum(chance for chance in chances if chance is not None) == pytest.approx(1.0)
    for model in result.models:
        kept = load_model_folder(folder / model.folder)
        assert kept.spec.seed == model.shipped_seed
        assert kept.validation == model.shipped
        assert kept.diagnostics == model.diagnostics
        assert bool(model.diagnostics) == (model.arm == "prlf")
        assert kept.trained["epochs"] == model.epochs
        assert not set(model.seeds) & {0, 1, 2}, "refit seeds are fresh"
    assert load_result(here.studies, "whole") == result
    remove(here, removable(here, [read_study(here.studies, "whole")], kept_models([result], [], 1)))
    left = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    shipped = {f"{model.folder}/{name}" for model in result.models for name in ("model.json", "model.safetensors")}
    assert left == shipped | {
        "study.json",
        "journal.log",
        "journal.events.jsonl",
        "result.json",
        "driver.lock",
        "book.lock",
        "clock.json",
        "refit/progress.jsonl",
    }


def test_a_trial_that_is_a_ray_train_run_and_met_a_full_disk_comes_to_what_it_comes_to_in_this_process(
    ray_cluster: None, small: Path, tmp_path: Path
) -> None:
    """Those of the other executor are held against it in `test_deaths`."""
    asked, folder = space(executor="train", trials=1, arms={"late_fusion": None}), tmp_path / "train"
    with no_room_in(folder / "trials"), pytest.raises(StudyError, match=_NO_ROOM):
        study(asked, small, folder)
    assert {one.outcome.state for one in read_study(tmp_path, "train").trials} == {"running"}
    (trial,) = search(asked, small, folder)
    assert (trial.assignment.arm, trial.outcome.state) == ("late_fusion", "complete")
    assert set(trial.outcome.metrics["mae"]) == {"0.0", "0.5"}
    (expected,) = StudyHere(asked, small, tmp_path / "here").search()
    assert trial.outcome.cost == pytest.approx(expected.outcome.cost, abs=1e-4)


def test_a_finished_study_may_grow_also_from_a_torn_journal(
    ray_cluster: None, small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "grows"
    rounds = {"top_k": 2, "seeds": 3, "cap": 2, "mask_seeds": 2}
    first = study(space(trials=1, second_phase=rounds), small, folder)
    journal = folder / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "worker')
    caplog.clear()
    grown = study(space(trials=2, second_phase=rounds), small, folder, resume=True)
    (kept,) = folder.glob("*.torn")
    assert f"the journal ended in the middle of a line; it goes on before it, and the rest is in {kept}" in caplog.text
    assert first.arms["prlf"]["complete"] == 1
    assert grown.arms["prlf"]["complete"] == 2
    assert first.best["0.0"].seeds == grown.best["0.0"].seeds == 3
    assert len(list(folder.glob("trials/*/predictions.safetensors"))) == 3 * 3 - grown.runs_saved
    for line in journal.read_text().splitlines():
        json.loads(line)


def test_ctrl_c_stops_a_study_that_then_goes_on(small: Path, tmp_path: Path) -> None:
    """A driver of its own, because the signal must reach Tune's main thread; no cluster is shared with it."""
    asked = space(trials=4, second_phase={"top_k": 1, "seeds": 1, "cap": 1, "mask_seeds": 2})
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(asked.model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, "-c", "from gapwise.cli.main import main; main()", "tune", "space.yaml", "--study", "it"]
    command += ["--data", str(small), "--concurrency", "1", "--no-report"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GAPWISE", "RAY", "MLFLOW"))}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            if "search 1/" in line:
                driver.send_signal(signal.SIGINT)
                break
        said = driver.stderr.read()
    assert driver.returncode == 1, said
    assert "stopped" in said and "Traceback" not in said, said
    folder = tmp_path / ".gapwise" / "studies" / "it"
    assert not (folder / "result.json").exists(), "a truncated search is not a finished study"

    again = subprocess.run(
        [*command, "--resume", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["trials"] == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
