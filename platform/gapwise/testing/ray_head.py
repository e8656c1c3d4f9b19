"""A real `ray start --head` on this machine with token authentication, for tests of what asks a cluster from outside.

It has a folder and ports of its own, so that it stands beside other clusters, and is torn down process by process.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from gapwise.testing.mlflow_server import environment

_PATIENCE_SECONDS = 120.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Of the cluster: without our own `gapwise`, wherever the tests are run from."""
_RAY = str(Path(sys.executable).parent / "ray")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Head:
    """A head node, and workers that join it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))  # socket paths are limited to 107 characters
        self.port, self.api_port = _free_ports(2)
        self.token_file = self.folder / "token"
        self.token_file.touch(0o600)
        self.token_file.write_text(secrets.token_hex(16))
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """For drivers."""
        return f"127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        """For Jobs."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a client that has the token."""
        return environment(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(self.token_file),
            RAY_USAGE_STATS_ENABLED="0",
            OMP_NUM_THREADS="1",
        )

    def start(self, cpus: int = 2) -> None:
        """Until the Jobs API answers."""
        words = ["--head", f"--port={self.port}", f"--temp-dir={self.folder / 'ray'}", "--include-dashboard=true"]
        self._start([*words, "--dashboard-host=127.0.0.1", f"--dashboard-port={self.api_port}"], cpus)
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not self._answers():
            assert time.monotonic() < give_up and self._started[0].poll() is None, self.log()
            time.sleep(0.2)

    def join(self, cpus: int = 1, before: str = "") -> None:
        """One more node on this machine; `before` is a shell command for it, in a mount namespace of its own."""
        self._start([f"--address={self.address}"], cpus, before)

    def log(self) -> str:
        """What `ray start` has said."""
        return (self.folder / "log").read_text()

    def _start(self, words: list[str], cpus: int, before: str = "") -> None:
        agent, client, metrics = (str(port) for port in _free_ports(3))
        command = [_RAY, "start", "--block", "--disable-usage-stats", f"--num-cpus={cpus}", *words]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f"--ray-client-server-port={client}"] if "--head" in words else []
        if before:
            command = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *command]
        env = self.environment | {"PATH": _PATH}
        with (self.folder / "log").open("ab") as log:
            self._started.append(
                subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True)
            )

    def _answers(self) -> bool:
        request = urllib.request.Request(
            f"{self.api}/api/version", headers={"Authorization": f"Bearer {self.token_file.read_text()}"}
        )
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def stop(self) -> None:
        """Every process that came of it, and its folder."""
        for process in reversed(self._started):
            for pid in [*_descendants(process.pid), process.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
