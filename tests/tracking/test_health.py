"""What the doctor says of MLflow. Checks get facts that are written here; `gather` looks at real stores."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gapwise.spec.home import Home
from gapwise.testing.mlflow_server import Server
from gapwise.tracking.client import connect
from gapwise.tracking.health import TrackingFacts, check_artifacts, check_schema, check_server, check_tracking, gather

SERVER = TrackingFacts(uri="http://mlflow:5000", kind="server")
EMBEDDED = TrackingFacts(uri="sqlite:////home/mlflow.db", kind="embedded", revision="a1", head="a1")


def test_a_store_answers_or_does_not() -> None:
    assert check_tracking(SERVER).status == "ok"
    assert "made by the first command" in check_tracking(replace(EMBEDDED, exists=False)).detail
    down = check_tracking(replace(SERVER, error="connection refused"))
    assert (down.status, "MLFLOW_TRACKING_URI" in down.mend) == ("fail", True)
    assert "connection refused" in down.detail


def test_a_database_is_of_the_installed_mlflow_s_making() -> None:
    assert check_schema(EMBEDDED).status == check_schema(SERVER).status == "ok"
    old = check_schema(replace(EMBEDDED, revision="a0"))
    assert (old.status, "mlflow db upgrade" in old.mend) == ("fail", True)


def test_several_nodes_need_a_server() -> None:
    assert check_server(SERVER, 3).status == check_server(EMBEDDED, 1).status == "ok"
    assert check_server(EMBEDDED, 2).status == "fail"
    assert check_server(replace(EMBEDDED, uri="postgresql://db/mlflow", kind="database"), 2).status == "warn"


def test_artifacts_are_taken_or_not() -> None:
    assert check_artifacts(SERVER).status == "ok"
    assert check_artifacts(replace(SERVER, error="down")).detail == "not asked"
    assert check_artifacts(replace(SERVER, artifacts_error="access denied")).status == "fail"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home(tmp_path / "home")


def test_looking_makes_nothing(home: Home) -> None:
    facts = gather(home)
    assert (facts.kind, facts.exists, facts.error) == ("embedded", False, "")
    assert not home.root.exists()


def test_an_embedded_store_is_migrated_until_somebody_has_an_older_one(home: Home) -> None:
    connect(home)
    facts = gather(home)
    assert facts.revision == facts.head is not None
    assert facts.artifacts_error == ""

    with sqlite3.connect(home.database) as database:
        database.execute("update alembic_version set version_num = 'older'")
    database.close()
    assert check_schema(gather(home)).status == "fail"


def test_what_is_no_database_is_said(home: Home) -> None:
    home.root.mkdir()
    home.database.write_bytes(b"not a database, whatever its name")
    assert "not a database" in gather(home).error


def test_a_server_that_is_down_is_said_and_passwords_are_not(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # restored afterwards, for `gather` sets it
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:geheim@127.0.0.1:1")
    facts = gather(home)
    assert facts.error
    assert "geheim" not in facts.uri


@pytest.mark.slow
def test_a_real_server_answers_and_keeps_nothing_of_the_artifact(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        server.wait_until_it_answers()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        facts = gather(home)
        assert facts == TrackingFacts(uri=server.uri, kind="server")
        assert [one.name for one in server.artifacts.rglob("probe")] == []
    finally:
        server.stop()
