"""Servers that outlive the command that started them: started in a session of their own, known again, and stopped.

A process is known by its id and the moment at which it began (both from /proc): an id alone may be somebody else's by
now, and is then left in peace. Linux only, as are clusters of several Ray nodes on one machine.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

_STOPPING_SECONDS = 40.0
"""A Ray node says goodbye to its cluster first."""
_FOLLOWING_SECONDS = 5.0
"""For what it started, to notice: Ray's agents look every second, and are in groups of their own."""


_started: "list[subprocess.Popen[bytes]]" = []
"""Kept while this command runs: one that is dropped warns that its process still runs, which is what is meant."""


class Process(NamedTuple):
    """A started server. Its session has the same id."""

    pid: int
    began: str
    """In the kernel's clock ticks since it was booted."""


def start(command: list[str], environment: Mapping[str, str], log: Path, who: Mapping[str, Any]) -> Process:
    with log.open("ab") as opened:
        started = subprocess.Popen(
            command,
            env=dict(environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=opened,
            start_new_session=True,
            **who,
        )
    _started.append(started)
    return Process(started.pid, _state(started.pid)[1])


def alive(process: Process) -> bool:
    state, began = _state(process.pid)
    return began == process.began and state != "Z"


def stop(process: Process, number: signal.Signals) -> None:
    """It and what it started, gone when this returns; by the signal, and after a while by SIGKILL."""
    if _state(process.pid)[1] not in ("", process.began):
        return
    if alive(process):
        os.kill(process.pid, number)
        wait_for(lambda: not alive(process), _STOPPING_SECONDS)
    wait_for(lambda: not any(_in_session(process.pid)), _FOLLOWING_SECONDS)
    for left in list(_in_session(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)
    wait_for(lambda: not any(_in_session(process.pid)), _STOPPING_SECONDS)
    for child in _started:
        child.poll()


def wait_for(happened: Callable[[], bool], seconds: float) -> bool:
    """Whether it did within so long."""
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _in_session(session: int) -> Iterator[int]:
    """Its living processes; a session's id is no new process's while one of them lives."""
    for entry in Path("/proc").iterdir():
        with suppress(ProcessLookupError):  # gone by now
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session and _state(int(entry.name))[0] != "Z":
                yield int(entry.name)


def _state(pid: int) -> tuple[str, str]:
    """The state's letter and when it began; both empty where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return fields[0], fields[19]
