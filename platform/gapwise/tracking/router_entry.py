"""What MLflow runs to rebuild a router; see `gapwise.tracking.router`."""

from mlflow.models import set_model

from gapwise.tracking.router import RouterModel

set_model(RouterModel())
