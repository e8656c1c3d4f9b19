"""A trained model on disk: weights in safetensors, everything else in JSON, never pickle, and never half of one.

A *model folder* (`model.safetensors` + `model.json`) is what evaluation, the registry and the served model read:
weights with their digest, the spec, the data's shape and fingerprints, and validation figures. It is enough to answer;
it is not enough to continue training (that is a snapshot, see `training.checkpoint`). A finetuned text encoder is part
of the weights; of a frozen one only the path and a digest are kept, and held against what is found there.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gapwise.data.shape import DataShape, Moments, Statistics
from gapwise.errors import CheckpointError
from gapwise.models.catalogue import build_model
from gapwise.models.interface import MultimodalModel, State
from gapwise.models.reading import own_weights
from gapwise.spec.train import TrainSpec

FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
_SEPARATOR = "::"
_NOTHING_SEEN = torch.zeros(0, dtype=torch.int64)


def flatten(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Groups of named tensors as one flat dict, on CPU."""
    return {
        f"{group}{_SEPARATOR}{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def unflatten(flat: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The inverse of `flatten`; a group without tensors does not come back."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        group, name = key.split(_SEPARATOR, 1)
        groups.setdefault(group, {})[name] = tensor
    return groups


def write_tensors(file: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """One safetensors file with a JSON header, written beside and renamed, so that readers see all or nothing."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        save_file(dict(tensors), temporary, metadata={"gapwise": json.dumps(header)})
        with temporary.open("rb") as opened:  # else a power cut may leave the new name with nothing behind it
            os.fsync(opened.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON header. Raises CheckpointError for a missing, truncated or foreign file."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get("gapwise", "{}"))
            return {name: opened.get_tensor(name) for name in opened.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError("cannot be read as a checkpoint", where=str(file)) from error


class ModelFolder(NamedTuple):
    """A trained model with what must be known about it, in memory."""

    spec: TrainSpec
    shape: DataShape
    statistics: Statistics
    fingerprints: dict[str, str]
    """Of the data: `train`, `valid` and `dataset`."""
    validation: dict[str, dict[str, float]]
    """{metric: {condition: value}} of the weights that are kept, on validation."""
    trained: dict[str, Any]
    """Facts of the run: epochs, kept_epoch, seed, train_seconds."""
    weights: dict[str, Tensor]
    state: State
    diagnostics: dict[str, dict[str, float]] = {}  # noqa: RUF012  (never written to)
    """{name: {condition: value}} of the kept weights on validation: see `evaluation.diagnostics`; empty without any."""
    seen: Tensor = _NOTHING_SEEN
    """(S,) keys of all training and validation samples, by id and by content (`contamination`); the bits of uint64.
    Empty for a model from before they were kept."""


def save_model(folder: Path, model: ModelFolder) -> None:
    """Write a model folder beside its place and rename it there; an older one of the same name is replaced."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    groups = {"weights": model.weights, "state": model.state, "seen": {"keys": model.seen}}
    write_tensors(temporary / WEIGHTS, flatten(groups), {})
    (temporary / DESCRIPTION).write_text(json.dumps(_describe(model, temporary / WEIGHTS), indent=1, sort_keys=True))
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def _describe(model: ModelFolder, weights: Path) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "spec": model.spec.model_dump(mode="json"),
        "shape": model.shape.model_dump(mode="json"),
        "statistics": {
            "modalities": {
                name: {"mean": one.mean.tolist(), "deviation": one.deviation.tolist()}
                for name, one in model.statistics.modalities.items()
            },
            "label_mean": model.statistics.label_mean,
            "label_deviation": model.statistics.label_deviation,
            "label_values": list(model.statistics.label_values),
        },
        "fingerprints": model.fingerprints,
        "validation": model.validation,
        "trained": model.trained,
        "diagnostics": model.diagnostics,
        "weights_sha256": digest(weights),
    }


def digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model folder's weights, as its description says. Raises CheckpointError where there is none."""
    return str(_read_description(folder).get("weights_sha256"))


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / DESCRIPTION).read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "no readable model here", where=str(folder), allowed=f"a folder with {DESCRIPTION}"
        ) from error


def load_model_folder(folder: Path) -> ModelFolder:
    """Read a model folder. Raises CheckpointError where it is missing, newer, or its weights are not its own."""
    described = _read_description(folder)
    if described.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"model format {described.get('format_version')!r}", where=str(folder), allowed=str(FORMAT_VERSION)
        )
    weights_file = folder / WEIGHTS
    if not weights_file.exists() or digest(weights_file) != described.get("weights_sha256"):
        raise CheckpointError("the weights are not the ones described", where=str(weights_file))
    groups = unflatten(read_tensors(weights_file)[0])
    try:
        return _described(described, groups)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("the description is incomplete or wrong", where=str(folder / DESCRIPTION)) from error


def _described(described: dict[str, Any], groups: dict[str, dict[str, Tensor]]) -> ModelFolder:
    return ModelFolder(
        spec=TrainSpec.model_validate(described["spec"]),
        shape=DataShape.model_validate(described["shape"]),
        statistics=_statistics(described["statistics"]),
        fingerprints=described["fingerprints"],
        validation=described["validation"],
        trained=described["trained"],
        weights=groups["weights"],
        state=groups.get("state", {}),
        diagnostics=described.get("diagnostics", {}),
        seen=groups.get("seen", {}).get("keys", _NOTHING_SEEN),
    )


def _statistics(fields: dict[str, Any]) -> Statistics:
    moments = {
        name: Moments(np.array(one["mean"], np.float32), np.array(one["deviation"], np.float32))
        for name, one in fields["modalities"].items()
    }
    return Statistics(moments, fields["label_mean"], fields["label_deviation"], tuple(fields.get("label_values", ())))


def rebuild(folder: ModelFolder) -> MultimodalModel:
    """The trained model in evaluation mode, on CPU.

    Raises SpecError or CheckpointError if it rests on a frozen text encoder that is not here, or has changed.
    """
    shape = own_weights(folder.shape, folder.spec.model.text)
    model = build_model(folder.spec.model, shape, folder.statistics, folder.spec.seed)
    model.load_state_dict(folder.weights)
    return model.eval()
