"""Studies that share a real Ray cluster of two cores: drivers are processes, and so is a third study, the test's.

Nothing of ours is faked. The test's study runs no trials: it takes and gives back slots, so that the moments at
which the others must wait, give way and go on do not depend on how fast the machine is.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster

from gapwise.tuning.events import Event, read_events

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CORES = 2
SPACE: dict[str, Any] = {
    "question": "whose turn is it?",
    "trials": 3,
    "baseline_share": 0.34,
    "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
    "train": {
        "epochs": 3,
        "patience": 0,
        "batch_size": 40,
        "objective": {"metric": "mae"},
        "protocol": {"rates": [0.0, 0.5]},
    },
    "arms": {"prlf": {"parameters": {"model.tau_rel": {"role": "searched", "low": 0.1, "high": 2.0, "log": True}}}},
    "pruner": {"name": "none"},
    "second_phase": {"top_k": 1, "seeds": 1, "cap": 1, "mask_seeds": 2},
}


def eventually(what: str, holds: Callable[[], Any], seconds: float = 400.0) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"in {seconds:g} s not: {what}"
        time.sleep(0.1)
    return found


class Team:
    """The cluster, and its port for Prometheus."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self._port = address, port

    def metrics(self) -> dict[str, float]:
        """Ours, by name and labels but for those that Ray adds."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_gapwise")]
        found = {}
        for line in lines:
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
            ours = [f"{key}={text}" for key, text in re.findall(r'(study|phase|state|model)="([^"]*)"', labels)]
            found[" ".join([name.removeprefix("ray_"), *sorted(ours)])] = float(value)
        return found


OWN_STUDY = """
import json, sys, ray
from gapwise.distributed.cluster import NAMESPACE
from gapwise.distributed.cluster_book import reach
from gapwise.distributed.turns import Turns
ray.init(address=sys.argv[1], namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
reach()
book = ray.get_actor("cluster book 1", namespace=NAMESPACE)
turns = Turns("the test", "the test", int(sys.argv[2]))
answers = {
    "claims": lambda: {one.name: [one.wanted, one.held] for one in ray.get(book.claims.remote())},
    "cores": lambda: ray.available_resources().get("CPU", 0),
    "reserve": turns.reserve,
    "used": turns.used,
    "hold": turns.hold,
}
with turns.taking():
    for line in sys.stdin:
        what, *given = json.loads(line)
        print(json.dumps(answers[what](*given)), flush=True)
"""


class OwnStudy:
    """In a process of its own: this one may be connected to the cluster that other tests share."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, *what: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def wanted_and_held(self, name: str) -> list[int]:
        """By a study on the book; zeros where it is not."""
        return list(self.ask("claims").get(name, [0, 0]))

    def take_all(self) -> None:
        """As slots come free."""
        for held in range(CORES):
            eventually("a slot for the test's own study", lambda held=held: self.ask("reserve", held, CORES))
            self.ask("used")

    def cores_are_free(self) -> None:
        eventually("Ray has all cores", lambda: self.ask("cores") == CORES)


@contextmanager
def own_study(team: Team, priority: int) -> Iterator[OwnStudy]:
    command = [sys.executable, "-c", OWN_STUDY, team.address, str(priority)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield OwnStudy(process)
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}.items():
            patch.setenv(name, value)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": CORES, "metrics_export_port": port, "include_dashboard": False},
        )
        try:
            yield Team(cluster.address, port)
        finally:
            cluster.shutdown()


@contextmanager
def driver(team: Team, folder: Path, data: Path, name: str, priority: int) -> Iterator["subprocess.Popen[str]"]:
    """`gapwise tune` on the cluster; killed at the end where it still runs."""
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    command = [sys.executable, "-c", "from gapwise.cli.main import main; main()", "tune", "space.yaml", "--json"]
    command += ["--data", str(data), "--study", name, "--address", team.address, "--priority", str(priority)]
    command += ["--no-report"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "GAPWISE"))}
    kept["GAPWISE_HOME"] = str(folder / f"home of {name}")
    with (folder / f"{name}.err").open("w") as said, (folder / f"{name}.out").open("w") as answer:
        running = subprocess.Popen(command, cwd=folder, env=kept, stdout=answer, stderr=said, text=True)
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def events(folder: Path, name: str) -> list[Event]:
    return read_events(folder / f"home of {name}" / "studies" / name / "journal.events.jsonl", 0, most=10_000)[0]


def starts(found: list[Event]) -> list[float]:
    return [one.time for one in found if one.kind == "started" and one.assignment.phase == "search"]


def most_at_once(found: list[Event]) -> int:
    """Of trials of all studies, from when they are handed out until they have ended."""
    moments = [(one.time, 1 if one.kind == "started" else -1) for one in found if one.kind != "reported"]
    running = peak = 0
    for _, change in sorted(moments):
        running += change
        peak = max(peak, running)
    return peak


def shown(folder: Path, name: str) -> str:
    command = [sys.executable, "-c", "from gapwise.cli.main import main; main()", "study", "show", name]
    environment = os.environ | {"GAPWISE_HOME": str(folder / f"home of {name}")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def shows_none_held(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics, once they have come that far."""
    return metrics if metrics.get("gapwise_slots_held study=low") == 0 else {}


def test_studies_give_way_wait_and_go_on_by_priority_and_tell_prometheus(
    team: Team, small: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        own = stack.enter_context(own_study(team, priority=100))
        low = stack.enter_context(driver(team, tmp_path, small, "low", 0))
        eventually(
            "the only study holds all, or has failed", lambda: own.wanted_and_held("low")[1] == CORES or low.poll()
        )
        own.take_all()
        own.cores_are_free()
        assert low.poll() is None
        before = len(starts(events(tmp_path, "low")))
        assert "0 of 2 slots, priority 0; waiting for 2 slots: study the test (priority 100) is first" in shown(
            tmp_path, "low"
        )
        metrics = eventually("metrics", lambda: shows_none_held(team.metrics()))
        high = stack.enter_context(driver(team, tmp_path, small, "high", 5))
        eventually("both wait", lambda: own.wanted_and_held("high") == [CORES, 0])
        own.ask("hold", 0, 0)
        for running in (low, high):
            running.wait(600)
    for name, running in (("low", low), ("high", high)):
        assert running.returncode == 0, (tmp_path / f"{name}.err").read_text()
        assert json.loads((tmp_path / f"{name}.out").read_text())["trials"] == {
            "complete": 5,
            "pruned": 0,
            "failed": 0,
            "running": 0,
        }
    ours, theirs = events(tmp_path, "low"), events(tmp_path, "high")
    assert most_at_once(ours + theirs) <= CORES
    assert min(starts(ours)[before:]) > max(starts(theirs)), "a higher priority does not wait for a lower one"
    said = (tmp_path / "low.err").read_text()
    assert "waiting for 2 slots: study the test (priority 100) is first" in said
    assert metrics["gapwise_slots_wanted study=low"] == CORES
    complete = metrics["gapwise_trials phase=search state=complete study=low"]
    assert complete == before
    assert metrics["gapwise_epochs_total study=low"] == 3 * complete
    assert metrics["gapwise_best_objective model=prlf study=low"] > 0


def test_slots_of_a_killed_driver_return(team: Team, small: Path, tmp_path: Path) -> None:
    with own_study(team, priority=-5) as own:
        with driver(team, tmp_path, small, "dead", 0) as running:
            eventually("it runs", lambda: own.wanted_and_held("dead")[1] == CORES)
            running.send_signal(signal.SIGKILL)
            running.wait()
        assert own.wanted_and_held("dead")[1] == CORES, "nobody has told the book"
        own.take_all()
        own.cores_are_free()
        assert own.wanted_and_held("dead") == [0, 0]
