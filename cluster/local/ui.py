"""MLflow and the Optuna dashboard of one home, on loopback until Ctrl-C: `make ui`.

The home is GAPWISE_HOME, else `.gapwise` here, else the demo's. MLflow serves the home's own store. The dashboard
serves all of its studies through `MergedJournals`, which cannot write: its buttons for deleting and editing do nothing
there, for an Optuna journal is the study. What is missing is said, and the other one started all the same.
"""

import importlib.util
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

from processes import start, stop, wait_for

from gapwise.errors import GapwiseError, SpecError
from gapwise.spec.home import STUDY_FILE, Home, study_names
from gapwise.testing.postgres import free_port

_HERE = "127.0.0.1"
_MLFLOW_PORT, _STUDIES_PORT = 5000, 8080
_STARTING_SECONDS = 90.0
_CANDIDATES = (".gapwise", "demo/.gapwise")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as servers:
            for line in show(_home(), servers):
                _say(line)
            _say("Ctrl-C stops what was started")
            threading.Event().wait()
    except KeyboardInterrupt:
        _say("stopped")
    except GapwiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _home() -> Home:
    """Raises SpecError where there is none."""
    named = os.environ.get("GAPWISE_HOME")
    found = next((Path(one) for one in ([named] if named else _CANDIDATES) if Path(one).is_dir()), None)
    if found is None:
        where = "GAPWISE_HOME" if named else str(Path.cwd())
        raise SpecError("no home of gapwise here", where=where, allowed="make ui GAPWISE_HOME=FOLDER, after make demo")
    return Home(found.absolute())


def show(here: Home, servers: ExitStack) -> list[str]:
    """Start both; a line for each. They end with `servers`."""
    lines = [f"home              {here.root}", _mlflow(here, servers)]
    return [*lines, _studies(here, servers), *_elsewhere(here)]


def _mlflow(here: Home, servers: ExitStack) -> str:
    if here.tracking_uri != here.embedded_uri:
        return f"MLflow            {here.tracking_uri} (MLFLOW_TRACKING_URI; not started here)"
    if not here.database.exists():
        return "MLflow            nothing was tracked in this home yet"
    port = _port(_MLFLOW_PORT)
    folder = Path(servers.enter_context(tempfile.TemporaryDirectory(prefix="gapwise-ui-")))
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", here.embedded_uri]
    command += ["--host", _HERE, "--port", str(port), "--workers", "1"]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = start(command, quiet, folder / "mlflow.log", {})
    servers.callback(stop, process, signal.SIGTERM)
    if not wait_for(lambda: _answers(f"http://{_HERE}:{port}/health"), _STARTING_SECONDS):
        last = (folder / "mlflow.log").read_text().strip().splitlines()[-1:]
        raise SpecError(f"does not start: {' '.join(last) or 'it says nothing'}", where="mlflow server")
    return f"MLflow            http://{_HERE}:{port}/#/experiments"


def _studies(here: Home, servers: ExitStack) -> str:
    if importlib.util.find_spec("optuna_dashboard") is None:
        return "Optuna dashboard  is missing: pip install 'gapwise-platform[ui]'"
    import optuna_dashboard
    from optuna.storages import JournalStorage

    from gapwise.tuning.merged_journals import MergedJournals

    port = _port(_STUDIES_PORT)
    storage = JournalStorage(MergedJournals(here.studies))
    served = make_server(_HERE, port, read_only(optuna_dashboard.wsgi(storage)), handler_class=_Quiet)
    thread = threading.Thread(target=served.serve_forever, name="gapwise-dashboard", daemon=True)
    thread.start()
    _close_with(servers, thread.join, served.server_close, served.shutdown)
    return f"Optuna dashboard  http://{_HERE}:{port}/dashboard (read only: its buttons change nothing)"


def read_only(app: Application) -> Application:
    """Refuse what would change something, in words that the dashboard shows."""

    def answer(environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, begin)
        begin("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "studies are only shown here; nothing was changed"}).encode()]

    return answer


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """No line a request."""


def _close_with(servers: ExitStack, *last_first: Callable[[], Any]) -> None:
    for one in last_first:
        servers.callback(one)


def _elsewhere(here: Home) -> list[str]:
    """Studies that the dashboard does not show."""
    names = [name for name in study_names(here.studies) if _storage(here.studies / name / STUDY_FILE) != "journal"]
    return [f"not shown, for their trials are in a database: {', '.join(names)}"] if names else []


def _storage(file: Path) -> str:
    return str(json.loads(file.read_text()).get("storage", "journal"))


def _port(wanted: int) -> int:
    """The usual one, or any that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HERE, wanted))
        except OSError:
            return free_port()
    return wanted


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=2) as answer:
            return int(answer.status) < 400
    except (URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
