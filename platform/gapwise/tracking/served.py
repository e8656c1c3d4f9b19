"""The pyfunc that MLflow serves: a model folder that answers table rows. It needs torch and gapwise, not Ray.

`served_entry.py` beside this file is what MLflow stores with a model (models from code): it holds no logic, so that a
registered model's behaviour is this module at the version its tags name.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import DataType
from mlflow.types.schema import Array, ColSpec, Schema

from gapwise.data.batch import ModalityBatch
from gapwise.data.rows import from_rows
from gapwise.data.shape import DataShape
from gapwise.models.interface import MultimodalModel, State
from gapwise.models.saved import ModelFolder, load_model_folder, rebuild

ARTIFACT = "model"
_ROWS_AT_ONCE = 256


class ServedModel(PythonModel):
    """Answers one `prediction` a row (a score, or a class) for rows with one column a modality."""

    folder: ModelFolder
    model: MultimodalModel
    state: State

    def load_context(self, context: Any) -> None:
        """Called once by MLflow when the model is loaded; checks the weights' digest before using them."""
        self.answer_from(Path(context.artifacts[ARTIFACT]))

    def answer_from(self, folder: Path) -> None:
        self.folder = load_model_folder(folder)
        self.model, self.state = rebuild(self.folder), self.folder.state

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """MLflow prescribes these three names. Columns that are wholly absent are missing modalities."""
        del context, params
        parts = [
            self._answer(model_input.iloc[start : start + _ROWS_AT_ONCE])
            for start in range(0, len(model_input), _ROWS_AT_ONCE)
        ]
        return pd.DataFrame({"prediction": np.concatenate(parts)}, index=model_input.index)

    def _answer(self, rows: pd.DataFrame) -> Any:
        columns = {str(name): rows[name].tolist() for name in rows.columns}
        batch = from_rows(columns, self.folder.shape, mask_visible=self.folder.spec.protocol.mask_visible)
        output = answer(self.model, self.state, batch)
        return (output.argmax(-1) if self.folder.shape.task == "classification" else output).numpy()


def answering(folder: Path) -> ServedModel:
    """A model folder, ready to answer rows in this process."""
    model = ServedModel()
    model.answer_from(folder)
    return model


def answer(model: MultimodalModel, state: State, batch: ModalityBatch) -> torch.Tensor:
    """Scores (B,) or logits (B, C), without gradient."""
    with torch.inference_mode():
        return model.predict(batch, state).output


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
