"""Machines for tests of several nodes: real `ray start` processes, each in a network namespace of its own.

Where namespaces cannot be made (no root, no `ip`) all nodes share this machine's loopback, which is the same but for
addresses. A node's processes are known by a variable that they inherit; killing it is SIGKILL to every one of them.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MARK = "GAPWISE_TEST_NODE"
DRAIN = """
import sys, time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
gcs, deadline = GcsClient(address=sys.argv[1]), int(1000 * (time.time() + 600))
(node,) = [key for key, one in gcs.get_all_node_info().items() if one.node_name == sys.argv[2] and one.state == 0]
accepted, why = gcs.drain_node(node.hex(), DRAIN_NODE_REASON_PREEMPTION, "spot", deadline)
assert accepted, why
"""
"""What `ray drain-node` does, by a node's name."""


class Machines:
    """A cluster whose head has no cores; workers have one each. Drivers run on the head's machine."""

    def __init__(self, *, namespaces: bool) -> None:
        self._mine, self._namespaces, self._made = f"gw{os.getpid()}", namespaces, 0
        self._temporary = tempfile.mkdtemp(prefix="gw")  # short: it is part of the paths of sockets
        self._spaces: list[str] = []
        self._space("head", 1)
        self.address = "10.99.0.1:6379" if namespaces else f"127.0.0.1:{_free_port()}"
        where = ["--port", self.address.split(":")[1], "--temp-dir", self._temporary, "--include-dashboard=false"]
        self._start("head", 1, "--head", "--num-cpus=0", *where)

    def add(self, *names: str) -> None:
        """Nodes of one core each, one after the other, for they race for names of files; no name twice."""
        for name in names:
            self._made += 1
            self._space(name, 10 + self._made)
            self._start(name, 10 + self._made, "--address", self.address, "--num-cpus=1")

    def popen(self, command: list[str], folder: Path) -> "subprocess.Popen[str]":
        """A driver on the head's machine."""
        return subprocess.Popen(
            [*self._inside("head"), *command],
            cwd=folder,
            env=self._environment("driver"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def drain(self, name: str) -> None:
        """The notice that a spot instance gets."""
        command = [*self._inside("head"), sys.executable, "-c", DRAIN, self.address, name]
        subprocess.run(command, check=True, env=self._environment("driver"))

    def running(self, name: str, kind: str) -> bool:
        """Whether a process of this kind, as Ray titles it, works on a node."""
        return any(kind in _title(process) for process in self._processes(name))

    def all_running(self, kind: str, *names: str) -> bool:
        return all(self.running(name, kind) for name in names)

    def kill(self, name: str) -> None:
        for process in self._processes(name):
            os.kill(process, signal.SIGKILL)

    def close(self) -> None:
        for name in [name for name in self._spaces if name != "head"] + ["driver", "head"]:
            self.kill(name)
        for name in self._spaces if self._namespaces else []:
            subprocess.run(["ip", "netns", "del", self._named(name)], check=True)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self, name: str, number: int, *words: str) -> None:
        ip = f"10.99.0.{number}" if self._namespaces else "127.0.0.1"
        command = [str(Path(sys.executable).parent / "ray"), "start", *words, "--node-name", name]
        command += ["--node-ip-address", ip, "--object-store-memory", "80000000", "--disable-usage-stats"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        if not self._namespaces:
            command += [f"--dashboard-agent-listen-port={_free_port()}"]
        said = Path(self._temporary) / f"{name}.log"
        with said.open("w") as log:  # a pipe would be kept open by Ray's daemons
            done = subprocess.run(
                [*self._inside(name), *command], env=self._environment(name), stdout=log, stderr=log, check=False
            )
        assert done.returncode == 0, said.read_text()

    def _environment(self, name: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY", "GAPWISE", "MLFLOW"))}
        ray = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "1000"}
        gloo = {"GLOO_SOCKET_IFNAME": "eth0" if self._namespaces else "lo"}  # this machine's name is loopback's
        path = {"PYTHONPATH": str(Path(__file__).parents[2] / "platform"), "OMP_NUM_THREADS": "1"}
        ray["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "30"  # for Ray counts a dead node for 20 s more
        return kept | ray | gloo | path | {MARK: f"{self._mine} {name}"}

    def _processes(self, name: str) -> list[int]:
        wanted, found = f"{MARK}={self._mine} {name}\0".encode(), []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes() + b"\0":
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def _named(self, name: str) -> str:
        return f"{self._mine}-{name}"

    def _inside(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", self._named(name)] if self._namespaces else []

    def _space(self, name: str, number: int) -> None:
        """A network namespace with the address 10.99.0.NUMBER, on a bridge that lies in the head's."""
        self._spaces.append(name)
        if not self._namespaces:
            return
        here, head = self._named(name), self._named("head")
        device = "br0" if name == "head" else "eth0"
        _ip("netns", "add", here)
        if name == "head":
            _ip("-n", here, "link", "add", device, "type", "bridge")
        else:
            _ip("-n", head, "link", "add", f"v{number}", "type", "veth", "peer", "name", device, "netns", here)
            _ip("-n", head, "link", "set", f"v{number}", "master", "br0", "up")
        _ip("-n", here, "addr", "add", f"10.99.0.{number}/24", "dev", device)
        for each in (device, "lo"):
            _ip("-n", here, "link", "set", each, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _namespaces_work() -> bool:
    if os.geteuid() or not shutil.which("ip"):
        return False
    name = f"gw{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    bridge = ["ip", "-n", name, "link", "add", "br0", "type", "bridge"]
    works = made and subprocess.run(bridge, capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=False)
    return works


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    made = Machines(namespaces=_namespaces_work() and not os.environ.get("GAPWISE_TEST_LOOPBACK"))
    try:
        yield made
    finally:
        made.close()
