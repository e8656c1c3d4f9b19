"""Addresses that people write, and whether anything answers there: in seconds, where Ray would wait for minutes."""

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from gapwise.errors import SpecError

API_ALLOWED = "http://HOST:8265 or https://HOST, the address of the cluster's dashboard"
DRIVER_ALLOWED = "HOST:6379 of a cluster that this machine is a node of, or auto; from elsewhere use gapwise submit"
_HERE = "http://127.0.0.1:8265"
_PATIENCE_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = ("localhost", "::1")


class Endpoint(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        return self.host in _LOOPBACK or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def is_api(address: str) -> bool:
    """Whether an address is a dashboard's and not a driver's."""
    return address.startswith(("http://", "https://"))


def api_address(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Whose Jobs API is meant: the option, RAY_API_SERVER_ADDRESS, RAY_ADDRESS where it is one, or this machine's."""
    ray_address = environment.get("RAY_ADDRESS", "")
    named = given or environment.get("RAY_API_SERVER_ADDRESS") or (ray_address if is_api(ray_address) else "")
    return (named or _HERE).rstrip("/")


def api_endpoint(address: str) -> Endpoint:
    """Host and port of a Jobs API. Raises SpecError for what is not its address."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SpecError(f"not an address: {error}", where=f"--address {address}", allowed=API_ALLOWED) from error
    if parts.scheme not in _PORTS or not host or parts.path or parts.query or parts.username:
        raise SpecError("not the address of a Jobs API", where=f"--address {address}", allowed=API_ALLOWED)
    return Endpoint(host, port or _PORTS[parts.scheme])


def driver_endpoint(address: str) -> Endpoint:
    """Host and port of a cluster's GCS. Raises SpecError for what is not its address."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise SpecError(
            "not the address of a cluster for a driver", where=f"--address {address}", allowed=DRIVER_ALLOWED
        )
    return Endpoint(host.strip("[]"), int(port))


def refuse_silence(endpoint: Endpoint, address: str) -> None:
    """Raises SpecError where nothing listens."""
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=_PATIENCE_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise SpecError(
            f"no Ray cluster answers at {endpoint}: {reason}", where=f"--address {address}", allowed="one that is up"
        ) from error
