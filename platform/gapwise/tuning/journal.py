"""The Optuna journal on disk, opened safely: it is the study, everything else can be thrown away.

Optuna's journal file does not survive a torn last line: the next write glues two records together and the study
becomes unreadable. So before opening, under a lock of our own, the tail after the last newline is set aside as
`*.torn` and the lock of a writer that no longer lives is cleared. A writer that lives takes back what a full disk let
it write by half.
"""

import os
import time
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gapwise.tuning.files import whole_or_nothing

JOURNAL_FILE = "journal.log"


def repair(journal: Path) -> Path | None:
    """Cut a torn last line off, keeping it beside; returns where it went. The caller holds the study's lock."""
    for stale in journal.parent.glob(f"{journal.name}.lock*"):
        stale.unlink(missing_ok=True)
    if _ends_whole(journal):
        return None
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    torn = journal.with_name(f"{journal.name}.{time.time_ns()}.torn")
    torn.write_bytes(content[whole:])
    with journal.open("r+b") as opened:
        opened.truncate(whole)
    return torn


def _ends_whole(journal: Path) -> bool:
    if not journal.exists() or journal.stat().st_size == 0:
        return True
    with journal.open("rb") as opened:
        opened.seek(-1, os.SEEK_END)
        return opened.read(1) == b"\n"


def open_journal(journal: Path) -> JournalStorage:
    """The repaired journal as Optuna storage."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    repair(journal)
    return JournalStorage(_WholeLines(str(journal)))


class _WholeLines(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with whole_or_nothing(Path(self._file_path)):
            super().append_logs(logs)
