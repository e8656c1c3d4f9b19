"""`make ui`: both dashboards of a home. One test starts the real ones; in the others an application is faked.

The home has a study that was written by hand, and the embedded tracking store. Without the extra `ui` the real test
demands that it is named as missing.
"""

import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from gapwise.errors import SpecError
from gapwise.spec.home import Home
from gapwise.testing.mlflow_server import environment

SCRIPTS = Path(__file__).parents[2] / "cluster" / "local"
HAS_DASHBOARD = importlib.util.find_spec("optuna_dashboard") is not None


@pytest.fixture
def ui(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    import ui

    return ui


def test_the_home_is_that_of_the_environment_then_of_here_then_the_demo_s(
    ui: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GAPWISE_HOME", raising=False)
    with pytest.raises(SpecError, match="no home"):
        ui._home()
    for folder in ("demo/.gapwise", ".gapwise", "other"):
        (tmp_path / folder).mkdir(parents=True)
        if folder == "other":
            monkeypatch.setenv("GAPWISE_HOME", "other")
        assert ui._home() == Home(tmp_path / folder)


def test_a_home_that_is_named_and_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "ui.py")]
    variables = environment(GAPWISE_HOME=str(tmp_path / "none"))
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "no home" in done.stderr


def test_a_port_that_is_taken_is_not_asked_for_again(ui: ModuleType) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert ui._port(taken) != taken


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_whatever_would_change_something_is_refused_before_the_dashboard_sees_it(ui: ModuleType, method: str) -> None:
    asked: list[str] = []
    begun: list[str] = []

    def app(environ: dict[str, Any], begin: Callable[..., Any]) -> list[bytes]:
        asked.append(environ["REQUEST_METHOD"])
        return [b"page"]

    only = ui.read_only(app)
    assert only({"REQUEST_METHOD": "GET"}, begun.append) == [b"page"]
    said = only({"REQUEST_METHOD": method}, lambda status, headers: begun.append(status))
    assert asked == ["GET"] and begun == ["403 Forbidden"]
    assert "nothing was changed" in json.loads(b"".join(said))["reason"]


def test_what_is_missing_is_said_and_nothing_is_started(
    ui: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui.importlib.util, "find_spec", lambda _: None)
    with ExitStack() as servers:
        lines = ui.show(Home(tmp_path), servers)
    assert "nothing was tracked" in lines[1]
    assert "pip install 'gapwise-platform[ui]'" in lines[2]


def test_a_team_s_server_is_named_and_not_started(
    ui: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    with ExitStack() as servers:
        assert "http://tracking:5000" in ui._mlflow(Home(tmp_path), servers)


def test_studies_in_a_database_are_named_as_not_shown(ui: ModuleType, tmp_path: Path) -> None:
    for name, storage in (("files", "journal"), ("base", "postgresql://me@db/studies")):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "study.json").write_text(json.dumps({"storage": storage}))
    (said,) = ui._elsewhere(Home(tmp_path))
    assert said.endswith(": base")


def fetched(address: str, method: str = "GET") -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=30) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


@pytest.mark.slow
def test_both_answer_on_loopback_change_no_study_and_end_with_ctrl_c(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    from gapwise.tracking.client import connect

    home = Home(tmp_path / "home")
    connect(home).client.create_experiment("toy")
    journal = write_study(home.studies, "night") / "journal.log"
    before = journal.read_bytes()
    command = [sys.executable, str(SCRIPTS / "ui.py")]
    variables = environment(GAPWISE_HOME=str(home.root))
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        said = "".join(iter(it.stdout.readline, "Ctrl-C stops what was started\n"))
        addresses = re.findall(r"http://127\.0\.0\.1:\d+", said)
        children = Path(f"/proc/{it.pid}/task/{it.pid}/children").read_text().split()
        assert fetched(f"{addresses[0]}/health")[0] == 200
        if HAS_DASHBOARD:
            assert b"night: search/prlf" in fetched(f"{addresses[1]}/api/studies")[1]
            assert fetched(f"{addresses[1]}/api/studies/0", "DELETE")[0] == 403
        else:
            assert "is missing" in said
        it.send_signal(signal.SIGINT)
        assert it.wait(timeout=120) == 0
    assert journal.read_bytes() == before
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)
    for address in addresses:
        with pytest.raises((URLError, ConnectionError)):
            fetched(address)
