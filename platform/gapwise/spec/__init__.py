"""Everything that a person writes or that we write for them: values, their documentation and their identity.

Nothing here imports torch, Ray, Optuna or MLflow, so a YAML file is judged in milliseconds.
"""
