"""Studies and training over several machines that are lost, that join, and that say beforehand that they will go.

Nothing is faked: nodes are `ray start` processes in network namespaces (conftest.py), drivers are the command line, a
lost machine is SIGKILL to all that ran on it. What a run did is read from what it reported: an epoch that was trained
twice is reported twice. Dropout is 0 where runs on different numbers of workers are compared.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from gapwise.data.store import opened
from gapwise.evaluation.objective import settled
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import DirectorySink, NoSink
from gapwise.training.job import whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import EpochReport, Position
from gapwise.tuning.events import events_beside, read_events

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EVERY = 5
"""Epochs between two checkpoints; few enough that none is kept in time unless somebody asks."""
MODEL = {"width": 16, "heads": 2, "depth": 1, "summary_tokens": 2, "dropout": 0.0}
TRAIN: dict[str, Any] = {"batch_size": 10, "patience": 0, "checkpoint_every": EVERY, "protocol": {"rates": [0.0, 0.5]}}
SPEC = TRAIN | {"model": MODEL | {"name": "late_fusion"}, "epochs": 2000}  # most of them are not waited for
SPACE: dict[str, Any] = {
    "question": "what if machines come and go?",
    "trials": 8,
    "baseline_share": 0.25,
    "common": {f"model.{name}": value for name, value in MODEL.items()},
    "train": TRAIN | {"epochs": 9, "objective": {"metric": "mae"}},
    "arms": {
        "late_fusion": None,
        "prlf": {"parameters": {"optimiser.lr": {"role": "searched", "low": 1e-4, "high": 1e-2, "log": True}}},
    },
    "pruner": {"name": "none"},
    "second_phase": {"top_k": 1, "seeds": 1, "cap": 1, "mask_seeds": 2},
    "worker_deaths": 1,
}
QUICK = "from gapwise.distributed import launch; launch._SECONDS_BETWEEN_SIZES = 2.0; "


def until(what: Callable[[], bool], driver: "subprocess.Popen[str]", seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@contextmanager
def started(machines: Any, folder: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", f"{QUICK}from gapwise.cli.main import main; main()", *words]
    driver = machines.popen([*command, "--json", "--address", machines.address], folder)
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def answer(driver: "subprocess.Popen[str]") -> dict[str, Any]:
    out, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    return dict(json.loads(out))


def progress(folder: Path) -> list[dict[str, Any]]:
    """Of the only run there is, its epochs in the order in which they were trained; a line in writing is left out."""
    files = list(folder.glob(".gapwise/runs/*/progress.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines(True) if line.endswith("\n")]


def trained_epochs(folder: Path) -> list[int]:
    return [one["epoch"] for one in progress(folder)]


def repeated(epochs: list[int]) -> list[int]:
    """How many were trained again, each time that happened."""
    return [before - after + 1 for before, after in pairwise(epochs) if after <= before]


class Listener:
    """Keeps what it hears, by epoch, and stops the run after `last`."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.heard: dict[int, dict[str, dict[str, float]]] = {}

    def report(self, epoch: EpochReport) -> bool:
        self.heard[epoch.epoch] = epoch.metrics
        return epoch.epoch >= self._last


def alone(fields: dict[str, Any], data: Path, listener: Listener) -> None:
    """What a single worker in this process makes of the spec."""
    dataset, moments = opened(str(data))
    spec = settled(TrainSpec.model_validate(fields), dataset.manifest.shape(), dataset.valid.labels)
    fit(whole_job(spec, dataset, moments), listener, NoSink())


def check_same(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for metric, curve in expected.items():
        assert found[metric] == pytest.approx(curve, abs=1e-3 if metric == "mae" else 1e-2)


def test_a_run_that_grows_is_drained_and_loses_a_machine_trains_what_one_machine_does(
    machines: Any, small: Path, tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))

    def all_train(*names: str) -> bool:
        return machines.all_running("RayTrainWorker", *names)

    machines.add("a1")
    with started(machines, tmp_path, "train", "spec.yaml", "--data", str(small), "--workers", "1:2") as driver:
        until(lambda: len(trained_epochs(tmp_path)) >= 1, driver)
        machines.add("a2")
        until(lambda: all_train("a1", "a2"), driver)
        grown = len(trained_epochs(tmp_path))
        until(lambda: len(trained_epochs(tmp_path)) >= grown + 2, driver)
        assert all_train("a1", "a2")

        before = len(trained_epochs(tmp_path))
        machines.drain("a1")
        until(lambda: not machines.running("a1", "RayTrainWorker"), driver)
        machines.kill("a1")
        (kept,) = tmp_path.glob(".gapwise/runs/*/resume.safetensors")
        noticed = trained_epochs(tmp_path)[-1]
        until(lambda: trained_epochs(tmp_path)[-1] >= noticed + 1, driver)
        assert repeated(trained_epochs(tmp_path)[before - 1 :]) == [], "at a notice nothing is lost"
        assert kept.exists() and all_train("a2")

        machines.add("a3")
        until(lambda: all_train("a2", "a3"), driver)
        grown = len(trained_epochs(tmp_path))
        until(lambda: len(trained_epochs(tmp_path)) >= grown + 2, driver)
        machines.kill("a2")
        last = max(trained_epochs(tmp_path))
        until(lambda: trained_epochs(tmp_path)[-1] >= last + 2, driver)
    told = progress(tmp_path)
    again = repeated([one["epoch"] for one in told])
    assert len(again) <= 3 and all(lost <= EVERY for lost in again), "one lost machine, and twice it grew"
    listener = Listener(told[-1]["epoch"])
    alone(SPEC, small, listener)
    for one in told:
        check_same(one["metrics"], listener.heard[one["epoch"]])
    machines.kill("a3")


def test_a_study_loses_a_machine_gains_two_and_gives_one_back(machines: Any, small: Path, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    study = tmp_path / ".gapwise" / "studies" / "it"

    def told() -> dict[str, int]:
        """The last epoch of each searched trial that has begun."""
        events, _ = read_events(events_beside(study / "journal.log"), 0, most=10_000)
        return {one.assignment.key: one.body["epoch"] for one in events if one.kind == "reported"}

    def kept() -> dict[str, Position]:
        """Where the trials that have a checkpoint would go on."""
        sinks = {file.parent.name: DirectorySink(file.parent, TrainSpec()) for file in study.glob("trials/*/resume*")}
        found = {key: sink.load() for key, sink in sinks.items()}
        return {key: one.progress.position for key, one in found.items() if one is not None}

    def asked_for() -> list[str]:
        """Trials whose checkpoint is one that their spec does not ask for."""
        return [key for key, position in kept().items() if position.batch or position.epoch % EVERY]

    def left() -> bool:
        return any("about to go" in one.read_text() for one in study.glob("tune/trials/*/error.txt"))

    def all_train(*names: str) -> bool:
        return machines.all_running("ImplicitFunc.train", *names)

    machines.add("c1", "c2")
    command = ["tune", "space.yaml", "--data", str(small), "--study", "it", "--no-report"]
    with started(machines, tmp_path, *command) as driver:
        until(lambda: all_train("c1", "c2") and any(epoch > EVERY for epoch in told().values()), driver)
        machines.kill("c1")
        done, before = told(), kept()
        assert any(position.epoch >= EVERY for position in before.values())
        assert all(done[key] - position.epoch <= EVERY for key, position in before.items())
        machines.add("c3", "c4")
        until(lambda: all_train("c2", "c3", "c4"), driver)  # three at once where two fitted at the start
        assert asked_for() == []
        machines.drain("c2")
        until(lambda: bool(asked_for()), driver)
        (moved,) = asked_for()
        assert kept()[moved].epoch == told()[moved], "at a notice nothing is lost"
        until(lambda: left() and not all_train("c2"), driver)
        machines.kill("c2")
        found = answer(driver)
    assert found["trials"] == {"complete": 10, "pruned": 0, "failed": 0, "running": 0}
    assert set(told().values()) == {SPACE["train"]["epochs"]}
    for name in ("c3", "c4"):
        machines.kill(name)
