"""One driver at a time: two that continue the same study or run would write over each other."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from gapwise.errors import StudyError


class DriverLock:
    """One driver a study or run: an advisory lock that the kernel drops when its owner dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "driver.lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> "DriverLock":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "an unknown process"
            self._file.close()
            raise StudyError(f"another driver is running this: {owner}", where=str(self._path.parent)) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
