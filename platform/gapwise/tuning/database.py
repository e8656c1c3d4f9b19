"""A study's trials in a database that several machines reach: SQLite or PostgreSQL, through SQLAlchemy.

Apart from `tuning.storage`, because its import is a third of a second that a study with a journal does without.
"""

from pathlib import Path

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gapwise.errors import SpecError, StudyError
from gapwise.tuning.storage import ALLOWED, checked_storage

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_NO_DRIVER = "needs a driver: pip install 'psycopg[binary]'"
_PATIENCE_SECONDS = 5


def checked_url(where: str) -> str:
    """A database's URL as a study records it. Raises SpecError for anything else, and for a password in it."""
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


def open_database(where: str) -> BaseStorage:
    """Its tables are made where there are none. Raises StudyError where it does not answer or has no driver."""
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
