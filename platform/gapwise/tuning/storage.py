"""Where a study's trials are recorded: a journal file in its folder, or a database that several machines reach.

The journal is the default and by far the fastest. It needs a POSIX path; where a study's folder is object storage, or a
network file system that does not keep its promises, SQLite (one machine) or PostgreSQL takes its place.
"""

import re
from pathlib import Path

from optuna.storages import BaseStorage

from gapwise.errors import SpecError
from gapwise.tuning.journal import open_journal

ALLOWED = "journal, sqlite:///FILE, postgresql://USER@HOST/DATABASE"
JOURNAL = "journal"
_OBJECT_STORES = re.compile(r"(s3|gs|gcs|az|abfs|hdfs)://")


def checked_storage(where: str) -> str:
    """The storage as a study records it: `journal`, or a database's URL. Raises SpecError for anything else.

    A password is refused: it would stand in the study's folder and in process lists.
    """
    if where == JOURNAL:
        return where
    if _OBJECT_STORES.match(where):
        raise SpecError(
            f"object storage cannot hold a journal, got {where}; keep the study in PostgreSQL and artifacts there",
            where="--storage",
            allowed=ALLOWED,
        )
    from gapwise.tuning.database import checked_url

    return checked_url(where)


def delete_records(where: str, prefix: str) -> None:
    """Remove from a database what `prefix` begins the name of. Raises StudyError where it does not answer."""
    storage = open_storage(where)
    for study in storage.get_all_studies():
        if study.study_name.startswith(prefix):
            storage.delete_study(study._study_id)


def open_storage(where: Path | str) -> BaseStorage:
    """A journal by its path, repaired first; a database by its URL, its tables made where there are none.

    Raises StudyError where the database does not answer or its driver is missing.
    """
    if isinstance(where, Path):
        return open_journal(where)
    from gapwise.tuning.database import open_database

    return open_database(where)
