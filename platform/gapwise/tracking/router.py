"""The pyfunc that stands before all champions of a name: each row goes to the one of the nearest missing rate.

It holds no weights. Who serves which rate is asked of the registry when rows come, so a promotion or a rollback is
followed without registering anything again; champions are fetched once, and their files checked, before they answer.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import DataType
from mlflow.types.schema import ColSpec, Schema

from gapwise.data.rows import missing_shares
from gapwise.data.shape import DataShape
from gapwise.errors import RegistryError
from gapwise.evaluation.routing import nearest
from gapwise.spec.protocol import rate_key
from gapwise.tracking import aliases, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.served import ServedModel, answering, input_example, signature

ARTIFACT, ALIAS = "router", "champion"
_ENTRY = Path(__file__).with_name("router_entry.py")
TOLD = "missing_rate"
"""A column that says the missing rate of a row; null for one that is to be estimated."""
_FRESH_SECONDS = 10.0


class RouterModel(PythonModel):
    """Answers `prediction`, the `missing_rate` it saw and the `version` that answered, for rows like a champion's."""

    name: str
    _champions: dict[str, str]

    def load_context(self, context: Any) -> None:
        """Called once by MLflow; the registry is the one that MLflow itself is set to."""
        described = json.loads(Path(context.artifacts[ARTIFACT]).read_text())
        self.name = described["name"]
        self._shape = DataShape.model_validate(described["shape"])
        uri = mlflow.get_registry_uri()
        self._tracking = Tracking(MlflowClient(mlflow.get_tracking_uri(), uri), uri)
        self._loaded: dict[str, ServedModel] = {}
        self._asked = -_FRESH_SECONDS

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """MLflow prescribes these three names."""
        del params
        champions = self._who_serves()
        rows = model_input.drop(columns=[TOLD], errors="ignore")
        rates = self._rates(model_input, rows)
        versions = np.array([champions[str(nearest(rate_key(round(rate, 2)), champions))] for rate in rates])
        answered = pd.DataFrame(index=model_input.index)
        answered["prediction"] = pd.Series(index=model_input.index, dtype=object)
        for version in dict.fromkeys(versions.tolist()):
            chosen = versions == version
            found = self._model(version).predict(context, rows[chosen])
            answered.loc[chosen, "prediction"] = found["prediction"].to_numpy()
        answered["prediction"] = answered["prediction"].infer_objects()
        answered["missing_rate"] = np.round(rates, 4)
        answered["version"] = versions
        return answered

    def _who_serves(self) -> dict[str, str]:
        """{rate: version}, asked again when it is older than some seconds."""
        if time.monotonic() - self._asked > _FRESH_SECONDS:
            named = registry.aliases(self._tracking, self.name)
            self._champions = aliases.champions(named)
            self._asked = time.monotonic()
            self._loaded = {one: self._loaded[one] for one in self._champions.values() if one in self._loaded}
        if not self._champions:
            raise RegistryError("has no champions", where=f"registered model {self.name!r}", allowed="a promoted name")
        return self._champions

    def _rates(self, model_input: pd.DataFrame, rows: pd.DataFrame) -> Any:
        columns = {str(column): rows[column].tolist() for column in rows.columns}
        estimated = missing_shares(columns, self._shape) if columns else np.ones(len(model_input))
        if TOLD not in model_input:
            return estimated
        told = model_input[TOLD].astype(float).to_numpy()
        return np.where(np.isnan(told), estimated, told)

    def _model(self, version: str) -> ServedModel:
        if version not in self._loaded:
            with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
                folder = registry.download(self._tracking, f"models:/{self.name}/{version}", Path(temporary))
                self._loaded[version] = answering(folder)
        return self._loaded[version]


def router_signature(shape: DataShape) -> ModelSignature:
    """As a champion's, with the optional rate; and with what stood behind the answer."""
    champion = signature(shape)
    told = ColSpec(DataType.double, TOLD, required=False)
    seen = [ColSpec(DataType.double, "missing_rate"), ColSpec(DataType.string, "version")]
    return ModelSignature(
        inputs=Schema([*champion.inputs.inputs, told]), outputs=Schema([*champion.outputs.inputs, *seen])
    )


def ensure_router(tracking: Tracking, name: str, shape: DataShape, run_id: str) -> None:
    """`models:/NAME-router@champion`, registered once: it follows whoever serves."""
    router = f"{name}{registry.ROUTER}"
    if ALIAS in (registry.aliases_if_any(tracking, router) or {}):
        return
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        file = Path(temporary) / "router.json"
        file.write_text(json.dumps({"name": name, "shape": shape.model_dump(mode="json")}))
        example = input_example(shape)
        example[TOLD] = [float("nan"), 0.5]
        packing = registry.Packing(_ENTRY, {ARTIFACT: file}, router_signature(shape), example)
        made = registry.store(tracking, router, packing, place="router", run_id=run_id, facts={"routes": name})
    registry.set_alias(tracking, router, ALIAS, made.version)
