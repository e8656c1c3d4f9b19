"""Studies whose workers train many trials fused, on Ray: the same study as unfused, and one whose worker is killed.

Nothing is faked. Dropout is 0, so that what differs between fused and unfused is the order of additions.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from gapwise.data.store import open_dataset
from gapwise.spec.search import SearchSpec
from gapwise.tuning.actor import Record, running_book
from gapwise.tuning.assignment import Finished
from gapwise.tuning.events import events_beside, read_events
from gapwise.tuning.executor import PhaseRun, run_phase
from gapwise.tuning.opening import Asked, open_study
from gapwise.tuning.trial import Place

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
    "second_phase": {"top_k": 1, "seeds": 2, "cap": 1, "mask_seeds": 2},
}


def search(data: Path, folder: Path, **changes: Any) -> list[Finished]:
    asked = SearchSpec.model_validate(SPACE | changes)
    open_study(folder, Asked(folder.name, asked, open_dataset(data)), resume=False)
    with running_book(folder.name, asked, Record(folder)) as book:
        place = Place(asked, str(data), str(folder))
        run_phase(book, PhaseRun("search", folder.name, place, concurrency=1))
        finished: list[Finished] = ray.get(book.finished.remote("search"))
        return finished


def test_a_study_of_packs_finds_the_same_best_as_the_same_trials_unfused(
    ray_cluster: None, small: Path, tmp_path: Path
) -> None:
    fused, plain = search(small, tmp_path / "fused", pack=16), search(small, tmp_path / "plain")
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
    finished = search(small, tmp_path / "pruned", pack="auto", pruner={"name": "asha", "min_epochs": 1, "reduction": 2})
    states = [one.outcome.state for one in finished]
    assert len(states) == 20 and set(states) == {"complete", "pruned"}


def test_a_worker_killed_with_its_pack_costs_no_trial(small: Path, tmp_path: Path) -> None:
    """Of the command line, on a Ray of its own."""
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE | {"pack": 16, "trials": 8}))
    words = ["tune", "space.yaml", "--data", str(small), "--study", "one", "--concurrency", "1", "--json"]
    words += ["--set", "train.epochs=8", "--no-report"]
    environment = {**os.environ, "GAPWISE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        [sys.executable, "-m", "gapwise", *words],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "home" / "studies" / "one" / "journal.log"
    try:
        killed = _kill_its_worker(driver, journal)
        out, said = driver.communicate(timeout=400)
    finally:
        driver.kill()
    assert driver.returncode == 0, said[-3000:]
    events = read_events(events_beside(journal), 0, most=100_000)[0]
    ended = [event for event in events if event.kind == "finished" and event.assignment.phase == "search"]
    assert len(ended) == 10 and {event.body["state"] for event in ended} == {"complete"}, out
    assert killed


def _kill_its_worker(driver: "subprocess.Popen[str]", journal: Path) -> int:
    """The process that trains, once several trials have told an epoch; returns its id."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        assert driver.poll() is None, driver.communicate()
        told = read_events(events_beside(journal), 0, most=100_000)[0] if events_beside(journal).exists() else []
        if len({event.assignment.key for event in told if event.kind == "reported"}) >= 2:
            for process in _descendants(driver.pid):
                line = Path(f"/proc/{process}/cmdline").read_bytes()
                if line.startswith(b"ray::") and b"packed_trainable" in line:
                    os.kill(process, signal.SIGKILL)
                    return process
        time.sleep(0.05)
    raise AssertionError("no worker was seen")


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found, open_still = [], [root]
    while open_still:
        children = [child for child, parent in parents.items() if parent == open_still[0]]
        found += children
        open_still = open_still[1:] + children
    return found
