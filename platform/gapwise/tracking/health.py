"""What `gapwise doctor` says of MLflow: reached, migrated, a server where several nodes write, artifacts taken.

`gather` asks and never makes or migrates a store; the checks are pure.
"""

import os
import re
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gapwise.spec.health import Check, fail, ok, warn
from gapwise.spec.home import Home

_PROBE = "gapwise-doctor"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingFacts:
    """How a tracking store stands."""

    uri: str
    """Without a password."""
    kind: str
    """embedded, server, or database: a database that is opened without a server."""
    exists: bool = True
    error: str = ""
    """Why it does not answer; empty where it does."""
    revision: str | None = None
    """Of the database's schema, where we see it."""
    head: str | None = None
    """The schema's revision that the installed MLflow wants."""
    artifacts_error: str = ""
    """Why it took no artifact; empty where it did."""


def check_tracking(facts: TrackingFacts) -> Check:
    """Whether it answers."""
    if facts.error:
        mend = "MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and _PASSWORD, or the server"
        return fail("mlflow", f"{facts.uri}: {facts.error}", mend)
    if not facts.exists:
        return ok("mlflow", f"{facts.uri}: made by the first command that needs it")
    return ok("mlflow", f"{facts.uri} answers")


def check_schema(facts: TrackingFacts) -> Check:
    """Whether the database is of the installed MLflow's making; a server looks at its own when it starts."""
    name = "mlflow schema"
    if facts.revision is None:
        return ok(name, "the server's own" if facts.kind == "server" else "none yet")
    if facts.revision != facts.head:
        mend = f"a backup, then: mlflow db upgrade {facts.uri}"
        return fail(name, f"revision {facts.revision}, the installed MLflow wants {facts.head}", mend)
    return ok(name, f"revision {facts.revision}")


def check_server(facts: TrackingFacts, nodes: int) -> Check:
    """Several machines must not open one SQLite file."""
    name = "mlflow server"
    if facts.kind == "server" or nodes < 2:
        return ok(name, "a server" if facts.kind == "server" else "not needed on one node")
    mend = "mlflow server on PostgreSQL, and its URL in MLFLOW_TRACKING_URI"
    if facts.uri.startswith("sqlite"):
        return fail(name, f"SQLite with a cluster of {nodes} nodes", mend)
    return warn(name, f"a database without a server, with {nodes} nodes", mend)


def check_artifacts(facts: TrackingFacts) -> Check:
    """Whether a file was taken, and removed again."""
    if facts.error or not facts.exists:
        return ok("artifacts", "not asked")
    if facts.artifacts_error:
        return fail("artifacts", facts.artifacts_error, "the artifact store's address, room and rights")
    return ok("artifacts", "a file was written and removed")


def gather(home: Home) -> TrackingFacts:
    """Ask the home's tracking store."""
    uri = home.tracking_uri
    if uri.startswith(("http://", "https://")):
        return _server(uri)
    kind = "embedded" if uri == home.embedded_uri else "database"
    try:
        url = make_url(uri)
    except ArgumentError:
        return TrackingFacts(uri=uri, kind=kind, error="not the address of a tracking store")
    shown = url.render_as_string(hide_password=True)
    if url.drivername == "sqlite" and not (url.database and Path(url.database).exists()):
        error = "" if kind == "embedded" else "no such file"
        return TrackingFacts(uri=shown, kind=kind, exists=False, error=error)
    try:
        revision = _revision(uri)
    except (SQLAlchemyError, ImportError) as error:
        return TrackingFacts(uri=shown, kind=kind, error=_first_line(error))
    artifacts = _folder_takes(home.artifacts) if home.artifacts is not None else ""
    return TrackingFacts(uri=shown, kind=kind, revision=revision, head=_head(), artifacts_error=artifacts)


def _revision(uri: str) -> str | None:
    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def _head() -> str | None:
    import mlflow.store.db_migrations

    return ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent)).get_current_head()


def _folder_takes(folder: Path) -> str:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return "" if os.access(there, os.W_OK) else f"{there} cannot be written"


def _server(uri: str) -> TrackingFacts:
    """Through MLflow's own client, with its user and password."""
    from mlflow import MlflowClient

    from gapwise.tracking.client import TrackingDown, TrackingRefused, asking

    shown = re.sub(r"//[^/@]*@", "//", uri)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "10"  # seconds
    try:
        with asking():
            found = MlflowClient(uri, uri).search_experiments(max_results=1)
    except (TrackingDown, TrackingRefused) as error:
        return TrackingFacts(uri=shown, kind="server", error=_first_line(error))
    location = found[0].artifact_location if found else ""
    return TrackingFacts(uri=shown, kind="server", artifacts_error=_takes(uri, location) if location else "")


def _takes(uri: str, location: str) -> str:
    """A file in an experiment's folder: written, seen and removed. What went wrong, empty where nothing did.

    Nowhere else: a server that knows its users lets them write where an experiment of theirs is.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from gapwise.tracking.client import TrackingDown, TrackingRefused, asking

    try:
        with asking(), tempfile.TemporaryDirectory() as folder:
            probe = Path(folder) / "probe"
            probe.write_text("asked")
            store = get_artifact_repository(f"{location}/{_PROBE}-{uuid.uuid4().hex}", tracking_uri=uri)
            store.log_artifact(str(probe))
            seen = any(one.path == "probe" for one in store.list_artifacts())
            store.delete_artifacts()
    except (TrackingDown, TrackingRefused) as error:
        return _first_line(error)
    return "" if seen else f"{location} forgot what it took"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
