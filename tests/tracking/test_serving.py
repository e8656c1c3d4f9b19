"""The router behind HTTP: `mlflow models serve --env-manager local`, asked by a plain HTTP client.

Faked: nothing but the size. One model, trained for one epoch, serves two rates.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gapwise.data.rows import to_rows
from gapwise.data.store import Dataset, open_dataset, statistics
from gapwise.models.saved import save_model
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.tracking import registering, registry
from gapwise.tracking.client import Tracking, connect, experiment_id
from gapwise.tracking.router import Router
from gapwise.tracking.router_model import ensure_router
from gapwise.tracking.runs import start_run
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

pytestmark = pytest.mark.slow


class Served(NamedTuple):
    url: str
    tracking: Tracking
    dataset: Dataset


@pytest.fixture(scope="module")
def served(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    dataset, home = open_dataset(small), Home(tmp_path_factory.mktemp("home"))
    fields = {"model": {"name": "late_fusion", "width": 8, "heads": 2, "depth": 1}, "epochs": 1, "batch_size": 400}
    job = whole_job(TrainSpec.model_validate(fields), dataset, statistics(dataset.train))
    found = fit(job, NoReporter(), NoSink())
    tracking = connect(home)
    run = start_run(tracking, experiment_id(tracking, home, "small"), "one", tags={})
    for seed, rate in (("1", "00"), ("2", "60")):
        folder = tmp_path_factory.mktemp("refit") / seed / "model"
        save_model(folder, trained_model(job, found, found.kept.metrics))
        made = registering.register(tracking, "small", folder, run_id=run, facts={})
        registry.set_alias(tracking, "small", f"champion-mr{rate}", made.version)
    ensure_router(tracking, "small")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["models", "serve", "-m", "models:/small-router@champion", "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    with (home.root / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "-h", "127.0.0.1", "-p", str(port)],
            env=os.environ | {"MLFLOW_TRACKING_URI": tracking.uri, "OMP_NUM_THREADS": "1", "PATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, server, home.root / "serve.log")
        yield Served(url, tracking, dataset)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=2)
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.5)
    raise AssertionError(f"the server did not come up: {log.read_text()}")


def ask(served: Served, rows: Any) -> tuple[int, Any]:
    """Status, and what was answered."""
    body = rows if isinstance(rows, bytes) else json.dumps({"dataframe_records": rows}).encode()
    request = urllib.request.Request(f"{served.url}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def whole_row(served: Served) -> dict[str, Any]:
    columns = to_rows(served.dataset.valid.batch(np.arange(1)))
    return {name: column[0].tolist() for name, column in columns.items() if column[0] is not None}


def test_rows_with_any_modalities_missing_are_answered_and_the_version_is_named(served: Served) -> None:
    row = whole_row(served)
    names = sorted(row)
    part = [None if place % 5 < 2 else frame for place, frame in enumerate(row["text"])]
    rows = [row, *({name: row[name]} for name in names), {**row, "text": part}, dict.fromkeys(names)]
    status, found = ask(served, [dict.fromkeys(names) | one for one in rows])
    assert status == 200
    alone = 1 - 1 / len(names)
    rates = [0.0, *[alone] * len(names), part.count(None) / len(part) / len(names), 1.0]
    assert [one["missing_rate"] for one in found] == pytest.approx(rates, abs=1e-3)
    assert [one["version"] for one in found] == ["1" if rate <= 0.3 else "2" for rate in rates]
    assert np.isfinite([one["prediction"] for one in found]).all()
    expected = Router(served.tracking, "small").answer(served.dataset.valid.batch(np.arange(1))).predictions
    assert found[0]["prediction"] == pytest.approx(float(expected[0]), abs=1e-4)


def test_a_promotion_is_followed_without_a_restart(served: Served) -> None:
    row = whole_row(served)
    assert ask(served, [row])[1][0]["version"] == "1"
    registry.set_alias(served.tracking, "small", "champion-mr00", "2")
    try:
        for _ in range(40):
            version = ask(served, [row])[1][0]["version"]
            if version == "2":
                break
            time.sleep(0.5)
    finally:
        registry.set_alias(served.tracking, "small", "champion-mr00", "1")
    assert version == "2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": [[1.0, 2.0]]}, "2 features a frame"),
        ({"text": "hello"}, "text"),
        ({"text": [["a"] * 16]}, "text"),
        ({"text": [[1.0] * 15 + [float("nan")]]}, "not finite"),
    ],
)
def test_what_cannot_be_read_is_refused_naming_the_modality(served: Served, change: dict[str, Any], said: str) -> None:
    status, answer = ask(served, [whole_row(served) | change])
    assert status == 400 and said in answer


def test_a_batch_without_rows_and_a_row_without_any_known_modality_are_refused(served: Served) -> None:
    status, answer = ask(served, [])
    assert status == 400 and "no " in answer
    status, answer = ask(served, [{"smell": [[1.0]]}])
    assert status == 400 and "no modality among the columns" in answer


def test_mlflow_drops_a_column_that_the_signature_does_not_know(served: Served) -> None:
    """MLflow's own rule, before any code of ours: a misspelt modality is a missing one."""
    row = whole_row(served)
    misspelt = {("txt" if name == "text" else name): cell for name, cell in row.items()}
    status, found = ask(served, [misspelt])
    assert status == 200 and found[0]["missing_rate"] == pytest.approx(1 / len(row), abs=1e-3)
