"""How a trained model becomes a registered version: packed, stored under a run, and tagged with what is known of it."""

import hashlib
import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from gapwise.errors import RegistryError
from gapwise.models.saved import load_model_folder
from gapwise.tracking.aliases import ARTIFACT
from gapwise.tracking.client import Tracking, first_line
from gapwise.tracking.packing import Packing, pack
from gapwise.tracking.registry import BESIDE, READS, TAG, Version, digests, ensure, fetch
from gapwise.tracking.served import input_example, signature, write_golden


def register(tracking: Tracking, name: str, folder: Path, *, run_id: str, facts: dict[str, Any]) -> Version:
    """Store a model folder under `run_id` as a pyfunc and make it a new version of `name`.

    Raises RegistryError where the server refuses; a version exists only once its artifact is complete.
    """
    described = load_model_folder(folder)
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        model = Path(temporary) / ARTIFACT
        shutil.copytree(folder, model)  # MLflow names an artifact's folder after its source
        write_golden(model)
        reads = hashlib.sha256(described.shape.model_dump_json().encode()).hexdigest()
        facts = facts | {READS: reads}
        shape = described.shape
        packing = Packing({ARTIFACT: model}, signature(shape), input_example(shape), shape)
        return store(tracking, name, packing, place=f"models/{folder.parent.name}", run_id=run_id, facts=facts)


def store(
    tracking: Tracking, name: str, packing: Packing, *, place: str, run_id: str, facts: dict[str, Any]
) -> Version:
    """Pack, keep in a folder of the run's artifacts that begins with `place`, and register with every file's digest.

    As `register`.
    """
    try:
        ensure(tracking, name)
        with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
            packed = Path(temporary) / "packed"
            pack(packing, packed)
            return _keep(tracking, name, packed, place, run_id, facts | {"files": digests(packed)})
    except (MlflowException, OSError) as error:  # artifacts do not all go through MLflow's own client
        raise RegistryError(f"registration failed: {first_line(error)}", where=name) from error


def carry(
    source: Tracking, version: Version, target: Tracking, name: str, *, run_id: str, facts: dict[str, Any]
) -> Version:
    """A version's files, checked, as a new version of `name` in another registry. As `register`."""
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        packed = fetch(source, version, Path(temporary))
        (packed / BESIDE).unlink(missing_ok=True)
        try:
            ensure(target, name)
            return _keep(target, name, packed, "models", run_id, facts)
        except (MlflowException, OSError) as error:
            raise RegistryError(f"registration failed: {first_line(error)}", where=name) from error


def _keep(tracking: Tracking, name: str, packed: Path, place: str, run_id: str, facts: dict[str, Any]) -> Version:
    place = f"{place}-{uuid.uuid4().hex[:8]}"  # nothing may ever be written over a version's files
    tracking.client.log_artifacts(run_id, str(packed), place)
    source = f"{tracking.client.get_run(run_id).info.artifact_uri}/{place}"
    tags = {f"{TAG}{key}": json.dumps(value, sort_keys=True) for key, value in facts.items()}
    created = tracking.client.create_model_version(name, source, run_id=run_id, tags=tags)
    return Version(name, str(created.version), run_id, facts)
