"""What MLflow runs to rebuild a registered model; see `gapwise.tracking.served`."""

from mlflow.models import set_model

from gapwise.tracking.served import ServedModel

set_model(ServedModel())
