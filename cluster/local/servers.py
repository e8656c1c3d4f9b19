"""What a team's servers are: for each its command, its environment, and how it shows that it is ready.

PostgreSQL holds what MLflow tracks, MLflow's users and the studies; MLflow keeps artifacts in a folder behind it, so
that nobody else needs to reach that folder; a Ray head that runs no trials, and two workers. All on loopback, all with
a password or token. Nothing here starts or stops anything: see team.py.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray_node import LOOPBACK_ONLY

from gapwise.errors import SpecError
from gapwise.testing.mlflow_server import (
    BASIC_AUTH,
    QUIETLY,
    auth_variables,
    environment,
    server_command,
    write_auth_settings,
)
from gapwise.testing.postgres import Postgres, account

DATABASES = ("mlflow", "mlflow_auth", "studies")
PORTS = ("postgres", "mlflow", "ray", "dashboard", "client", "agent-head", "agent-1", "agent-2")
_OBJECT_STORE_BYTES = 200_000_000
_ASKING_SECONDS = 10.0


class Place(NamedTuple):
    """A team's folder, its ports by name, and its secrets by name."""

    folder: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]
    ray_folder: str
    """Short, and not in the team's folder: Ray puts sockets there, whose paths have 107 characters at most."""

    @property
    def postgres(self) -> Postgres:
        return Postgres(self.folder / "postgres", self.ports["postgres"], self.folder / "secrets" / "pgpass")

    @property
    def auth_settings(self) -> Path:
        return self.folder / "secrets" / "basic_auth.ini"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.ports['dashboard']}"


class Server(NamedTuple):
    """One server of the team's."""

    name: str
    port: str
    """The name of the port that must be free before it starts."""
    command: list[str]
    environment: dict[str, str]
    ready: Callable[[], bool]
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    who: dict[str, Any] = {}  # noqa: RUF012  # keywords of subprocess: as which account it runs
    goodbye: signal.Signals = signal.SIGTERM
    needs: tuple[str, ...] = ()
    """Before one of these is started anew, this is stopped: Ray takes a worker of the old head for a head."""


def servers(place: Place) -> list[list[Server]]:
    """Those of a list are started one after the other, the lists side by side.

    Two Ray nodes of one address do not join at once: the second one waits in vain for its own.
    """
    head = _node(place, "ray-head", "agent-head", _head_options(place), nodes=1)
    workers = [
        _node(place, f"ray-worker-{number}", f"agent-{number}", _worker_options(place), nodes=1 + number)
        for number in (1, 2)
    ]
    return [[_postgres(place), _mlflow(place)], [head, *workers]]


def variables(place: Place) -> dict[str, str]:
    """What a shell needs to work with the team's servers, and what their nodes give to the jobs that they run."""
    return {
        "MLFLOW_TRACKING_URI": place.mlflow,
        "MLFLOW_TRACKING_USERNAME": "team",
        "MLFLOW_TRACKING_PASSWORD": place.secrets["team"],
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(place.folder / "secrets" / "ray-token"),
        **LOOPBACK_ONLY,
        "GAPWISE_HOME": str(place.folder / "home"),
        "GAPWISE_STORAGE": place.postgres.url("studies"),
        "PGPASSFILE": str(place.postgres.passfile),
    }


def addresses(place: Place) -> dict[str, str]:
    """For a shell alone: a node of the cluster must not think that it joins another."""
    return {
        "RAY_ADDRESS": f"127.0.0.1:{place.ports['ray']}",
        "RAY_API_SERVER_ADDRESS": place.dashboard,
        "GAPWISE_CLUSTER_PYTHON": sys.executable,
    }


def _postgres(place: Place) -> Server:
    def make_databases() -> None:
        for database in DATABASES:
            place.postgres.create(database)

    return Server(
        "postgres",
        "postgres",
        place.postgres.command(),
        environment(),
        place.postgres.answers,
        after=make_databases,
        who=account(),
        goodbye=signal.SIGINT,
    )


def _mlflow(place: Place) -> Server:
    variables = environment(
        **QUIETLY,
        **auth_variables(place.auth_settings, admin=place.secrets["admin"], key=place.secrets["flask"]),
        PGPASSFILE=str(place.postgres.passfile),
    )
    store = place.postgres.alchemy("mlflow")

    def prepare() -> None:
        """Migrated once, by one process: several would race."""
        write_auth_settings(place.auth_settings, place.postgres.alchemy("mlflow_auth"))
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", store]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SpecError(f"mlflow db upgrade: {(done.stderr.strip() or '?').splitlines()[-1]}", where="mlflow")

    command = server_command(place.ports["mlflow"], store, place.folder / "artifacts", BASIC_AUTH, workers=2)
    return Server(
        "mlflow",
        "mlflow",
        command,
        variables,
        lambda: _answer(f"{place.mlflow}/health", {}) is not None,
        before=prepare,
        after=lambda: _make_user(place),
    )


def _make_user(place: Place) -> None:
    """`team`, who is no administrator, unless it is there."""
    known = base64.b64encode(f"admin:{place.secrets['admin']}".encode()).decode()
    asked = urllib.request.Request(
        f"{place.mlflow}/api/2.0/mlflow/users/create",
        json.dumps({"username": "team", "password": place.secrets["team"]}).encode(),
        {"Authorization": f"Basic {known}", "Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(asked, timeout=60).close()
    except urllib.error.HTTPError as error:
        if "RESOURCE_ALREADY_EXISTS" not in error.read().decode():
            raise SpecError(f"MLflow did not make the user: {error}", where=place.mlflow) from error


def _node(place: Place, name: str, agent: str, options: list[str], *, nodes: int) -> Server:
    command = [sys.executable, str(Path(__file__).with_name("ray_node.py")), "start", "--block", *options]
    command += ["--node-ip-address", "127.0.0.1", "--node-name", name, "--disable-usage-stats"]
    command += ["--min-worker-port", "0", "--max-worker-port", "0"]  # any free one: nodes of one machine share them
    command += ["--object-store-memory", str(_OBJECT_STORE_BYTES)]
    command += ["--dashboard-agent-listen-port", str(place.ports[agent])]
    return Server(
        name,
        "ray" if nodes == 1 else agent,
        command,
        environment(**{name: text for name, text in variables(place).items() if name not in LOOPBACK_ONLY}),
        lambda: name in _nodes(place),
        needs=() if nodes == 1 else ("ray-head",),
    )


def _head_options(place: Place) -> list[str]:
    options = {"--port": place.ports["ray"], "--dashboard-port": place.ports["dashboard"], "--num-cpus": 0}
    options |= {"--ray-client-server-port": place.ports["client"]}
    words = [str(word) for option in options.items() for word in option]
    return ["--head", "--dashboard-host", "127.0.0.1", "--temp-dir", place.ray_folder, *words]


def _worker_options(place: Place) -> list[str]:
    cpus = max(2, (os.cpu_count() or 2) // 2)
    return ["--address", f"127.0.0.1:{place.ports['ray']}", "--num-cpus", str(cpus)]


def _nodes(place: Place) -> set[str]:
    """The names of the nodes that are alive."""
    asked = _answer(f"{place.dashboard}/api/v0/nodes", {"Authorization": f"Bearer {place.secrets['ray-token']}"})
    if asked is None:
        return set()
    listed = json.loads(asked)["data"]["result"]["result"]
    return {node["node_name"] for node in listed if node["state"] == "ALIVE"}


def _answer(url: str, headers: dict[str, str]) -> bytes | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_ASKING_SECONDS) as answer:
            return bytes(answer.read())
    except OSError:
        return None
