"""One client for one tracking store, set up so that several gapwise processes never race over it.

The embedded store is SQLite and is migrated once, here, before anything else opens it; a team's server is reached
through MLFLOW_TRACKING_URI. Of MLflow's global state only the URI is set, and its loggers are silenced.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it would stand before the one JSON object

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from gapwise.errors import RegistryError, no_room
from gapwise.spec.home import Home

for _name in ("alembic", "mlflow", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what it raises, with a traceback


class TrackingDown(Exception):
    """The tracking store did not take something just now; it can be given again."""


class TrackingRefused(Exception):
    """The tracking store answered that it will not take something however often it is asked."""


@contextmanager
def asking() -> Iterator[None]:
    """Around requests: what goes wrong is raised as TrackingDown or TrackingRefused, in one line.

    Refused is only what MLflow calls invalid, such as a point for a run that a person deleted. That something does not
    exist may also be said by a server with another database behind it, so it is asked again.
    """
    try:
        yield
    except MlflowException as error:
        refused = error.error_code == "INVALID_PARAMETER_VALUE"
        raise (TrackingRefused if refused else TrackingDown)(no_room(error) or first_line(error)) from error
    except OSError as error:  # artifacts do not all go through MLflow's own client
        raise TrackingDown(first_line(error)) from error


class Tracking(NamedTuple):
    """A client and the URI it talks to."""

    client: MlflowClient
    uri: str


def connect(home: Home, uri: str | None = None) -> Tracking:
    """Open the home's tracking store, creating and migrating the embedded one, or another that is there already.

    Raises RegistryError where none answers.
    """
    try:
        home.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryError(
            f"cannot be written: {error.strerror}", where=str(home.root), allowed="a GAPWISE_HOME of yours"
        ) from error
    if uri is not None and uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise RegistryError("no such tracking store", where=uri)  # MLflow would make an empty one
    uri = uri or home.tracking_uri
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds; a server that hangs would hold us for minutes
    if home.artifacts is not None:  # otherwise MLflow makes a folder `mlruns` wherever one happens to stand
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(home.artifacts)
    tell_mlflow(uri)
    with _one_at_a_time(home.root / "mlflow.lock"):
        if uri == home.embedded_uri and not home.database.exists():
            _create(home.database)
        try:
            return Tracking(_opened(uri), uri)
        except (MlflowException, SQLAlchemyError) as error:
            raise RegistryError(f"the tracking server does not answer: {first_line(error)}", where=uri) from error


def _opened(uri: str) -> MlflowClient:
    client = MlflowClient(uri, uri)
    client.search_experiments(max_results=1)
    return client


def _create(database: Path) -> None:
    """Under another name first: one that is migrated by half, for want of room or by a kill, would open never again."""
    fresh = database.with_name(f"{database.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        _opened(f"sqlite:///{fresh}")
    except (MlflowException, SQLAlchemyError) as error:
        fresh.unlink(missing_ok=True)
        raise RegistryError(f"cannot be made: {first_line(error)}", where=str(database)) from error
    fresh.replace(database)


def tell_mlflow(uri: str) -> None:
    """Fetching a registered model asks MLflow's own setting; MLflow also writes the environment, which stays ours."""
    variables = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = {name: os.environ.get(name) for name in variables}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """The first of several processes creates and migrates the embedded store while the others wait."""
    with file.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def experiment_id(tracking: Tracking, home: Home, name: str) -> str:
    """The experiment's id; of several processes that create it at once, one wins and the others use its."""
    found = tracking.client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = home.artifacts
    try:
        created = tracking.client.create_experiment(name, artifact_location=location.as_uri() if location else None)
    except MlflowException:
        found = tracking.client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
    return str(created)


def every_page(ask: Callable[[str | None], Any]) -> list[Any]:
    """All that a search finds; `ask` takes a page's token and returns that page."""
    found: list[Any] = []
    token = None
    while token != "":
        page = ask(token)
        found += page
        token = page.token or ""
    return found


def first_line(error: Exception) -> str:
    """An MLflow error's own words, without its traceback."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
