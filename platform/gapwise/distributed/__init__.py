"""Ray Train: connecting to a cluster, the worker loops, and the runs that the driver starts.

The only place that imports `ray.train`.
"""
