"""Retraining on a schedule: what has changed, whether that calls for a new model, and who makes it."""
