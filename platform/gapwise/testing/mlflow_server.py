"""A real `mlflow server` on loopback, for tests of what happens through one, or when one goes away."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from gapwise.testing.postgres import free_port, write_secret

PLATFORM = Path(__file__).parents[2]
QUIETLY = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Without it a server starts seven more processes, for evaluation jobs that nobody here asks for."""


BASIC_AUTH = ("--app-name", "basic-auth")


def server_command(
    port: int, store: str, artifacts: Path, options: Sequence[str] = (), *, workers: int = 1
) -> list[str]:
    """`store` is a database's URL, without a password: command lines are for everybody to read."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}", "--workers", str(workers)]
    return [*command, "--backend-store-uri", store, "--artifacts-destination", str(artifacts), *options]


def write_auth_settings(settings: Path, store: str) -> None:
    """What BASIC_AUTH reads: its users are in the database `store`.

    Who has a password may do anything to experiments and models, whoever made them; users are `admin`'s. Passwords
    are checked once a minute: the check itself takes longer than most requests.
    """
    lines = ["[mlflow]", "default_permission = MANAGE", f"database_uri = {store}", "admin_username = admin"]
    write_secret(settings, "\n".join([*lines, "auth_cache_ttl_seconds = 60", ""]))


def auth_variables(settings: Path, *, admin: str, key: str) -> dict[str, str]:
    """For the server's environment: the settings, the first administrator's password, and the key of its cookies."""
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": admin,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": key,
    }


class Server:
    """`mlflow server` on SQLite or `store`, always on the same port, with all its processes in one group."""

    def __init__(self, folder: Path, *options: str, store: str | None = None, **variables: str) -> None:
        self._folder, self._options, self._variables = folder, options, variables
        self.store = store or f"sqlite:///{folder}/mlflow.db"
        self.artifacts = folder / "artifacts"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = server_command(self.port, self.store, self.artifacts, self._options)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment(**QUIETLY, **self._variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Sent to this server's own group."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
        if number is signal.SIGKILL:
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)

    def wait_until_it_answers(self) -> None:
        while True:
            assert self._process is not None and self._process.poll() is None, "the server did not start"
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=60).close()
            except OSError:
                continue
            return


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "GAPWISE", "RAY"))}
    return kept | {"PYTHONPATH": str(PLATFORM), "MLFLOW_DISABLE_TELEMETRY": "true"} | more
