"""MLflow: runs, the model registry and the served model. The only place that imports mlflow."""
