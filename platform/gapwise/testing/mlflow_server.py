"""A real `mlflow server` on loopback, for tests of what happens through one, or when one goes away."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

PLATFORM = Path(__file__).parents[2]
_QUIETLY = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Without it a server starts seven more processes, for evaluation jobs that nobody here asks for."""


class Server:
    """`mlflow server` on SQLite, always on the same port, with all its processes in one group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store = f"sqlite:///{folder}/mlflow.db"
        self.artifacts = folder / "artifacts"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.store, "--artifacts-destination", str(self.artifacts), "--workers", "1"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment(**_QUIETLY), stdout=log, stderr=log, start_new_session=True
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
