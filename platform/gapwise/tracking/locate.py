"""From what a person types to a trained model: a folder, a run id, or a registry URI."""

import json
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

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
    run_id = run_id_in(what)
    if run_id is not None:
        return load_model_folder(_folder_of_run(tracking, run_id))
    if not Path(what).is_dir():
        known = [f"models:/{name}" for name in registry.names(tracking)]
        raise CheckpointError(f"no model at {what!r}{nearest(f'models:/{what}', known)}", allowed=_FORMS)
    return load_model_folder(Path(what))


def run_id_in(what: str) -> str | None:
    """The run that somebody means by its id or as runs:/ID; None for anything else."""
    run_id = what.removeprefix("runs:/")
    return run_id if re.fullmatch(r"[0-9a-f]{32}", run_id) else None


class Origin(NamedTuple):
    """What the run behind a model says of itself."""

    study: str
    """Whose parent run it is; empty for any other run."""
    data: Path | None
    """The folder that its input was read from; None where it names none."""


def origin_of(tracking: Tracking, what: str) -> Origin:
    """Of a run, or of the run of a registered version; nothing for a folder. Raises what `locate` does."""
    run_id = run_id_in(what)
    if run_id is None and what.startswith("models:/"):
        run_id = registry.behind(tracking, what).run_id
    if not run_id:
        return Origin("", None)
    try:
        run = tracking.client.get_run(run_id)
    except MlflowException as error:
        if run_id_in(what) is None:  # a version may outlive its run
            return Origin("", None)
        raise CheckpointError(f"no run {run_id!r}", where=tracking.uri, allowed=_FORMS) from error
    tags = run.data.tags
    study = tags.get("gapwise.study", "") if tags.get("gapwise.kind") == "study" else ""
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    sources = [json.loads(one.dataset.source).get("uri") for one in inputs]
    return Origin(study, next((Path(one) for one in sources if one), None))


def _folder_of_run(tracking: Tracking, run_id: str) -> Path:
    try:
        tags = tracking.client.get_run(run_id).data.tags
    except MlflowException as error:
        raise CheckpointError(f"no run {run_id!r}", where=tracking.uri, allowed=_FORMS) from error
    if FOLDER_TAG not in tags:
        raise CheckpointError(f"run {run_id!r} kept no model; evaluate a registered version instead", allowed=_FORMS)
    return Path(tags[FOLDER_TAG])
