"""All journals of a home as one Optuna storage that can only be read: for a dashboard over every study.

The dashboard's own buttons write (delete a study, add a note), and would write into the journal that is the study. Here
nothing can: records are read from the files as far as they go, and a write raises. A study that grows is seen growing.

Each journal counts its studies and trials from 0, so ids are given anew in the order in which records are read; they
stay while the process lives. What is removed from disk meanwhile stays in the picture until it is started again, and a
study whose trials are in a database is not shown.
"""

import json
import threading
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from gapwise.errors import StudyError
from gapwise.tuning.journal import JOURNAL_FILE

_CREATE_STUDY, _CREATE_TRIAL = 0, 4
"""Optuna's operation codes."""


class MergedJournals(BaseJournalBackend):
    """`studies` is the home's folder of studies; one that is begun later joins in."""

    def __init__(self, studies: Path) -> None:
        self._folder, self._lock = studies, threading.Lock()
        self._sources: dict[Path, _Source] = {}
        self._records: list[dict[str, Any]] = []
        self._counted = _Counted()

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        with self._lock:
            for journal in sorted(self._folder.glob(f"*/{JOURNAL_FILE}")):
                source = self._sources.setdefault(journal, _Source(journal, self._counted))
                self._records += source.fresh()
            return self._records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise StudyError(f"studies are only shown here, {len(logs)} changes were not made", where=str(self._folder))


class _Counted:
    """Ids given so far, over all journals."""

    def __init__(self) -> None:
        self.studies = self.trials = 0


class _Source:
    """One journal, as far as it was read."""

    def __init__(self, journal: Path, counted: _Counted) -> None:
        self._journal, self._counted, self._position = journal, counted, 0
        self._names: set[str] = set()
        self._studies: list[int] = []
        self._trials: list[int] = []

    def fresh(self) -> list[dict[str, Any]]:
        """Whole lines since the last time; a damaged line, and what follows it, is left out."""
        try:
            with self._journal.open("rb") as opened:
                opened.seek(self._position)
                content = opened.read()
        except FileNotFoundError:
            return []
        found = []
        for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
            try:
                record = self._with_our_ids(json.loads(line))
            except (ValueError, KeyError, IndexError):
                break
            self._position += len(line)
            found += record
        return found

    def _with_our_ids(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """The record as the merged log has it; none for a study that was there, which Optuna passes over as well."""
        if record["op_code"] == _CREATE_STUDY:
            if record["study_name"] in self._names:
                return []
            self._names.add(record["study_name"])
            self._studies.append(self._counted.studies)
            self._counted.studies += 1
            return [{**record, "study_name": f"{self._journal.parent.name}: {record['study_name']}"}]
        ids = {key: ours[record[key]] for key, ours in self._ours().items() if key in record}
        if record["op_code"] == _CREATE_TRIAL:
            self._trials.append(self._counted.trials)
            self._counted.trials += 1
        return [{**record, **ids}]

    def _ours(self) -> dict[str, list[int]]:
        return {"study_id": self._studies, "trial_id": self._trials}
