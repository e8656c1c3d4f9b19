"""The router as a pyfunc, `models:/NAME-router@champion`, so that MLflow serves it like any model."""

import json
import tempfile
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

from gapwise.data.shape import DataShape
from gapwise.tracking import aliases, registering, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.local import ROUTER
from gapwise.tracking.locate import locate
from gapwise.tracking.packing import Packing
from gapwise.tracking.router import Router
from gapwise.tracking.served import columns_of, input_example, signature

ARTIFACT, ALIAS = "router", "champion"
_SAYS = "Answers each row with the champion of `{name}` at its missing rate. It asks who that is, so it need not move."
TOLD = "missing_rate"
"""A column that says the missing rate of a row; null for one that is to be estimated."""


class RouterModel(PythonModel):
    """Answers `prediction`, the `missing_rate` it saw and the `version` that answered, for rows like a champion's."""

    router: Router

    def load_context(self, context: Any) -> None:
        """Called once by MLflow; the registry is the one that MLflow itself is set to."""
        described = json.loads(Path(context.artifacts[ARTIFACT]).read_text())
        uri = mlflow.get_registry_uri()
        self.router = Router(Tracking(MlflowClient(mlflow.get_tracking_uri(), uri), uri), described["name"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """MLflow prescribes these three names."""
        del context, params
        told = model_input[TOLD].to_numpy(np.float64, na_value=np.nan) if TOLD in model_input else None
        found = self.router.answer_rows(columns_of(model_input.drop(columns=[TOLD], errors="ignore")), told)
        told_back = {"prediction": found.predictions, TOLD: found.rates.round(4), "version": found.versions}
        return pd.DataFrame(told_back, index=model_input.index)


def router_signature(shape: DataShape) -> ModelSignature:
    """As a champion's, with the optional rate; and with what stood behind the answer."""
    champion = signature(shape)
    told = ColSpec(DataType.double, TOLD, required=False)
    seen = [ColSpec(DataType.double, TOLD), ColSpec(DataType.string, "version")]
    return ModelSignature(
        inputs=Schema([*champion.inputs.inputs, told]), outputs=Schema([*champion.outputs.inputs, *seen])
    )


def ensure_router(tracking: Tracking, name: str) -> None:
    """`models:/NAME-router@champion` for a name with champions, registered when there is none that reads as they do."""
    champions = aliases.champions(registry.aliases_if_any(tracking, name) or {})
    if not champions:
        return
    serving = registry.version_of(tracking, name, next(iter(champions.values())))
    router = f"{name}{ROUTER}"
    present = (registry.aliases_if_any(tracking, router) or {}).get(ALIAS)
    reads = serving.facts.get(registry.READS)
    if present is not None and registry.version_of(tracking, router, present).facts.get(registry.READS) == reads:
        return
    shape = locate(tracking, f"models:/{name}/{serving.version}").shape
    registry.ensure(tracking, router, _SAYS.format(name=name))
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        file = Path(temporary) / "router.json"
        file.write_text(json.dumps({"name": name}))
        example = input_example(shape)
        example[TOLD] = [np.nan, 0.5]
        packing = Packing({ARTIFACT: file}, router_signature(shape), example, shape)
        made = registering.store(
            tracking,
            router,
            packing,
            place="router",
            run_id=serving.run_id,
            facts={"routes": name, registry.READS: reads},
        )
    registry.set_alias(tracking, router, ALIAS, made.version)
