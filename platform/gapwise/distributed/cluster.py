"""Connecting to Ray: a private local cluster by default, a team's through `--address` or RAY_ADDRESS."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from gapwise.distributed.placement import Node, Resources
from gapwise.errors import SpecError

NAMESPACE = "gapwise"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""For a private local cluster on loopback: no reports home, quick health checks, no loggers of Tune's own."""

_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""glibc keeps freed memory instead of returning it at every step; measured 15 to 20 % a training step on CPU."""


@contextmanager
def connected(address: str | None = None, *, cpus: int | None = None) -> Iterator[Resources]:
    """A Ray connection for the length of a command; an existing one is used and left open."""
    if ray.is_initialized():
        yield resources()
        return
    _connect(address or os.environ.get("RAY_ADDRESS"), cpus)
    try:
        yield resources()
    finally:
        ray.shutdown()


def _connect(address: str | None, cpus: int | None) -> None:
    for name, value in (_QUIET | _ALLOCATOR).items():
        if not (address and name == "RAY_AUTH_MODE"):
            os.environ.setdefault(name, value)
    try:
        if address:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",  # else Ray joins whatever `ray start` began here once, or waits for it for ever
                num_cpus=cpus,
                include_dashboard=False,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"no Ray cluster answers: {reason}", where=f"--address {address}") from error


def draining() -> set[str]:
    """Ids of the nodes that are about to go and take nothing new."""
    return set(ray._private.state.state.get_draining_nodes())


def resources() -> Resources:
    """What the cluster has in all, but for nodes that are about to go."""
    leaving = draining()
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    return Resources(tuple(Node(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive))
