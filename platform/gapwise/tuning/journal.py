"""The Optuna journal on disk, opened safely: it is the study, everything else can be thrown away.

Optuna's journal file does not survive a torn last line: the next write glues two records together and the study
becomes unreadable. So before opening, under a lock of our own, the tail after the last newline is set aside as
`*.torn` and the lock of a writer that no longer lives is cleared.
"""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gapwise.errors import StudyError


class StudyLock:
    """One driver a study: an advisory lock that the kernel drops when its owner dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "driver.lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> "StudyLock":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "an unknown process"
            self._file.close()
            raise StudyError(f"another driver is running this study: {owner}", where=str(self._path.parent)) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()


def repair(journal: Path) -> Path | None:
    """Cut a torn last line off, keeping it beside; returns where it went. The caller holds the study's lock."""
    for stale in journal.parent.glob(f"{journal.name}.lock*"):
        stale.unlink(missing_ok=True)
    if not journal.exists():
        return None
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return None
    torn = journal.with_name(f"{journal.name}.{time.time_ns()}.torn")
    torn.write_bytes(content[whole:])
    with journal.open("r+b") as opened:
        opened.truncate(whole)
    return torn


def open_journal(journal: Path) -> JournalStorage:
    """The repaired journal as Optuna storage."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    repair(journal)
    return JournalStorage(JournalFileBackend(str(journal)))
