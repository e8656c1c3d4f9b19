"""From what a person types to a trained model: a folder, a run id, or a registry URI."""

import re
import tempfile
from pathlib import Path

from mlflow.exceptions import MlflowException

from gapwise.errors import CheckpointError, nearest
from gapwise.models.saved import ModelFolder, load_model_folder
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking

FOLDER_TAG = "gapwise.model_folder"
_FORMS = "a model folder, a run id, runs:/ID or models:/NAME@ALIAS"


def locate(tracking: Tracking, what: str) -> ModelFolder:
    """The model, loaded and checked. Raises CheckpointError or RegistryError saying which forms are allowed."""
    if what.startswith("models:/"):
        with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
            return load_model_folder(registry.download(tracking, what, Path(temporary)))
    run_id = what.removeprefix("runs:/")
    if re.fullmatch(r"[0-9a-f]{32}", run_id):
        return load_model_folder(_folder_of_run(tracking, run_id))
    if not Path(what).is_dir():
        known = [f"models:/{name}" for name in registry.names(tracking)]
        raise CheckpointError(f"no model at {what!r}{nearest(f'models:/{what}', known)}", allowed=_FORMS)
    return load_model_folder(Path(what))


def _folder_of_run(tracking: Tracking, run_id: str) -> Path:
    try:
        tags = tracking.client.get_run(run_id).data.tags
    except MlflowException as error:
        raise CheckpointError(f"no run {run_id!r}", where=tracking.uri, allowed=_FORMS) from error
    if FOLDER_TAG not in tags:
        raise CheckpointError(f"run {run_id!r} kept no model; evaluate a registered version instead", allowed=_FORMS)
    return Path(tags[FOLDER_TAG])
