"""Connecting to Ray: a private local cluster by default, a team's through `--address` or RAY_ADDRESS."""

import json
import logging
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private import services
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError

from gapwise.distributed.address import DRIVER_ALLOWED, driver_endpoint, refuse_silence
from gapwise.distributed.placement import Node, Resources
from gapwise.distributed.token import check_token, refused_token
from gapwise.errors import SpecError

NAMESPACE = "gapwise"
_PATIENCE_SECONDS = 5.0
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
    if address and address != "local":
        _join(address)
    else:
        _start(cpus)


def _join(address: str) -> None:
    """Raises SpecError within seconds for a cluster that is not there, does not take us, or is of another version."""
    check_token()
    address = _found(address) if address == "auto" else address
    endpoint = driver_endpoint(address)
    refuse_silence(endpoint, address)
    metadata = _metadata(str(endpoint), address)
    check_versions(address, metadata["ray_version"], metadata["python_version"])
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise SpecError(
            f"cannot be joined: {_reason(error)}", where=f"--address {address}", allowed=DRIVER_ALLOWED
        ) from error


def _found(address: str) -> str:
    """The cluster that `ray start` began on this machine."""
    try:
        return str(services.canonicalize_bootstrap_address_or_die(address))
    except ConnectionError as error:
        raise SpecError("no Ray cluster runs on this machine", where=f"--address {address}") from error


def _metadata(endpoint: str, address: str) -> dict[str, str]:
    """A cluster's versions, from its GCS; in a thread, for Ray waits 35 s for a port that speaks something else."""
    told: list[bytes | Exception] = []

    def ask() -> None:
        try:
            client = GcsClient(address=endpoint)
            told.append(client.internal_kv_get(CLUSTER_METADATA_KEY, KV_NAMESPACE_CLUSTER, timeout=_PATIENCE_SECONDS))
        except (RayError, OSError, RuntimeError) as error:
            told.append(error)

    with _silent():
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(2 * _PATIENCE_SECONDS)
    answer = told[0] if told else None
    if isinstance(answer, AuthenticationError):
        raise refused_token(f"--address {address}")
    if not isinstance(answer, bytes):
        reason = f": {_reason(answer)}" if answer else ""
        raise SpecError(f"this is no Ray cluster{reason}", where=f"--address {address}", allowed=DRIVER_ALLOWED)
    return dict(json.loads(answer))


@contextmanager
def _silent() -> Iterator[None]:
    """Ray's C++ writes its own warnings to the file that stderr is; what is wrong is said by us, in one line."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def check_versions(address: str, their_ray: str, their_python: str | None) -> None:
    """Raises SpecError for a cluster of another Ray, or another Python than ours by its first two numbers.

    Ray itself may ask for the third too when a driver joins, and says so.
    """
    python = platform.python_version()
    same_python = their_python is None or their_python.split(".")[:2] == python.split(".")[:2]
    if their_ray != ray.__version__ or not same_python:
        theirs = f"Ray {their_ray}" + (f" on Python {their_python}" if their_python else "")
        ours = f"Ray {ray.__version__} on Python {python}"
        raise SpecError(f"the cluster has {theirs}, here is {ours}", where=f"--address {address}", allowed="the same")


def _start(cpus: int | None) -> None:
    """A private cluster on this machine. Raises SpecError where Ray did not come up within its own patience."""
    try:
        ray.init(
            address="local",  # else Ray joins whatever `ray start` began here once, or waits for it for ever
            num_cpus=cpus,
            include_dashboard=False,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises a bare Exception when its processes do not come up in time
        if type(error) is not Exception and not isinstance(error, ConnectionError | RuntimeError | ValueError):
            raise
        raise SpecError(
            f"Ray did not start on this machine: {_reason(error)}",
            allowed="again when the machine is less busy (RAY_gcs_server_port_wait_time_s=120 waits longer), "
            "or --address of a cluster that runs",
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error and what caused it: Ray's go on with a traceback, or with pages of advice."""
    words = [str(one).strip() for one in (error, error.__cause__) if one is not None]
    return "; ".join(said.splitlines()[0] for said in words if said) or type(error).__name__


def draining() -> set[str]:
    """Ids of the nodes that are about to go and take nothing new."""
    return set(ray._private.state.state.get_draining_nodes())


def resources() -> Resources:
    """What the cluster has in all, but for nodes that are about to go."""
    leaving = draining()
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    return Resources(tuple(Node(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive))
