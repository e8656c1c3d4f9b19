"""Studies whose workers train many trials fused, on Ray: the same study as unfused, and one whose worker is killed.

Nothing is faked. Dropout is 0, so that what differs between fused and unfused is the order of additions.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from gapwise.data.store import open_dataset
from gapwise.spec.search import SearchSpec
from gapwise.testing.studies import StudyHere
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.assignment import Finished
from gapwise.tuning.events import Event, events_beside, read_events
from gapwise.tuning.executor import PhaseRun, run_phases
from gapwise.tuning.opening import Asked, open_study
from gapwise.tuning.trial import Place

MARK = "GAPWISE_TEST_PACK"
pytestmark = [pytest.mark.ray, pytest.mark.slow]
SPACE: dict[str, Any] = {
    "question": "does fusing change what is found?",
    "trials": 16,
    "baseline_share": 0.25,
    "common": {
        **{"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
        "model.dropout": 0.0,
    },
    "train": {"epochs": 4, "patience": 0, "objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.5]}},
    "arms": {
        "prlf": {
            "parameters": {
                "optimiser.lr": {"role": "searched", "low": 1e-4, "high": 1e-2, "log": True},
                "model.tau_rel": {"role": "searched", "low": 0.1, "high": 2.0, "log": True},
            }
        }
    },
    "sampler": {"name": "random"},
    "pruner": {"name": "none"},
    "second_phase": {"top_k": 1, "seeds": 1, "cap": 1, "mask_seeds": 2},
}


def search(data: Path, folder: Path, **changes: Any) -> list[Finished]:
    asked = SearchSpec.model_validate(SPACE | changes)
    open_study(folder, Asked(folder.name, asked, open_dataset(data)), resume=False)
    with running_book(folder.name, asked, Record(folder)) as book:
        place = Place(asked, str(data), str(folder))
        run_phases(book, iter([PhaseRun("search", folder.name, place, concurrency=1)]))
        finished: list[Finished] = ray.get(book.finished.remote("search"))
        return finished


def test_a_study_of_packs_finds_the_same_best_as_the_same_trials_unfused(
    ray_cluster: None, small: Path, tmp_path: Path
) -> None:
    fused = search(small, tmp_path / "fused", pack=16)
    plain = StudyHere(SearchSpec.model_validate(SPACE), small, tmp_path / "plain").search()
    assert [one.assignment.key for one in fused] == [one.assignment.key for one in plain]
    assert len(fused) == 20
    for one, other in zip(fused, plain, strict=True):
        assert one.assignment.values == other.assignment.values
        assert one.outcome.cost == pytest.approx(other.outcome.cost, abs=1e-3)
    for arm in ("prlf", "late_fusion"):
        best, expected = (
            min((one for one in found if one.assignment.arm == arm), key=lambda one: one.outcome.cost or 0.0)
            for found in (fused, plain)
        )
        assert best.assignment.key == expected.assignment.key


def test_pruned_trials_leave_a_pack_and_auto_finishes_too(ray_cluster: None, small: Path, tmp_path: Path) -> None:
    finished = search(
        small, tmp_path / "pruned", trials=8, pack="auto", pruner={"name": "asha", "min_epochs": 1, "reduction": 2}
    )
    states = [one.outcome.state for one in finished]
    assert len(states) == 10 and set(states) == {"complete", "pruned"}


def test_a_worker_killed_with_its_pack_costs_no_trial(small: Path, tmp_path: Path) -> None:
    """Of the command line, on a Ray of its own, whose processes inherit a mark."""
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE | {"pack": 16, "trials": 8}))
    words = ["tune", "space.yaml", "--data", str(small), "--study", "one", "--concurrency", "1", "--json"]
    words += ["--set", "train.epochs=8", "--no-report"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "GAPWISE", "RAY"))}
    driver = subprocess.Popen(
        [sys.executable, "-c", "from gapwise.cli.main import main; main()", *words],
        cwd=tmp_path,
        env=kept | {MARK: tmp_path.name, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / ".gapwise" / "studies" / "one" / "journal.log"
    try:
        before = kill_the_worker(driver, journal, tmp_path.name)
        out, said = driver.communicate(timeout=400)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    ended = [one for one in events(journal) if one.kind == "finished" and one.assignment.phase == "search"]
    assert sorted(one.assignment.key for one in ended) == sorted(
        [f"late_fusion-{n}" for n in range(2)] + [f"prlf-{n}" for n in range(8)]
    ), out
    assert {one.body["state"] for one in ended} == {"complete"}
    reported = [(one.assignment.key, one.body["epoch"]) for one in events(journal) if one.kind == "reported"]
    again = [one for one, times in Counter(reported).items() if times > 1]
    assert len(before) >= 2 and len(again) <= 10, "a trial repeats the epoch it was in, if any"


def events(journal: Path) -> list[Event]:
    file = events_beside(journal)
    return read_events(file, 0, most=100_000)[0] if file.exists() else []


def kill_the_worker(driver: "subprocess.Popen[str]", journal: Path, mark: str) -> set[str]:
    """The process that trains, once several trials have told an epoch; returns which had."""
    end = time.monotonic() + 400
    while time.monotonic() < end:
        assert driver.poll() is None, driver.communicate()
        told = {one.assignment.key for one in events(journal) if one.kind == "reported"}
        workers = training(mark) if len(told) >= 2 else []
        if workers:
            os.kill(workers[0], signal.SIGKILL)
            return told
        time.sleep(0.05)
    raise AssertionError("no worker was seen")


def training(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes() + b"\0"
                if ours and (entry / "cmdline").read_bytes().startswith(b"ray::ImplicitFunc.train"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
