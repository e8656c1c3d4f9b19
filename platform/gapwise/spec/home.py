"""Where gapwise keeps its things: `.gapwise/` in the working directory, or GAPWISE_HOME."""

import os
from pathlib import Path
from typing import NamedTuple


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
    def tracking_uri(self) -> str:
        """A team's server through MLFLOW_TRACKING_URI, otherwise SQLite here."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path | None:
        """Where the embedded store puts artifacts; a server decides that itself."""
        return None if os.environ.get("MLFLOW_TRACKING_URI") else self.root / "mlartifacts"


def home() -> Home:
    """The home of this process, absolute, whether or not it exists yet."""
    return Home(Path(os.environ.get("GAPWISE_HOME") or ".gapwise").absolute())
