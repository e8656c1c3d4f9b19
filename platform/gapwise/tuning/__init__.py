"""Search: spaces, the study's journal, workers that run trials, the second phase and the refit of winners.

The only place that imports `ray.tune` and `optuna`.
"""
