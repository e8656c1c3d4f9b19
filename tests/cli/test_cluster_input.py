"""`submit`, `doctor` and `--address` through the command line, with input that is wrong.

Nothing is faked but that nothing listens: ports are closed ones. No Ray is started, and what is refused leaves nothing
behind.
"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from gapwise.distributed.placement import Node, Resources
from gapwise.distributed.shared import look_here

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "GAPWISE_STORAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed() -> str:
    """A loopback address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def refused(answer: Any) -> str:
    assert (answer.code, answer.out) == (2, ""), answer
    assert answer.err.count("\n") == 1 and answer.err.startswith("error: "), answer.err
    assert list(Path.cwd().iterdir()) == []
    return str(answer.err)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("submit", "tune", "space.yaml"), "no `--` before 'tune'"),
        (
            ("submit", "--", "tuna"),
            "'tuna' is no command to submit; did you mean 'tune'? (allowed: ablate, compare, data,",
        ),
        (("submit", "--", "submit", "status"), "'submit' is no command to submit"),
        (("submit", "run", "--id", "a b", "--", "gc"), "--id: 'a b' cannot be a name"),
        (("submit", "--memory", "much", "--", "gc"), "--memory: 'much' is not a size"),
        (("submit", "--env", "1X=2", "--", "gc"), "--env: '1X=2' is no variable"),
        (("submit", "--env", "NOT_SET_ANYWHERE", "--", "gc"), "NOT_SET_ANYWHERE is not set here"),
        (("submit", "--env", "GAPWISE_HOME=.gapwise", "--", "gc"), "'.gapwise' is not absolute"),
        (("submit", "--cpus", "-1", "--", "gc"), "--cpus"),
        (("submit", "--address", "127.0.0.1:8265", "--", "gc"), "not the address of a Jobs API"),
        (("submit", "status", "--address", "http://h:99999"), "Port out of range"),
        (("submit", "status", "--address", "http://"), "not the address of a Jobs API"),
    ],
)
def test_what_cannot_be_submitted_is_refused_before_a_cluster_is_asked(call: Call, words: Any, says: str) -> None:
    assert says in refused(call(*words))


def test_a_secret_is_not_forwarded_by_name_but_goes_where_it_was_written(
    call: Call, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    by_name = refused(call("submit", "--env", "MLFLOW_TRACKING_PASSWORD", "--", "gc"))
    assert "everybody on the cluster can read" in by_name and "geheim" not in by_name
    written = ("submit", "--env", "MLFLOW_TRACKING_PASSWORD=geheim", "--address", f"http://{closed}", "--", "gc")
    assert "no Ray cluster answers" in refused(call(*written))


def test_an_unreachable_jobs_api_is_one_line(call: Call, closed: str) -> None:
    for words in (("status",), ("logs", "it"), ("stop", "it"), ("--", "gc")):
        verb = [words[0], *words[1:]] if words[0] != "--" else []
        rest = [] if verb else list(words)
        line = refused(call("submit", *verb, "--address", f"http://{closed}", *rest))
        assert f"no Ray cluster answers at {closed}: Connection refused" in line


def test_a_token_that_cannot_be_read_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path))
    assert f"the token in {tmp_path} cannot be read: Is a directory" in refused(call("submit", "status"))
    (tmp_path / "token").touch()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert "no token in" in refused(call("submit", "status"))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:8265", "not the address of a cluster for a driver"),
        ("ray://127.0.0.1:10001", "not the address of a cluster for a driver"),
        ("nonsense", "not the address of a cluster for a driver"),
        ("head:sixthousand", "not the address of a cluster for a driver"),
        ("head:0", "not the address of a cluster for a driver"),
        ("", "Connection refused"),
    ],
)
def test_a_driver_s_address_is_refused_in_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, small: Path, closed: str, address: str, says: str
) -> None:
    """The empty address stands for one where nothing listens."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test's cluster may be up in this process
    space = Path(__file__).parents[2] / "search_spaces" / "train_prlf.yaml"
    answer = call("train", space, "--data", small, "--address", address or closed)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert says in answer.err


@pytest.mark.parametrize("words", [("train", "train_prlf.yaml"), ("tune", "smoke.yaml"), ("ablate", "train_prlf.yaml")])
def test_a_home_that_a_node_does_not_see_is_refused_before_a_run_exists(
    call: Call, monkeypatch: pytest.MonkeyPatch, small: Path, words: tuple[str, str]
) -> None:
    """The cluster is faked: two nodes, one of which says that it does not see the folder."""

    @contextmanager
    def two_nodes(address: str) -> Iterator[Resources]:
        yield Resources((Node(2), Node(2)))

    for module in ("distributed.cluster", "verbs.train", "verbs.tune"):  # those that have the name by themselves
        monkeypatch.setattr(f"gapwise.{module}.connected", two_nodes)
    monkeypatch.setattr("gapwise.distributed.shared.living_nodes", lambda: {"here": "1", "there": "2"})
    monkeypatch.setattr(
        "gapwise.distributed.shared.ask_nodes", lambda look: {"here": look_here(look, "here"), "there": look.folder}
    )
    spec = Path(__file__).parents[2] / "search_spaces" / words[1]
    answer = call(words[0], spec, "--data", small, "--address", "auto")
    home = Path.cwd() / ".gapwise"
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines()[-1].startswith(f"error: {home}: node there does not see this folder")
    assert "GAPWISE_HOME" in answer.err
    assert {one.name for one in home.iterdir()} & {"runs", "studies"} == set()
    assert list(home.glob(".probe*")) == []


def doctor(call: Call, *words: object, code: int = 0) -> dict[str, dict[str, str]]:
    answer = call("doctor", "--json", *words)
    assert answer.code == code, answer
    checks = json.loads(answer.out)["checks"]
    assert all(set(one) == {"name", "status", "detail", "mend"} for one in checks)
    return {one["name"]: one for one in checks}


def test_a_laptop_is_healthy_without_ray_and_nothing_is_made(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", never)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = doctor(call)
    assert {one["status"] for one in found.values()} <= {"ok", "warn"}
    assert found["ray"] == {
        "name": "ray",
        "status": "ok",
        "detail": "no cluster: private Ray on this machine",
        "mend": "",
    }
    assert list(Path.cwd().iterdir()) == []


def test_what_fails_is_exit_code_1_with_its_mend(call: Call, closed: str, tmp_path: Path) -> None:
    found = doctor(call, "--address", closed, "--data", tmp_path, "--concurrency", "100000", code=1)
    assert {found[name]["status"] for name in ("ray", "data", "gpus")} == {"fail"}
    assert all(one["mend"] for one in found.values() if one["status"] != "ok")


def test_study_storage_is_asked_where_it_is_a_database(call: Call, closed: str) -> None:
    away = doctor(call, "--storage", f"postgresql://me@{closed}/studies", code=1)["study storage"]
    assert (away["status"], "does not answer" in away["detail"]) == ("fail", True)
    assert doctor(call, "--storage", "sqlite:///studies.db")["study storage"]["status"] == "ok"
    assert not Path("studies.db").exists()
    assert "study storage" not in doctor(call, "--storage", "journal")


def test_the_table_for_people_counts(call: Call) -> None:
    answer = call("doctor")
    assert answer.code == 0
    assert "0 failed" in answer.out
