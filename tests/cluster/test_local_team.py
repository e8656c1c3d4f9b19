"""A team's servers on this machine: what is refused before anything starts, and README's walk on one real stack.

Faked: servers that are `sleep`, where it is only about processes. The real stack is PostgreSQL, MLflow and Ray in a
folder of its own; who listens where is read from the kernel, not from the servers.
"""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

import pytest

from gapwise.errors import SpecError
from gapwise.testing.guides import Block, blocks, lay_out, walk
from gapwise.testing.mlflow_server import PLATFORM, environment
from gapwise.testing.postgres import binaries

SCRIPTS = Path(__file__).parents[2] / "cluster" / "local"
LISTENING, LOOPBACK = "0A", ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import processes

    return processes


def team(verb: str, folder: Path, *more: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPTS / "team.py"), verb, str(folder), *more]
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False)


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def test_a_process_is_stopped_with_what_it_started(processes: ModuleType, tmp_path: Path) -> None:
    script = "import subprocess; subprocess.run(['sleep', '600'])"
    started = processes.start([sys.executable, "-c", script], os.environ, tmp_path / "log", {})
    assert processes.wait_for(lambda: len(group(started.pid)) == 2, 60.0)
    processes.stop(started, signal.SIGTERM)
    assert processes.wait_for(lambda: group(started.pid) == [], 60.0)


def group(number: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields and int(fields[2]) == number and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def test_a_process_that_only_has_the_same_id_is_left_in_peace(processes: ModuleType, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as somebody:
        processes.stop(processes.Process(somebody.pid, "1"), signal.SIGTERM)
        assert somebody.poll() is None
        somebody.kill()


def test_a_folder_that_is_no_team_s_is_not_taken_down_nor_removed(tmp_path: Path) -> None:
    assert "no team was ever up here" in refused(team("down", tmp_path, "--purge"))
    assert tmp_path.exists()


def test_a_machine_without_postgresql_is_told_in_a_line(tmp_path: Path) -> None:
    assert "no PostgreSQL server" in refused(team("up", tmp_path / "team", PATH="/nowhere"))
    assert not (tmp_path / "team").exists()


def test_a_machine_without_the_extras_is_told_which(tmp_path: Path) -> None:
    """The module is hidden from whoever asks whether it could be imported."""
    skip_without_postgres()
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as known\n"
        "found = known.find_spec\n"
        "known.find_spec = lambda name, *more: None if name == 'aiohttp_cors' else found(name, *more)\n"
    )
    done = team("up", tmp_path / "team", PYTHONPATH=f"{tmp_path}:{PLATFORM}")
    assert "needs ray[default]: the extra `cluster`" in refused(done)


def skip_without_postgres() -> None:
    try:
        binaries()
    except SpecError as none:
        pytest.skip(str(none))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to choose another account")
def test_root_is_told_that_its_database_s_account_cannot_come_here() -> None:
    skip_without_postgres()
    with tempfile.TemporaryDirectory() as closed:
        line = refused(team("up", Path(closed) / "team"))
        assert "cannot come to this folder" in line and "/var/tmp" in line
        assert list(Path(closed).iterdir()) == []


def test_a_folder_with_something_else_in_it_is_not_made_a_team_s(tmp_path: Path) -> None:
    skip_without_postgres()
    (tmp_path / "thesis.txt").touch()
    assert "holds something else" in refused(team("up", tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.timeout(100)
def test_when_one_server_does_not_start_nobody_waits_for_another(
    processes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import servers
    import team

    def server(name: str, port: str, *command: str) -> Any:
        return servers.Server(name, port, list(command), dict(os.environ), lambda: False)

    never, fails = server("never", "ray", "sleep", "600"), server("fails", "mlflow", "false")
    monkeypatch.setattr(team, "servers", lambda _: [[never, server("later", "client", "sleep", "600")], [fails]])
    place = team.Team(tmp_path / "team")
    (place.folder / "postgres").mkdir(parents=True)
    place.make()
    with pytest.raises(SpecError, match="fails did not start: it said nothing"):
        team._start_what_is_down(place)
    assert place.running == {}
    assert {file.name for file in (place.folder / "logs").iterdir()} <= {"never.log", "fails.log"}


@pytest.fixture
def checkout() -> Iterator[Path]:
    """In a folder that everybody may enter, so that root's PostgreSQL can; everything in it is stopped at the end."""
    skip_without_postgres()
    made = Path(tempfile.mkdtemp(prefix="gapwise-walk-"))
    made.chmod(0o711)
    yield lay_out(made)
    team("down", made / ".team", "--purge")
    shutil.rmtree(made)


@contextmanager
def walked(written: list[Block], checkout: Path) -> "Iterator[Future[subprocess.CompletedProcess[str]]]":
    """README's walk, which stops before its last block until this is left; the answer is of all of it."""
    pause = Block("here", 0, "console", "", "", "touch paused\nwhile [ ! -e go ]; do sleep 0.2; done\n")
    with ThreadPoolExecutor(1) as thread:
        walking = thread.submit(walk, [*written[:-1], pause, written[-1]], checkout)
        try:
            while not (checkout / "paused").exists() and not walking.done():
                time.sleep(0.2)
            yield walking
        finally:
            (checkout / "go").touch()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_readme_s_walk_as_a_team_runs_as_it_is_written_and_its_servers_are_closed_restarted_and_stopped(
    processes: ModuleType, checkout: Path
) -> None:
    folder, written = checkout / ".team", blocks("README.md", "run-team")
    assert len(written) >= 4
    assert written[0].text.startswith("make team-up") and written[-1].text.startswith("make team-down")
    with walked(written, checkout) as walking:
        assert not walking.done(), walking.result()
        state = known(folder)
        assert set(state) == {"postgres", "mlflow", "ray-head", "ray-worker-1", "ray-worker-2"}
        ours = descendants({process[0] for process in state.values()})
        check_closed(folder, ours)

        assert "are up already" in team("up", folder).stdout
        assert known(folder) == state
        for crashed in ("mlflow", "ray-head"):
            os.kill(state[crashed][0], signal.SIGKILL)
        again = team("up", folder)
        assert "up: mlflow, ray-head, ray-worker-1, ray-worker-2 started" in again.stdout, again.stderr + logs(folder)
        assert {name for name, process in known(folder).items() if process == state[name]} == {"postgres"}
        ours |= descendants({process[0] for process in known(folder).values()})
    check_walk(checkout, walking.result())

    assert processes.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours), 60.0), ours
    kept = json.loads((folder / "team.json").read_text())
    assert not Path(kept["ray_folder"]).exists()
    assert (folder / "postgres" / "PG_VERSION").exists()
    with socket.create_server(("127.0.0.1", kept["ports"]["postgres"])):
        line = refused(team("up", folder))
        assert f"port {kept['ports']['postgres']} of postgres is taken by another program" in line
    assert team("down", folder, "--purge").stdout.startswith("nothing was running\nremoved ")
    assert not folder.exists()


def check_closed(folder: Path, ours: set[int]) -> None:
    """On loopback, and to nobody without the secrets, which nobody else can read."""
    assert {address for address, _ in listening(ours)} <= set(LOOPBACK), listening(ours)
    assert len(listening(ours)) >= 5
    for file in [folder / "team.env", *(folder / "secrets").iterdir()]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    told = (folder / "team.json").read_text() + command_lines(ours)
    assert not [secret for secret in secrets(folder) if secret in told]
    env = variables(folder)
    assert asked(f"{env['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get?experiment_id=0") == 401
    assert asked(f"{env['RAY_API_SERVER_ADDRESS']}/api/jobs/") == 401


def check_walk(checkout: Path, done: "subprocess.CompletedProcess[str]") -> None:
    said = done.stdout + done.stderr
    for study in ("ada", "ben"):
        assert re.search(rf"{study} .*finished", done.stdout), said[-6000:]
    _, _, shown = done.stdout.partition("small: champions\n")  # as `registry show` begins
    assert re.search(r"^ *0\.0 +v1 ", shown, re.MULTILINE), said[-6000:]
    assert "stopped ray-worker-2, ray-worker-1, ray-head, mlflow, postgres" in done.stdout
    assert not [secret for secret in secrets(checkout / ".team") if secret in said]
    assert not list((checkout / ".team" / "home" / "studies").rglob("journal.log")), "the studies are in PostgreSQL"
    assert not (checkout / ".gapwise").exists(), "everything went to the shared home and the team's server"


def known(folder: Path) -> dict[str, list[Any]]:
    return dict(json.loads((folder / "team.json").read_text())["running"])


def secrets(folder: Path) -> list[str]:
    return [(folder / "secrets" / name).read_text() for name in ("admin", "team", "flask", "ray-token")]


def variables(folder: Path) -> dict[str, str]:
    lines = (folder / "team.env").read_text().splitlines()
    return dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in lines)


def logs(folder: Path) -> str:
    return "\n".join(file.read_text()[-1500:] for file in (folder / "logs").glob("*.log"))


def asked(url: str) -> int:
    """The status that somebody without password or token is answered with."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def descendants(roots: set[int]) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(processes: set[int]) -> list[tuple[str, int]]:
    """Address in the kernel's writing and port of every TCP socket on which one of them listens."""
    inodes = set()
    for pid in processes:
        try:
            inodes |= {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        except FileNotFoundError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


def command_lines(processes: set[int]) -> str:
    files = [Path(f"/proc/{pid}/cmdline") for pid in processes]
    return "".join(file.read_text() for file in files if file.exists())
