"""Eight studies at once through a real `mlflow server` with basic auth on a real PostgreSQL: nothing lost or twice.

Faked: the training alone. Eight processes tell the server what eight studies would (`gapwise.testing.busy_study`):
events on disk, delivery, parent and child runs. What arrived is counted with MLflow's own client, in the database
behind the server. How fast it went is printed and not asserted (figures: tests/benchmarks/postgres_logging.py).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from gapwise.errors import RegistryError, SpecError
from gapwise.spec.home import Home
from gapwise.testing.busy_study import LOSSES, RATES, events_file, report
from gapwise.testing.mlflow_server import BASIC_AUTH, Server, auth_variables, environment, write_auth_settings
from gapwise.testing.postgres import Postgres, binaries, running_postgres
from gapwise.tracking.client import connect

pytestmark = pytest.mark.slow

STUDIES, TRIALS, EPOCHS = 8, 12, 6
PASSWORD = "no-secret-in-a-test"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    try:
        binaries()
    except SpecError as none:
        pytest.skip(str(none))
    with running_postgres() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", str(server.passfile))
        for database in ("mlflow", "users"):
            server.create(database)
        yield server


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    write_auth_settings(folder / "auth.ini", postgres.alchemy("users"))
    known = auth_variables(folder / "auth.ini", admin=PASSWORD, key="a key")
    made = Server(folder, *BASIC_AUTH, store=postgres.alchemy("mlflow"), PGPASSFILE=str(postgres.passfile), **known)
    made.start()
    made.wait_until_it_answers()
    yield made
    made.stop()


def begin(names: list[str], server: Server, folder: Path, data: Path) -> list["subprocess.Popen[str]"]:
    known = environment(
        MLFLOW_TRACKING_URI=server.uri,
        MLFLOW_TRACKING_USERNAME="admin",
        MLFLOW_TRACKING_PASSWORD=PASSWORD,
        GAPWISE_HOME=str(folder),
    )
    command = [sys.executable, "-m", "gapwise.testing.busy_study"]
    return [
        subprocess.Popen(
            [*command, name, str(data), str(TRIALS), str(EPOCHS)], env=known, stderr=subprocess.PIPE, text=True
        )
        for name in names
    ]


@contextmanager
def put_away(studies: list["subprocess.Popen[str]"]) -> Iterator[None]:
    """However the test ends, nobody is left who would disturb the next one."""
    try:
        yield
    finally:
        for study in studies:
            study.kill()
            study.wait()
            assert study.stderr is not None
            study.stderr.close()


def all_began(folder: Path, names: list[str]) -> bool:
    """Whether every study has its run: one that cannot begin is refused, which is another test's."""
    return all(events_file(folder, name).exists() for name in names)


def failed(studies: list["subprocess.Popen[str]"]) -> list[str]:
    """What those said that ended badly."""
    return [study.communicate()[1] for study in studies if study.poll() not in (None, 0)]


def finish(studies: list["subprocess.Popen[str]"]) -> None:
    for study in studies:
        _, said = study.communicate()
        assert (study.returncode, said) == (0, "")


def delivered(folder: Path, name: str) -> int:
    """Bytes of its events that the server has taken."""
    try:
        return int(json.loads(events_file(folder, name).with_suffix(".delivered.json").read_text())["position"])
    except FileNotFoundError:
        return 0


def assert_all_is_there_once(server: Server, names: list[str]) -> None:
    client = MlflowClient(server.store)
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = [run for run in every_run(client, experiments) if run.data.tags.get("gapwise.study") in names]
    assert sorted(run.data.tags["gapwise.study"] for run in runs) == sorted(names)
    for parent in runs:
        assert parent.info.status == "FINISHED"
        children = [
            run
            for run in every_run(client, experiments)
            if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        ]
        assert sorted(run.data.tags["gapwise.key"] for run in children) == sorted(f"prlf-{n}" for n in range(TRIALS))
        for child in children:
            assert_whole(client, child)


def every_run(client: MlflowClient, experiments: list[str]) -> list[Run]:
    found, token = [], None
    while token != "":
        page = client.search_runs(experiments, max_results=1000, page_token=token)
        found += page
        token = page.token or ""
    return found


def assert_whole(client: MlflowClient, child: Run) -> None:
    number = int(child.data.tags["gapwise.key"].removeprefix("prlf-"))
    assert (child.info.status, child.data.tags["gapwise.state"]) == ("FINISHED", "complete")
    expected = {"valid/objective": "cost", "train/samples_per_second": "samples_per_second"}
    curves = {f"valid/mae/{rate}": ("curve", rate) for rate in RATES}
    losses = {f"train/{name}": ("losses", name) for name in LOSSES}
    assert set(child.data.metrics) == {*expected, *curves, *losses, "curve/mae"}
    for metric in (*expected, *curves, *losses):
        told = sorted((one.step, one.value) for one in client.get_metric_history(child.info.run_id, metric))
        steps = [(epoch, report(number, epoch)) for epoch in range(1, EPOCHS + 1)]
        if metric in expected:
            assert told == [(epoch, body[expected[metric]]) for epoch, body in steps], metric
        else:
            group, name = (curves | losses)[metric]
            assert told == [(epoch, body[group][name]) for epoch, body in steps], metric
    last = sorted((one.step, one.value) for one in client.get_metric_history(child.info.run_id, "curve/mae"))
    assert last == [(round(float(rate) * 100), report(number, EPOCHS)["curve"][rate]) for rate in RATES]


def test_eight_studies_at_once_lose_nothing_though_the_server_is_killed_in_the_middle(
    server: Server, small: Path, tmp_path: Path
) -> None:
    names = [f"busy-{number}" for number in range(STUDIES)]
    began = time.perf_counter()
    studies = begin(names, server, tmp_path, small)
    with put_away(studies):
        while not all_began(tmp_path, names) or sum(delivered(tmp_path, name) > 0 for name in names) < STUDIES / 2:
            assert failed(studies) == []
        server.signal(signal.SIGKILL)
        in_the_middle = [study.poll() is None for study in studies]
        server.start()
        server.wait_until_it_answers()
        finish(studies)
    seconds = time.perf_counter() - began
    assert any(in_the_middle), "nobody was under way when the server died"
    sys.stdout.write(
        f"{STUDIES * TRIALS * EPOCHS} reports of 11 metrics by {STUDIES} studies in {seconds:.0f} s, a kill included\n"
    )
    assert_all_is_there_once(server, names)


def test_who_does_not_know_the_password_reads_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a guess")
    with pytest.raises(RegistryError, match=r"the tracking server does not answer: .*401") as refused:
        connect(Home(tmp_path))
    assert "\n" not in str(refused.value)


def test_postgres_lets_nobody_in_without_the_password_and_listens_on_loopback_alone(postgres: Postgres) -> None:
    import psycopg

    without = os.environ | {"PGPASSFILE": "/nowhere"}
    asked = [binaries() / "psql", postgres.url("postgres"), "-w", "-c", "select 1"]
    said = subprocess.run(asked, env=without, capture_output=True, text=True)
    assert said.returncode != 0 and "no password supplied" in said.stderr
    with psycopg.connect(postgres.url("postgres")) as connection:
        shown = [
            connection.execute(f"show {name}").fetchone() for name in ("listen_addresses", "unix_socket_directories")
        ]
    assert shown == [("127.0.0.1",), ("",)]
