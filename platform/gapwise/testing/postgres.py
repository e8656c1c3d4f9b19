"""A private PostgreSQL on loopback: one `initdb` and one `postgres`, for tests and for the team stack of one machine.

PostgreSQL refuses to run as root, so root runs it as the account `postgres`, which Debian's packages make, or else as
`nobody`; the data folder is that account's. Who connects must know a random password (SCRAM, also on loopback), which
lies in a password file of ours (PGPASSFILE), never in a URL or on a command line. No Unix socket, no other address.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.errors import SpecError

USER = "gapwise"
_PATIENCE_SECONDS = 60.0
_CONNECTIONS = 200
"""Each worker process of an MLflow server holds three pools of its own."""


def binaries() -> Path:
    """The folder of `initdb` and `postgres`. Raises SpecError where the machine has none."""
    config = shutil.which("pg_config")
    if config is not None:
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True).stdout
        if (Path(said.strip()) / "initdb").exists():
            return Path(said.strip())
    raise SpecError("this machine has no PostgreSQL server", where="PATH", allowed="pg_config with its initdb")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def account() -> dict[str, Any]:
    """As keywords of `subprocess`, who runs the server: root chooses an ordinary user, everybody else is one."""
    if os.geteuid() != 0:
        return {}
    known = {one.pw_name for one in pwd.getpwall()}
    name = "postgres" if "postgres" in known else "nobody"
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": ()}


class Postgres(NamedTuple):
    """One server: where its data lie, where it listens, and the password file by which we are let in."""

    folder: Path
    """Made by `initialise`; the data and nothing else."""
    port: int
    passfile: Path

    def url(self, database: str) -> str:
        """Without a password: libpq looks it up where PGPASSFILE says."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def alchemy(self, database: str) -> str:
        """The same as SQLAlchemy names it, with the driver that we have."""
        return self.url(database).replace("postgresql:", "postgresql+psycopg:")

    def initialise(self) -> None:
        """Data folder and password, whole or not at all. Raises SpecError where the account cannot come to it."""
        who, password = account(), secrets.token_hex(24)
        fresh = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        try:
            if who:
                shutil.chown(fresh, who["user"])
                _refuse_where_it_cannot_come(fresh, who)
            _initdb(fresh, password, who)
        except SpecError:
            shutil.rmtree(fresh)
            raise
        write_secret(self.passfile, f"127.0.0.1:*:*:{USER}:{password}\n")
        fresh.rename(self.folder)

    def command(self) -> list[str]:
        """To be run with `account()`."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": _CONNECTIONS}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(binaries() / "postgres"), "-D", str(self.folder), "-p", str(self.port), *settings]

    def answers(self) -> bool:
        """Whether it lets us in."""
        import psycopg

        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def create(self, database: str) -> None:
        """A database, unless it is there."""
        with self._connect() as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
            if known is None:
                connection.execute(f'CREATE DATABASE "{database}"')

    def _connect(self) -> Any:
        import psycopg

        return psycopg.connect(self.url("postgres"), passfile=str(self.passfile), connect_timeout=5, autocommit=True)


def _refuse_where_it_cannot_come(folder: Path, who: dict[str, Any]) -> None:
    if subprocess.run(["test", "-w", folder], cwd="/", check=False, **who).returncode != 0:
        raise SpecError(
            f"root's PostgreSQL runs as {who['user']}, who cannot come to this folder",
            where=str(folder.parent),
            allowed="a folder below one that everybody may enter, such as /var/tmp",
        )


def _initdb(folder: Path, password: str, who: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="gapwise-", suffix=".pw") as told:
        told.write(password)
        told.flush()
        if who:
            shutil.chown(told.name, who["user"])
        command = [str(binaries() / "initdb"), "-D", str(folder), "-U", USER, "-E", "UTF8", "--locale=C.UTF-8"]
        command += ["--auth=scram-sha-256", f"--pwfile={told.name}", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **who)
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise SpecError(f"initdb: {''.join(last)}", where=str(folder))


def write_secret(file: Path, text: str) -> None:
    """Whole or not at all, and never readable by anybody else."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:  # noqa: PTH123
        opened.write(text)
    fresh.replace(file)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A fresh server for the length of a test, in a folder of its own that everybody may enter; then nothing of it."""
    with tempfile.TemporaryDirectory(prefix="gapwise-postgres-") as made:
        place = Path(made)
        place.chmod(0o711)
        server = Postgres(place / "data", free_port(), place / "pgpass")
        server.initialise()
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(server.command(), stdout=log, stderr=log, cwd="/", **account())
        try:
            _wait(server, process, place / "log")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # its fast way out: connections are not waited for
            process.wait(_PATIENCE_SECONDS)


def _wait(server: Postgres, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not server.answers():
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.1)
