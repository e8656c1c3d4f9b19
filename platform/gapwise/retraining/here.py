"""This process and this code: who holds a lease, whether it still lives, and which gapwise would train."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path

import gapwise
from gapwise.retraining.log import Owner
from gapwise.spec.home import who


def owner() -> Owner:
    """This process."""
    return Owner(who=who(), machine=_machine(), process=os.getpid())


def lives(other: Owner) -> bool | None:
    """Whether a process is there; None of one that this one could not see."""
    if other.machine != _machine():
        return None
    try:
        os.kill(other.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(other.process)


@cache
def _machine() -> str:
    """This boot of this system, in this process namespace; a container has its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: nobody can tell
        return f"{socket.gethostname()}/{os.getpid()}/{os.urandom(4).hex()}"


def _is_zombie(process: int) -> bool:
    """Gone, and only not yet collected by its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@cache
def code_fingerprint() -> str:
    """SHA-256 over gapwise's own source files, by their names and content."""
    package = Path(gapwise.__file__).parent
    running = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        running.update(f"{file.relative_to(package).as_posix()}:{len(content)}:".encode())
        running.update(content)
    return running.hexdigest()
