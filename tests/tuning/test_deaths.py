"""A whole study whose driver and workers are killed at random moments, beside the same trials in this process.

Nothing is faked: drivers are processes, SIGKILL is SIGKILL. A study's processes are known by a variable that they
inherit. `GAPWISE_TEST_DEATHS_TRIALS=60` makes it longer, and has everybody of `KILLS` die.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from gapwise.spec.loader import load_spec
from gapwise.spec.search import SearchSpec
from gapwise.testing.studies import StudyHere
from gapwise.tuning.assignment import PHASES, Finished, count_states
from gapwise.tuning.book import StudyBook

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRIALS = int(os.environ.get("GAPWISE_TEST_DEATHS_TRIALS", "8"))
MARK = "GAPWISE_TEST_STUDY"
SPACE: dict[str, Any] = {
    "question": "what if everything dies?",
    "trials": TRIALS - 2,
    "baseline_share": 2 / (TRIALS - 2),
    "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
    "train": {
        "epochs": 6,
        "patience": 0,
        "batch_size": 40,
        "objective": {"metric": "mae"},
        "protocol": {"rates": [0.0, 0.5]},
    },
    "arms": {"prlf": {"parameters": {"model.tau_rel": {"role": "searched", "low": 0.1, "high": 2.0, "log": True}}}},
    "sampler": {"startup": 3},
    "pruner": {"name": "asha", "min_epochs": 2, "reduction": 2},
    "second_phase": {"top_k": 1, "seeds": 1, "cap": 1, "mask_seeds": 2},
    "worker_deaths": 20,
}
KILLS = ["worker", "driver", "worker", "driver", "worker", "worker", "driver", "worker"][: None if TRIALS >= 60 else 3]


class Study:
    """`gapwise tune` in a folder of its own."""

    def __init__(self, folder: Path, data: Path) -> None:
        folder.mkdir()
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        self.folder, self._data, self._name = folder, data, f"{folder}"
        self.home = folder / ".gapwise" / "studies" / "it"

    def start(self, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from gapwise.cli.main import main; main()", "tune", "space.yaml", "--json"]
        command += ["--data", str(self._data), "--study", "it", "--concurrency", "1", "--no-report", *more]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "GAPWISE", "RAY"))}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=kept | {MARK: self._name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def workers(self) -> list[int]:
        """Processes that train a trial just now."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                ours = f"{MARK}={self._name}\0".encode() in (entry / "environ").read_bytes() + b"\0"
                if ours and (entry / "cmdline").read_bytes().startswith(b"ray::ImplicitFunc.train"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def finished(self) -> list[Finished]:
        book = StudyBook(load_spec(SearchSpec, self.folder / "space.yaml"), self.home / "journal.log")
        return [one for phase in PHASES for one in book.finished(phase)]

    def child_runs(self, parent: str) -> Counter[str]:
        client = MlflowClient(f"sqlite:///{self.folder / '.gapwise' / 'mlflow.db'}")
        experiments = [one.experiment_id for one in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000)
        assert {run.info.status for run in runs} == {"FINISHED"}
        return Counter(run.info.run_name for run in runs)


def run_through_deaths(study: Study, seed: int) -> tuple[dict[str, Any], list[str]]:
    """The answer of the last driver, and who was killed; a kill follows the one before by a random while."""
    chance, left, killed = random.Random(seed), list(KILLS), []
    while True:
        with study.start(*(["--resume"] if study.home.exists() else [])) as driver:
            over = threading.Event()

            def reap(driver: "subprocess.Popen[str]" = driver, over: threading.Event = over) -> None:
                while left and not over.wait(chance.uniform(0.3, 2.5)):
                    workers = study.workers()
                    if not workers:
                        continue
                    kind = left.pop(0)
                    killed.append(kind)
                    os.kill(driver.pid if kind == "driver" else chance.choice(workers), signal.SIGKILL)
                    if kind == "driver":
                        return

            reaper = threading.Thread(target=reap)
            reaper.start()
            answer, said = driver.communicate()
            over.set()
            reaper.join()
        if driver.returncode != -signal.SIGKILL:
            assert driver.returncode == 0, said
            return json.loads(answer), killed


def table(found: list[Finished]) -> list[tuple[Any, ...]]:
    return [
        (one.assignment.key, one.assignment.values, one.outcome.state, one.outcome.best_epoch, one.outcome.cost)
        for one in found
    ]


@pytest.mark.timeout(3600)
def test_a_study_survives_the_deaths_of_its_drivers_and_workers(small: Path, tmp_path: Path) -> None:
    peaceful = StudyHere(SearchSpec.model_validate(SPACE), small, tmp_path / "peaceful")
    expected = [*peaceful.search(), *peaceful.repeat()]
    tried = Study(tmp_path / "tried", small)
    answer, killed = run_through_deaths(tried, seed=0)
    assert killed == KILLS, "the study was over before everybody had died: more trials are needed"

    states = count_states(one.outcome for one in expected if one.assignment.phase == "search")
    assert answer["trials"] == states and sum(states.values()) == TRIALS
    assert states["running"] == states["failed"] == 0
    found = tried.finished()
    assert [row[:4] for row in table(found)] == [row[:4] for row in table(expected)]
    assert [row[4] for row in table(found)] == pytest.approx([row[4] for row in table(expected)], abs=1e-6)
    runs = tried.child_runs(answer["parent_run_id"])
    assert set(runs.values()) == {1}
    assert sorted(runs) == sorted(one.assignment.key for one in found)
