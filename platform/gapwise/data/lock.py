"""One process at a time in a folder: appends to a dataset, and snapshots into one store.

An advisory lock that the kernel drops when its owner dies, so nothing is ever locked by the dead. The empty file stays:
removing it would let two processes hold a lock on two files of one name.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gapwise.errors import DataError


@contextmanager
def alone(file: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `file`. Raises DataError if another process is `doing` the same, or waits for it."""
    with file.open("a+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            opened.seek(0)
            raise DataError(f"{opened.read() or 'another process'} is {doing}", where=str(file.parent)) from error
        opened.truncate(0)
        opened.write(f"process {os.getpid()}")
        opened.flush()
        yield
