"""What MLflow runs to rebuild a router; see `gapwise.tracking.router_model`."""

from mlflow.models import set_model

from gapwise.tracking.router_model import RouterModel

set_model(RouterModel())
