"""The training loop and what it needs. Imports neither Ray, Optuna nor MLflow: it runs anywhere torch does."""
