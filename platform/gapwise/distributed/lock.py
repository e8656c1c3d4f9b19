"""One driver at a time: two that continue the same study or run would write over each other.

Who only looks (`driver_of`) holds the lock for an instant too; a driver therefore asks a few times before it gives up.
"""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from gapwise.errors import StudyError

LOCK_FILE = "driver.lock"
_PATIENCE_SECONDS, _SECONDS_BETWEEN = 0.2, 0.05


class DriverLock:
    """One driver a study or run: an advisory lock that the kernel drops when its owner dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._file: IO[str] | None = None

    def __enter__(self) -> "DriverLock":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+")
        if not taken(self._file, _PATIENCE_SECONDS):
            owner = _owner(self._file)
            self._file.close()
            raise StudyError(f"another driver is running this: {owner}", where=str(self._path.parent))
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()


def driver_of(folder: Path) -> str | None:
    """Who drives the study or run in this folder now, in words; None where nobody does."""
    try:
        opened = (folder / LOCK_FILE).open()
    except FileNotFoundError:
        return None
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(opened)
    return None


def taken(file: IO[str], seconds: float) -> bool:
    """Whether this process got hold of a file's lock within so long; held until the file is closed."""
    for ask in range(1 + round(seconds / _SECONDS_BETWEEN)):
        if ask:
            time.sleep(_SECONDS_BETWEEN)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _owner(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "an unknown process"
