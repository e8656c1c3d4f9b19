"""Whole studies beside a real `mlflow server` on loopback that is stopped (SIGSTOP: it accepts and never answers),
killed and started again. Nothing is faked; the studies, their workers and the server are processes of their own.

What must have arrived is read from the study's journal, not from the events that were delivered. To see who talks to
the server, each Python process of the study records its connections to it, through a `sitecustomize` of ours.
"""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gapwise.testing.mlflow_server import PLATFORM, Server, environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE: dict[str, Any] = {
    "question": "what if the server is not there?",
    "trials": 3,
    "baseline_share": 0.34,
    "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
    "train": {
        "epochs": 3,
        "patience": 0,
        "batch_size": 200,
        "objective": {"metric": "mae"},
        "protocol": {"rates": [0.0, 0.5]},
    },
    "arms": {"prlf": {"parameters": {"model.tau_rel": {"role": "searched", "low": 0.1, "high": 2.0, "log": True}}}},
    "second_phase": {"top_k": 1, "seeds": 1, "cap": 1, "mask_seeds": 2},
    "pruner": {"name": "none"},
}
RECORD_CONNECTIONS = """
import json, os, sys, threading

def say(what):
    line = json.dumps({"what": what, "command": sys.orig_argv, "thread": threading.current_thread().name}) + "\\n"
    file = os.open(os.environ["CONNECTIONS_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)

def hook(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if arguments[1][1] == int(os.environ["CONNECTIONS_PORT"]):
            say("connected")

say("began")
sys.addaudithook(hook)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    made.start()
    made.wait_until_it_answers()
    yield made
    made.stop()


class Study:
    """`gapwise tune` on the server, in a process of its own."""

    def __init__(self, folder: Path, data: Path, server: Server, **variables: str) -> None:
        self._folder = folder
        self.home = folder / ".gapwise" / "studies" / "it"
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        self._command = [sys.executable, "-c", "from gapwise.cli.main import main; main()", "tune", "space.yaml"]
        self._command += ["--data", str(data), "--study", "it", "--concurrency", "1", "--json"]
        self._environment = environment(MLFLOW_TRACKING_URI=server.uri, **variables)

    def run(self, *more: str, when: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
        """What it answered and what it said; `when` {words in a line of progress: what to do then}, in that order."""
        waiting, said = dict(when or {}), []
        with subprocess.Popen(
            [*self._command, *more],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as driver:
            assert driver.stderr is not None and driver.stdout is not None
            for line in driver.stderr:
                said.append(line)
                if waiting and (words := next(iter(waiting))) in line:
                    waiting.pop(words)()
            answer = driver.stdout.read()
        assert driver.returncode == 0, "".join(said)
        assert not waiting, "".join(said)
        return json.loads(answer), "".join(said)


def keys_and_trials(journal: Path) -> dict[str, tuple[str, optuna.trial.FrozenTrial]]:
    """{key: (phase, trial)} of every trial that the journal has, all of them finished."""
    storage, found = JournalStorage(JournalFileBackend(str(journal))), {}
    for summary in optuna.get_all_study_summaries(storage):
        phase, arm = summary.study_name.split("/")
        for trial in optuna.load_study(study_name=summary.study_name, storage=storage).trials:
            seed = f"-seed{trial.user_attrs['seed']}" if phase == "seeds" else ""
            found[f"{arm}-{trial.user_attrs.get('source', trial.number)}{seed}"] = (phase, trial)
    return found


def children(client: MlflowClient, parent: Run) -> list[Run]:
    wanted = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return list(client.search_runs([parent.info.experiment_id], filter_string=wanted))


def histories(server: Server) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(step, value) of every metric by run and name, from the server's own database: it would be many requests."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with closing(sqlite3.connect(server.store.removeprefix("sqlite:///"))) as database:
        for run, name, step, value in database.execute("SELECT run_uuid, key, step, value FROM metrics ORDER BY step"):
            found.setdefault((run, name), []).append((step, value))
    return found


def assert_nothing_is_missing_and_nothing_twice(server: Server, journal: Path, parent_run_id: str) -> None:
    client = MlflowClient(server.store)
    parent = client.get_run(parent_run_id)
    assert parent.info.status == "FINISHED"
    files = {path.name for path in server.artifacts.rglob("*") if path.is_file()}
    assert files >= {"best.json", "baseline.json", "diagnostics.json", "report.html", "robustness.png"}
    expected, runs, history = keys_and_trials(journal), children(client, parent), histories(server)
    assert sorted(run.data.tags["gapwise.key"] for run in runs) == sorted(expected)
    for run in runs:
        phase, trial = expected[run.data.tags["gapwise.key"]]
        assert (run.info.status, run.data.tags["gapwise.state"]) == ("FINISHED", "complete")
        assert {name: float(run.data.params[name]) for name in trial.params} == trial.params
        objective = history[run.info.run_id, "valid/objective"]
        assert [step for step, _ in objective] == [1, 2, 3]
        assert phase == "seeds" or dict(objective) == trial.intermediate_values
        curve = trial.user_attrs["outcome"]["metrics"]["mae"]
        assert history[run.info.run_id, "curve/mae"] == [(0, curve["0.0"]), (50, curve["0.5"])]
        for metric in run.data.metrics:
            steps = [step for step, _ in history[run.info.run_id, metric]]
            assert steps == ([1, 2, 3] if metric.startswith(("valid/", "train/")) else [0, 50]), metric
        assert {"valid/mae/0.0", "valid/mae/0.5", "train/total", "train/samples_per_second"} <= set(run.data.metrics)


def test_a_server_that_hangs_or_is_gone_loses_nothing_and_no_trial_calls_it(
    small: Path, tmp_path: Path, server: Server
) -> None:
    """It comes back once without anybody noticing; then it hangs to the end, and its clients, who wait five seconds,
    many times over, give up on it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(RECORD_CONNECTIONS)
    record = tmp_path / "connections.jsonl"
    study = Study(
        tmp_path,
        small,
        server,
        PYTHONPATH=f"{tmp_path / 'site'}:{PLATFORM}",
        CONNECTIONS_FILE=str(record),
        CONNECTIONS_PORT=str(server.port),
        MLFLOW_HTTP_REQUEST_TIMEOUT="5",
    )

    def back() -> None:
        server.start()
        server.wait_until_it_answers()

    answer, said = study.run(
        when={
            "search 1/5": lambda: server.signal(signal.SIGSTOP),
            "search 3/5": lambda: server.signal(signal.SIGKILL),
            "second phase: ": back,
            "refit: ": lambda: server.signal(signal.SIGSTOP),
        }
    )
    (warning,) = [line for line in said.splitlines() if "MLflow" in line]
    assert f"{study.home}/journal.events.jsonl" in warning and "--resume" in warning
    assert said.index(warning) > said.index("refit: ")
    assert (study.home / "result.json").exists()

    server.signal(signal.SIGCONT)
    server.wait_until_it_answers()
    again, said = study.run("--resume")
    assert "MLflow" not in said and "Retry" not in said, said
    assert again["best"] == answer["best"] and again["parent_run_id"] == answer["parent_run_id"]
    server.stop()

    assert_nothing_is_missing_and_nothing_twice(server, study.home / "journal.log", answer["parent_run_id"])
    records = [json.loads(line) for line in record.read_text().splitlines()]
    workers = [one for one in records if any(word.endswith("default_worker.py") for word in one["command"])]
    assert len(workers) >= 2, "the book and the trials ran in processes that would have recorded a connection"
    assert [one for one in workers if one["what"] == "connected"] == []
    assert {one["thread"] for one in records if one["what"] == "connected"} == {"MainThread", "gapwise-delivery"}
