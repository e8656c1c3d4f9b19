"""The pyfunc that MLflow serves: a model folder that answers table rows. It needs torch and gapwise, not Ray.

`served_entry.py` beside this file is what MLflow stores with a model (models from code): it holds no logic, so that a
registered model's behaviour is this module as it is installed, or as it was when the model was registered (`packing`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import DataType
from mlflow.types.schema import Array, ColSpec, Schema
from numpy.typing import NDArray

from gapwise.data.batch import ModalityBatch
from gapwise.data.rows import from_rows
from gapwise.data.shape import DataShape
from gapwise.errors import CheckpointError
from gapwise.models.interface import MultimodalModel, State
from gapwise.models.saved import ModelFolder, load_model_folder, rebuild
from gapwise.tracking.aliases import ARTIFACT

GOLDEN = "golden.json"
"""Beside the weights: the answers that the model gave when it was registered, to be given again when it is loaded."""
_ROWS_AT_ONCE = 256
_GOLDEN_FRAMES = 16
_CLOSE = 1e-3
"""How far another machine's arithmetic may take an answer."""


class ServedModel(PythonModel):
    """Answers one `prediction` a row (a score, or a class) for rows with one column a modality."""

    folder: ModelFolder
    model: MultimodalModel
    state: State

    def load_context(self, context: Any) -> None:
        """Called once by MLflow when the model is loaded; checks the weights' digest, and then the golden answers."""
        self.answer_from(Path(context.artifacts[ARTIFACT]))

    def answer_from(self, folder: Path) -> None:
        """Raises CheckpointError where the weights are not those described, or answer otherwise than they did."""
        self.folder = load_model_folder(folder)
        self.model, self.state = rebuild(self.folder), self.folder.state
        check_golden(self, folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """MLflow prescribes these three names. Columns that are wholly absent are missing modalities."""
        del context, params
        return pd.DataFrame({"prediction": self.answer_rows(columns_of(model_input))}, index=model_input.index)

    def answer_rows(self, columns: Mapping[str, Sequence[Any]]) -> NDArray[Any]:
        """(B,) float32 scores or int64 classes, for rows as `data.rows` describes. Raises what `from_rows` does."""
        count = len(next(iter(columns.values()), ()))
        visible = self.folder.spec.protocol.mask_visible
        parts = [
            self.answer(
                from_rows(
                    {name: cells[start : start + _ROWS_AT_ONCE] for name, cells in columns.items()},
                    self.folder.shape,
                    mask_visible=visible,
                )
            )
            for start in range(0, max(count, 1), _ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def answer(self, batch: ModalityBatch) -> NDArray[Any]:
        """The same for a batch as the model reads it."""
        output = self.output(batch)
        return (output.argmax(-1) if self.folder.shape.task == "classification" else output).numpy()

    def output(self, batch: ModalityBatch) -> torch.Tensor:
        """(B,) scores or (B, C) logits, without gradient."""
        with torch.inference_mode():
            return self.model.predict(batch, self.state).output


def columns_of(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Cells by column, the form that `data.rows` reads."""
    return {str(name): rows[name].tolist() for name in rows.columns}


def answering(folder: Path) -> ServedModel:
    """A model folder, ready to answer in this process. Raises what `ServedModel.answer_from` does."""
    model = ServedModel()
    model.answer_from(folder)
    return model


def write_golden(folder: Path) -> None:
    """Keep what a model folder answers here and now to rows that are always the same."""
    (folder / GOLDEN).write_text(json.dumps({"outputs": _golden_outputs(answering(folder)).tolist()}))


def check_golden(model: ServedModel, folder: Path) -> None:
    """Raises CheckpointError where a model answers otherwise than when it was registered: another torch, or broken."""
    file = folder / GOLDEN
    if not file.exists():
        return
    kept = np.array(json.loads(file.read_text())["outputs"])
    off = np.abs(_golden_outputs(model) - kept)
    if not (off <= _CLOSE * (1.0 + np.abs(kept))).all():
        raise CheckpointError(
            f"answers otherwise than when it was registered, by up to {off.max():.3g} on its golden rows",
            where=str(file),
            allowed="the versions of torch and gapwise that it was registered with",
        )


def _golden_outputs(model: ServedModel) -> NDArray[Any]:
    rows = _golden_rows(model.folder.shape)
    batch = from_rows(rows, model.folder.shape, mask_visible=model.folder.spec.protocol.mask_visible)
    outputs: NDArray[Any] = model.output(batch).numpy()
    return outputs


def _golden_rows(shape: DataShape) -> dict[str, list[Any]]:
    """One row with everything, one with every other frame, one without the last modality, one with nothing."""
    draw = np.random.default_rng(0)
    names = sorted(shape.modalities)
    columns: dict[str, list[Any]] = {}
    for name in names:
        modality = shape.modalities[name]
        length = min(modality.max_length, _GOLDEN_FRAMES)
        if modality.tokens is None:
            frames = draw.standard_normal((length, modality.dim)).astype(np.float32)
        else:
            frames = draw.integers(modality.tokens.vocabulary, size=(length, 1)).astype(np.float32)
        partial = frames.copy()
        partial[1::2] = np.nan
        columns[name] = [frames, partial, None if name == names[-1] and len(names) > 1 else frames, None]
    return columns


def input_example(shape: DataShape) -> pd.DataFrame:
    """Two rows of one frame of zeros a modality; the second lacks the last modality, to show how that is written."""
    names = sorted(shape.modalities)
    frame = {name: [[0.0] * shape.modalities[name].dim] for name in names}
    lacking = {name: None if name == names[-1] and len(names) > 1 else frame[name] for name in names}
    return pd.DataFrame([frame, lacking])


def signature(shape: DataShape) -> ModelSignature:
    """One optional column of frames a modality. `Array(float)` would refuse every JSON number: hence double."""
    frames = Array(Array(DataType.double))
    inputs = Schema([ColSpec(frames, name, required=False) for name in sorted(shape.modalities)])
    kind = DataType.long if shape.task == "classification" else DataType.float
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec(kind, "prediction")]))
