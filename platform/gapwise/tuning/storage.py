"""Where a study's trials are recorded: a journal file in its folder, or a database that several machines reach.

The journal is the default and by far the fastest. It needs a POSIX path; where a study's folder is object storage, or a
network file system that does not keep its promises, SQLite (one machine) or PostgreSQL takes its place.
"""

import re
from pathlib import Path

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gapwise.errors import SpecError, StudyError
from gapwise.tuning.journal import open_journal

ALLOWED = "journal, sqlite:///FILE, postgresql://USER@HOST/DATABASE"
JOURNAL = "journal"
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_NO_DRIVER = "needs a driver: pip install 'psycopg[binary]'"
_PATIENCE_SECONDS = 5
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
    try:
        url = make_url(where)
    except ArgumentError as error:
        raise SpecError(f"not a storage, got {where!r}", where="--storage", allowed=ALLOWED) from error
    if url.drivername not in _DRIVERS:
        raise SpecError(f"no storage of kind {url.drivername!r}", where="--storage", allowed=ALLOWED)
    if url.password is not None or "password" in url.query:
        raise SpecError("a password in the URL", where="--storage", allowed="PGPASSWORD or ~/.pgpass")
    if url.drivername != "sqlite":
        return where
    if url.database in (None, "", ":memory:"):
        raise SpecError(f"a study must outlive its process, got {where}", where="--storage", allowed="sqlite:///FILE")
    return url.set(database=str(Path(url.database).absolute())).render_as_string()


def delete_records(where: str, prefix: str) -> None:
    """Remove from a database what `prefix` begins the name of. Raises StudyError where it does not answer."""
    storage = open_storage(where)
    for study in storage.get_all_studies():
        if study.study_name.startswith(prefix):
            storage.delete_study(study._study_id)


def refuse_silent(where: str) -> None:
    """Ask a database without making anything in it. Raises SpecError or StudyError where it cannot hold studies."""
    url = make_url(checked_storage(where))
    if url.drivername == "sqlite":
        folder = Path(str(url.database)).parent
        if not folder.is_dir():
            raise StudyError("no such folder", where=str(folder))
        return
    try:
        engine = create_engine(
            url.set(drivername=_DRIVERS[url.drivername]), connect_args={"connect_timeout": _PATIENCE_SECONDS}
        )
        engine.connect().close()
    except ImportError as error:
        raise StudyError(_NO_DRIVER, where=where) from error
    except SQLAlchemyError as error:
        raise _silent(where, error) from error


def _silent(where: str, error: SQLAlchemyError) -> StudyError:
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return StudyError(f"the database does not answer: {reason}", where=where)


def open_storage(where: Path | str) -> BaseStorage:
    """A journal by its path, repaired first; a database by its URL, its tables made where there are none.

    Raises StudyError where the database does not answer or its driver is missing.
    """
    if isinstance(where, Path):
        return open_journal(where)
    url = make_url(where)
    try:
        return RDBStorage(
            url.set(drivername=_DRIVERS[url.drivername]).render_as_string(hide_password=False),
            engine_kwargs={"pool_pre_ping": True},
        )
    except ImportError as error:
        raise StudyError(_NO_DRIVER, where=where) from error
    except SQLAlchemyError as error:
        raise _silent(where, error) from error
