"""Commands on a cluster through the Jobs API. The cluster is real: a head with token authentication on loopback.

Faked: in place of the cluster's interpreter stands a shell script where a test must decide when the command ends and
with which code; a cluster of another version is a small HTTP server; a stream that breaks is a client of our own.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from gapwise.distributed.jobs import Job, Jobs, Lost, Request, attempt_id
from gapwise.errors import SpecError
from gapwise.testing.ray_head import Head

WAITS = """#!/bin/sh
trap 'echo paused; exit 0' INT
echo begun
while [ ! -e {gate} ]; do sleep 0.1; done
echo ended
exit 3
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    made = Head()
    try:
        made.start()
        yield made
    finally:
        made.stop()


def gapwise(head: Head, *words: object, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gapwise", *map(str, words)]
    return subprocess.run(command, env=head.environment | env, cwd=head.folder, capture_output=True, text=True)


def begin(head: Head, *words: object) -> "subprocess.Popen[str]":
    """A client that follows its job, once the job has begun."""
    command = [sys.executable, "-m", "gapwise", "submit", "run", "--address", head.api, *map(str, words)]
    client = subprocess.Popen(
        command, env=head.environment, cwd=head.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    for line in client.stdout:
        if line == "begun\n":
            return client
    raise AssertionError(client.communicate()[1])


def state(head: Head, job: str) -> dict[str, Any]:
    body = json.loads(gapwise(head, "submit", "status", job, "--address", head.api, "--json").stdout)
    assert isinstance(body, dict)
    return body


@pytest.fixture
def waits(tmp_path: Path) -> tuple[Path, Path]:
    """A stand-in for the cluster's interpreter that ends with code 3 once the second path exists."""
    script, gate = tmp_path / "python", tmp_path / "gate"
    script.write_text(WAITS.format(gate=gate))
    script.chmod(0o755)
    return script, gate


@pytest.mark.ray
@pytest.mark.slow
class TestOnACluster:
    def test_a_command_runs_there_and_its_output_and_exit_code_come_back(self, head: Head) -> None:
        words = ("--python", sys.executable, "--id", "made", "--", "data", "synth", "made")
        done = gapwise(head, "submit", "run", "--address", head.api, "--json", *words)

        assert done.returncode == 0, done.stderr
        body = json.loads(done.stdout)
        assert (body["id"], body["status"], body["exit_code"]) == ("made", "succeeded", 0)
        assert done.stderr.startswith("job made; ")
        assert f"gapwise submit logs made --address {head.api} --follow" in done.stderr.splitlines()[0]
        assert "synthetic-small" in done.stderr

        again = gapwise(head, "submit", "--address", head.api, "--id", "made", "--", "gc")
        assert again.returncode == 2
        assert (
            again.stderr == "error: --id: 'made' was used before (allowed: an id that was never used on this cluster)\n"
        )

        log = gapwise(head, "submit", "logs", "made", "--address", head.api)
        assert "synthetic-small" in log.stdout

    def test_a_user_s_error_there_is_exit_code_2_here(self, head: Head) -> None:
        words = ("--python", sys.executable, "--", "tune", "nowhere.yaml", "--data", "made")
        done = gapwise(head, "submit", "--address", head.api, *words)

        assert done.returncode == 2
        assert "error: nowhere.yaml: cannot be read" in done.stdout

    def test_a_cluster_without_gapwise_says_what_to_do(self, head: Head) -> None:
        done = gapwise(head, "submit", "--address", head.api, "--", "gc")

        assert done.returncode == 127
        assert "--python" in done.stderr.splitlines()[-1]

    def test_a_killed_client_leaves_its_job_running_and_another_one_gets_its_exit_code(
        self, head: Head, waits: tuple[Path, Path]
    ) -> None:
        script, gate = waits
        client = begin(head, "--python", script, "--id", "orphan", "--", "gc")
        client.kill()
        client.communicate()

        assert state(head, "orphan")["status"] == "running"
        gate.touch()
        found = gapwise(head, "submit", "logs", "orphan", "--follow", "--address", head.api)
        assert found.returncode == 3, found.stderr
        lines = [line for line in found.stdout.splitlines() if line in ("begun", "ended")]
        assert lines == ["begun", "ended"], "once, from the beginning to the end; Ray's own line comes when it likes"
        assert state(head, "orphan")["exit_code"] == 3

    def test_ctrl_c_detaches_and_stop_is_ctrl_c_to_the_command(self, head: Head, waits: tuple[Path, Path]) -> None:
        client = begin(head, "--python", waits[0], "--id", "left", "--", "gc")
        client.send_signal(signal.SIGINT)
        said = client.communicate()[1]

        assert client.returncode == 1
        assert "detached; the job goes on" in said and "gapwise submit stop left" in said
        assert state(head, "left")["status"] == "running"

        stopped = gapwise(head, "submit", "stop", "left", "--address", head.api, "--json")
        body = json.loads(stopped.stdout)
        assert (stopped.returncode, body["stopped"], body["status"], body["exit_code"]) == (0, True, "stopped", 1)
        assert "paused" in gapwise(head, "submit", "logs", "left", "--address", head.api).stdout
        again = gapwise(head, "submit", "stop", "left", "--address", head.api, "--json")
        assert json.loads(again.stdout)["stopped"] is False

    @pytest.mark.parametrize(
        ("env", "says"),
        [
            ({"RAY_AUTH_MODE": "disabled"}, "this cluster asks for a token"),
            ({"RAY_AUTH_TOKEN": "wrong"}, "the token is not this cluster's"),
            ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "the token in /nowhere cannot be read: No such file or directory"),
            ({"RAY_AUTH_MODE": "tokn"}, "RAY_AUTH_MODE: unknown 'tokn'"),
        ],
    )
    @pytest.mark.parametrize("way", ["jobs", "driver"])
    def test_without_the_right_token_the_answer_is_one_line(
        self, head: Head, env: dict[str, str], says: str, way: str
    ) -> None:
        done = gapwise(head, "submit", "status", "--address", head.api, **env) if way == "jobs" else drive(head, **env)

        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert says in done.stderr

    def test_an_unknown_job_is_one_line(self, head: Head) -> None:
        for verb in ("status", "logs", "stop"):
            done = gapwise(head, "submit", verb, "nobody", "--address", head.api)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1)
            assert "no job 'nobody'" in done.stderr

    def test_the_doctor_finds_nothing_wrong_with_it(self, head: Head) -> None:
        done = gapwise(head, "doctor", "--address", head.address, "--json")

        found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
        assert done.returncode == 0, found
        assert found["auth"]["detail"] == "the cluster asks for a token"
        assert found["dashboard"]["detail"] == "on loopback (127.0.0.1)"
        assert {found[name]["status"] for name in ("ray", "token", "versions", "clocks")} == {"ok"}

    def test_a_driver_of_another_version_is_refused_before_it_joins(self, head: Head) -> None:
        """The head is told to say so of itself."""
        with head_says(head, '{"ray_version": "2.59.0", "python_version": "3.11.7"}'):
            done = drive(head)

        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "the cluster has Ray 2.59.0 on Python 3.11.7, here is Ray" in done.stderr


_EXCHANGE = """
import sys
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
print(client.internal_kv_get(b"CLUSTER_METADATA", b"cluster").decode(), end="")
client.internal_kv_put(b"CLUSTER_METADATA", sys.argv[2].encode(), True, b"cluster")
"""


@contextmanager
def head_says(head: Head, versions: str) -> Iterator[None]:
    """Lets the cluster be of other versions for a while."""

    def exchange(told: str) -> str:
        command = [sys.executable, "-c", _EXCHANGE, head.address, told]
        return subprocess.run(command, env=head.environment, capture_output=True, text=True, check=True).stdout

    before = exchange(versions)
    yield
    exchange(before)


def drive(head: Head, **env: str) -> "subprocess.CompletedProcess[str]":
    """The one command that joins a cluster and needs neither data nor a study: `connected`, as every verb has it."""
    script = (
        "import sys\nfrom gapwise.cli import main\n"
        "from gapwise.distributed.cluster import connected\n"
        "def app(**_):\n    with connected(sys.argv[1]): return 0\n"
        "main.app = app\nmain.main()"
    )
    command = [sys.executable, "-c", script, head.address]
    return subprocess.run(command, env=head.environment | env, capture_output=True, text=True)


class _OldCluster(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        version, metadata = {"ray_version": "2.59.0"}, {"data": {"pythonVersion": "3.11.7"}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(metadata if "metadata" in self.path else version).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def old_cluster() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _OldCluster)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


def test_a_cluster_of_another_ray_is_refused_before_anything_is_sent(old_cluster: str) -> None:
    with pytest.raises(SpecError, match=r"the cluster has Ray 2\.59\.0 on Python 3\.11\.7, here is Ray"):
        Jobs.connect(old_cluster)


def details(status: JobStatus, code: int | None = None) -> Any:
    return SimpleNamespace(
        submission_id="it",
        job_id=None,
        status=status,
        driver_exit_code=code,
        entrypoint="gapwise gc",
        message="Job entrypoint command failed with exit code 3, last available logs (truncated):\nlong",
        start_time=1000,
        end_time=None,
    )


class Breaking:
    """A client whose stream breaks after each of `chunks`, and begins at the beginning every time."""

    def __init__(self, *chunks: str) -> None:
        self.left, self.streams = list(chunks), 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        self.streams += 1
        yield self.left[0]
        if len(self.left) > 1:
            self.left.pop(0)
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, job: str) -> Any:
        return details(JobStatus.FAILED, 3)


def test_a_stream_that_breaks_is_taken_up_where_it_was() -> None:
    client, said = Breaking("one\n", "one\ntwo\n", "one\ntwo\nthree\n"), []

    ended = Jobs("http://there", client, sleep=lambda _: None).follow("it", said.append)

    assert "".join(said) == "one\ntwo\nthree\n"
    assert (client.streams, ended.exit_code) == (3, 3)


def test_a_cluster_that_stays_away_is_lost() -> None:
    def away(job: str) -> Any:
        raise ConnectionError

    waited: list[float] = []
    jobs = Jobs("http://there", SimpleNamespace(get_job_info=away), sleep=waited.append)
    with pytest.raises(Lost):
        jobs.wait("it")
    assert waited


@pytest.mark.parametrize(
    ("status", "code", "answer"),
    [
        ("succeeded", 0, 0),
        ("failed", 2, 2),
        ("failed", 3, 3),
        ("failed", 1, 1),
        ("failed", -9, 1),
        ("failed", None, 1),
        ("stopped", None, 1),
        ("stopped", 0, 1),
    ],
)
def test_the_exit_code_is_the_command_s_and_1_where_it_has_none(status: str, code: int | None, answer: int) -> None:
    job = Job(id="it", status=status, code=code, entrypoint="", message="", began=None, ended=None)
    assert job.exit_code == answer


def test_what_is_sent_is_the_command_and_named_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    sent: dict[str, Any] = {}
    submit: Callable[..., str] = lambda **how: sent.update(how) or "it"  # noqa: E731
    request = Request(words=("tune", "a b.yaml"), id="it", env={"GAPWISE_HOME": "/shared"}, python="/opt/py", cpus=1.0)

    Jobs("http://there", SimpleNamespace(submit_job=submit)).submit(request)

    assert sent["entrypoint"] == "/opt/py -m gapwise tune 'a b.yaml'"
    assert (
        sent["runtime_env"]["env_vars"].items() >= {"GAPWISE_HOME": "/shared", "RAY_JOB_STOP_SIGNAL": "SIGINT"}.items()
    )
    assert sent["entrypoint_num_cpus"] == 1.0 and sent["entrypoint_memory"] is None
    assert "geheim" not in str(sent)


def test_only_a_shipped_request_carries_the_package() -> None:
    plain, shipped = Request(words=("gc",), id="it"), Request(words=("gc",), id="it", ship=True)
    assert (plain.entrypoint, "py_modules" in plain.runtime_env) == ("gapwise gc", False)
    assert shipped.entrypoint == "python -m gapwise gc"
    assert Path(shipped.runtime_env["py_modules"][0]).name == "gapwise"


def test_an_attempt_has_one_id_and_the_next_another() -> None:
    assert attempt_id("tick-2026", 1) == attempt_id("tick-2026", 1) != attempt_id("tick-2026", 2)
