"""What MLflow runs to rebuild a registered model or a router; see `gapwise.tracking.served` and `router_model`.

The gapwise that is installed answers. Where none is, the code that the model was registered with does: it lies among
the model's artifacts. It is never fetched from a package index, where the name `gapwise` belongs to somebody else.
"""

import importlib
import sys
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Entry(PythonModel):
    def load_context(self, context: Any) -> None:
        module, name = ("served", "ServedModel") if "model" in context.artifacts else ("router_model", "RouterModel")
        self.answering = getattr(_imported(f"gapwise.tracking.{module}", context.artifacts["code"]), name)()
        self.answering.load_context(context)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        answer: pd.DataFrame = self.answering.predict(context, model_input, params)
        return answer


def _imported(name: str, code: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        for other in [one for one in sys.modules if one.partition(".")[0] == "gapwise"]:
            del sys.modules[other]  # another distribution's
        sys.path.insert(0, code)
        return importlib.import_module(name)


set_model(Entry())
