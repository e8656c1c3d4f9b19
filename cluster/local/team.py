"""A team's servers on one machine, up and down: `make team-up`, `make team-down`.

PostgreSQL, an MLflow server with basic auth, a Ray head and two workers, on loopback: to try what a team has, and for
tests; a real team's are in `cluster/`. Up is said once or ten times: what answers is left as it is, what crashed is
started again, and when something does not start, what this call started is stopped. Down stops what is in the state
file and nothing else, by process id. The folder keeps data, logs, secrets (readable by nobody else) and the ports.
"""

import argparse
import fcntl
import importlib.util
import json
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from itertools import chain as chained
from pathlib import Path
from typing import Any

from processes import Process, alive, start, stop, wait_for
from servers import PORTS, Place, Server, addresses, servers, variables

from gapwise.errors import GapwiseError, SpecError
from gapwise.testing.postgres import binaries, free_port, write_secret

_FORMAT_VERSION = 1
_STARTING_SECONDS = 180.0
_LETTING_GO_SECONDS = 10.0
_NEEDED = {
    "aiohttp_cors": "ray[default]: the extra `cluster`",
    "flask_wtf": "mlflow[auth]: the extra `team`",
    "psycopg": "psycopg: the extra `team`",
}
_OURS = ("secrets", "logs", "home", "artifacts", "postgres", "postgres.new", "team.json", "team.env", "lock")
"""All that a team's folder holds."""
_SECRETS = ("admin", "team", "flask", "ray-token")


class Team:
    """A team's folder: what was decided when it was made, and what runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._file = folder, folder / "team.json"
        self._saving = threading.Lock()
        self.running: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        self.ray_folder = ""
        if self.made:
            kept = json.loads(self._file.read_text())
            self.ports, self.ray_folder = kept["ports"], kept["ray_folder"]
            self.running = {name: Process(*fields) for name, fields in kept["running"].items()}

    @property
    def made(self) -> bool:
        return self._file.exists()

    def save(self) -> None:
        """Whole or not at all; there is no secret in it."""
        kept: dict[str, Any] = {"format_version": _FORMAT_VERSION, "ports": self.ports, "ray_folder": self.ray_folder}
        fresh = self._file.with_suffix(".new")
        with self._saving:
            fresh.write_text(json.dumps(kept | {"running": self.running}, indent=1))
            fresh.replace(self._file)

    def make(self) -> None:
        """Ports and secrets, once; the data folder of PostgreSQL, unless it is there."""
        (self.folder / "secrets").mkdir(mode=0o700, exist_ok=True)
        for name in ("logs", "home", "artifacts"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        self.ports = self.ports or {name: free_port() for name in PORTS}
        for name in _SECRETS:
            if not self._secret(name).exists():
                write_secret(self._secret(name), secrets.token_hex(24))
        if not (self.folder / "postgres").exists():
            self.place.postgres.initialise()
        self.save()

    @property
    def place(self) -> Place:
        known = {name: self._secret(name).read_text() for name in _SECRETS}
        return Place(self.folder, self.ports, known, self.ray_folder)

    def _secret(self, name: str) -> Path:
        return self.folder / "secrets" / name


def up(folder: Path) -> None:
    """Raises SpecError for what the machine lacks, a port that is taken, a server that does not start."""
    _refuse_without_what_is_needed()
    _refuse_another_s(folder)
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        team = Team(folder)
        try:
            team.make()
        except GapwiseError:
            if not team.made:
                _remove(folder)
            raise
        if not Path(team.ray_folder or "/nowhere").is_dir():
            team.ray_folder = tempfile.mkdtemp(prefix="gapwise-ray-")
            team.save()
        started = _start_what_is_down(team)
        _write_environment(team)
    _tell(team, started)


def _refuse_without_what_is_needed() -> None:
    binaries()
    for module, where in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise SpecError(f"needs {where}", where="team-up", allowed="pip install 'gapwise-platform[cluster,team]'")


def _refuse_another_s(folder: Path) -> None:
    """What is ours alone can be removed without a second look."""
    if folder.exists() and not folder.is_dir():
        raise SpecError("not a folder", where=str(folder), allowed="TEAM=FOLDER, a new one or a team's")
    if folder.is_dir() and not Team(folder).made and {entry.name for entry in folder.iterdir()} - set(_OURS):
        raise SpecError("holds something else", where=str(folder), allowed="TEAM=FOLDER, a new one or a team's")


def _remove(folder: Path) -> None:
    for name in _OURS:
        entry = folder / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    with suppress(OSError):  # somebody keeps something here
        folder.rmdir()


def _start_what_is_down(team: Team) -> list[str]:
    """The names of what was started, in order. Nothing starts where a port is taken; where one server does not start,
    no other one does any more, and those that have are stopped."""
    started: list[str] = []
    chains = [_down(team, chain) for chain in servers(team.place)]
    for server in chained.from_iterable(chains):
        _refuse_taken(server, team.ports[server.port])
    broken = threading.Event()
    try:
        with ThreadPoolExecutor(len(chains)) as threads:
            each = [threads.submit(_start_chain, team, chain, started, broken) for chain in chains]
            try:
                for one in as_completed(each):
                    one.result()
            except BaseException:
                broken.set()
                raise
    except BaseException:
        for name in reversed(_in_order(team, started)):
            _stop(team, name)
        raise
    return _in_order(team, started)


def _down(team: Team, chain: list[Server]) -> list[Server]:
    """Those that do not answer and those that need one of them, all of them stopped."""
    found: list[Server] = []
    for server in chain:
        known = team.running.get(server.name)
        answers = known is not None and alive(known) and server.ready()
        if not answers or {one.name for one in found} & {*server.needs}:
            found.append(server)
    for server in reversed(found):
        _stop(team, server.name)
    return found


def _start_chain(team: Team, chain: list[Server], started: list[str], broken: threading.Event) -> None:
    for server in chain:
        if not broken.is_set():
            _start(team, server, started, broken)


def _everything(team: Team) -> list[Server]:
    return list(chained.from_iterable(servers(team.place)))


def _in_order(team: Team, names: Iterable[str]) -> list[str]:
    return [server.name for server in _everything(team) if server.name in names]


def _start(team: Team, server: Server, started: list[str], broken: threading.Event) -> None:
    say(f"starting {server.name}")
    server.before()
    log = team.folder / "logs" / f"{server.name}.log"
    process = start(server.command, server.environment, log, server.who)
    team.running[server.name] = process
    started.append(server.name)
    team.save()
    wait_for(lambda: server.ready() or not alive(process) or broken.is_set(), _STARTING_SECONDS)
    if broken.is_set():
        return
    if not (alive(process) and server.ready()):
        last = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise SpecError(f"{server.name} did not start: {''.join(last) or 'it said nothing'}", where=str(log))
    server.after()


def _refuse_taken(server: Server, port: int) -> None:
    """Who was just killed lets go of its port a moment after it is gone."""
    if not wait_for(lambda: _is_free(port), _LETTING_GO_SECONDS):
        raise SpecError(
            f"port {port} of {server.name} is taken by another program",
            where="team.json",
            allowed="a free port under `ports`",
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_environment(team: Team) -> None:
    lines = [f"export {name}='{text}'" for name, text in (variables(team.place) | addresses(team.place)).items()]
    write_secret(team.folder / "team.env", "\n".join([*lines, ""]))


def _tell(team: Team, started: list[str]) -> None:
    say(f"the team's servers are up: {', '.join(started)} started" if started else "the team's servers are up already")
    say(f"  MLflow         {team.place.mlflow}  (user team; admin's password: {team.folder}/secrets/admin)")
    say(f"  Ray dashboard  {team.place.dashboard}  (token: {team.folder}/secrets/ray-token)")
    say(f"  logs           {team.folder}/logs, Ray's own in {team.ray_folder}")
    say(f"next: source {team.folder}/team.env")


def down(folder: Path, *, purge: bool) -> None:
    """Stop what runs, in the reverse order. Raises SpecError for a folder that is no team's."""
    if not Team(folder).made:
        raise SpecError("no team was ever up here", where=str(folder), allowed="a folder with a team.json")
    with _one_at_a_time(folder):
        team = Team(folder)
        known = list(reversed(_in_order(team, team.running)))
        names = [name for name in known if alive(team.running[name])]
        for name in known:
            _stop(team, name)
        shutil.rmtree(team.ray_folder or "/nowhere", ignore_errors=True)
        if purge:
            _remove(folder)
    say(f"stopped {', '.join(names)}" if names else "nothing was running")
    kept = "databases, artifacts, studies, logs and secrets"
    say(f"removed {folder}: its {kept}" if purge else f"{kept} are still in {folder}; PURGE=1 removes them")


def _stop(team: Team, name: str) -> None:
    process = team.running.get(name)
    if process is not None:
        goodbye = next(server.goodbye for server in _everything(team) if server.name == name)
        stop(process, goodbye)
        del team.running[name]
        team.save()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="A team's servers on this machine, on loopback.")
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("folder", type=Path, help="where their data, logs and secrets lie")
    parser.add_argument("--purge", action="store_true", help="with down: remove the folder, data and all")
    asked = parser.parse_args()
    try:
        if asked.verb == "up":
            up(asked.folder.absolute())
        else:
            down(asked.folder.absolute(), purge=asked.purge)
    except GapwiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
