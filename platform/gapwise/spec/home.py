"""Where gapwise keeps its things: `.gapwise/` in the working directory, or GAPWISE_HOME."""

import getpass
import os
import re
import socket
from pathlib import Path
from typing import NamedTuple

from gapwise.errors import SpecError

STUDY_FILE = "study.json"
"""In a study's folder, from its first moment."""


class Home(NamedTuple):
    """The folder of studies, runs and the embedded tracking store."""

    root: Path

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def trash(self) -> Path:
        """Deleted studies on their way out."""
        return self.root / "trash"

    @property
    def database(self) -> Path:
        """Of the embedded tracking store."""
        return self.root / "mlflow.db"

    @property
    def embedded_uri(self) -> str:
        return f"sqlite:///{self.database}"

    @property
    def tracking_uri(self) -> str:
        """A team's server through MLFLOW_TRACKING_URI, otherwise SQLite here."""
        return os.environ.get("MLFLOW_TRACKING_URI") or self.embedded_uri

    @property
    def artifacts(self) -> Path | None:
        """Where the embedded store puts artifacts; a server decides that itself."""
        return self.root / "mlartifacts" if self.tracking_uri == self.embedded_uri else None


def study_names(studies: Path) -> list[str]:
    return sorted(file.parent.name for file in studies.glob(f"*/{STUDY_FILE}"))


def refuse_unusable_name(name: str, *, where: str) -> None:
    """Raises SpecError for a name that cannot be a folder's inside the home."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise SpecError(f"{name!r} cannot be a name", where=where, allowed="letters, digits and ._-, not first a point")


def home() -> Home:
    """The home of this process, absolute, whether or not it exists yet. Raises SpecError for a URL."""
    if "://" in os.environ.get("GAPWISE_HOME", ""):
        raise SpecError(
            f"not a folder: {os.environ['GAPWISE_HOME']}",
            where="GAPWISE_HOME",
            allowed="a path; with object storage keep studies in PostgreSQL (--storage) and runs on an MLflow server",
        )
    return Home(Path(os.environ.get("GAPWISE_HOME") or ".gapwise").absolute())


def who() -> str:
    """The person and machine that act, for records: "ada@node7"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
