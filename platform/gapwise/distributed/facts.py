"""What `gapwise doctor` looks at: a machine, the token, a cluster. Gathered here, judged in `health.py`."""

import ipaddress
import os
import platform
import shutil
import stat
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from gapwise import __version__
from gapwise.distributed.address import Endpoint
from gapwise.distributed.token import token_file, token_mode

DISTRIBUTION = "gapwise-platform"
_PATIENCE_SECONDS = 5.0
_LISTENS = "0A"
"""A socket's state in /proc/net/tcp."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """A machine."""

    python: str
    versions: dict[str, str]
    """Of Ray and gapwise, as imported there."""
    cpus: int
    gpus: int
    cuda: bool
    """Whether its torch was built for GPUs; looked at only where there are some."""
    free_bytes: int | None
    """On the disk of GAPWISE_HOME; None where that cannot be written."""
    listening: tuple[str, ...] = ()
    """Local addresses on which the port that was asked for listens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFacts:
    """What this process shows to clusters."""

    on: bool
    file: Path | None
    mode: int | None
    """Permission bits; None where the file cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterFacts:
    """How a cluster is reached by others."""

    loopback: bool
    """Whether the address that we use is this machine's own."""
    open: bool
    """Whether it answers without a token."""
    dashboard: frozenset[str]
    """Addresses that dashboard and Jobs API listen on; empty where there is none."""


class Question(NamedTuple):
    """What a node is asked about itself."""

    home: str
    port: int | None
    """Whose listeners are wanted."""


def describe(question: Question, node: str) -> NodeFacts:
    """This machine, from inside a task or from this process. `node` is only its name."""
    del node
    import ray

    gpus = _gpus()
    return NodeFacts(
        python=platform.python_version(),
        versions={"ray": ray.__version__, "gapwise": __version__},
        cpus=os.cpu_count() or 1,
        gpus=gpus,
        cuda=bool(gpus) and _cuda(),
        free_bytes=_free(Path(question.home)),
        listening=() if question.port is None else _listening_here(question.port),
    )


def _gpus() -> int:
    listed = Path("/proc/driver/nvidia/gpus")
    return len(list(listed.iterdir())) if listed.is_dir() else 0


def _cuda() -> bool:
    import torch

    return torch.version.cuda is not None


def _free(home: Path) -> int | None:
    """None where neither the home nor the nearest folder above it can be written."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    return shutil.disk_usage(there).free if os.access(there, os.W_OK | os.X_OK) and there.is_dir() else None


def _listening_here(port: int) -> tuple[str, ...]:
    tables = [Path("/proc/net") / name for name in ("tcp", "tcp6")]
    return tuple(sorted({one for table in tables if table.exists() for one in listeners(table.read_text(), port)}))


def listeners(table: str, port: int) -> set[str]:
    """Local addresses that listen on a port, from the text of /proc/net/tcp or tcp6 (proc(5))."""
    found = set()
    for row in table.splitlines()[1:]:
        local, state = row.split()[1], row.split()[3]
        address, _, its_port = local.partition(":")
        if state == _LISTENS and int(its_port, 16) == port:
            found.add(_address(address))
    return found


def _address(written: str) -> str:
    """Four-byte words, each in the machine's own order."""
    words = [bytes.fromhex(written[at : at + 8]) for at in range(0, len(written), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def token_facts(environment: Mapping[str, str] = os.environ) -> TokenFacts:
    """Raises SpecError for a RAY_AUTH_MODE that Ray does not have."""
    file = token_file(environment)
    mode = None
    if file is not None and os.access(file, os.R_OK) and file.is_file():
        mode = stat.S_IMODE(file.stat().st_mode)
    return TokenFacts(on=token_mode(environment), file=file, mode=mode)


def answers_anybody(dashboard: str) -> bool:
    """Whether a Jobs API answers without a token."""
    request = urllib.request.Request(f"{dashboard}/api/version")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def dashboard_endpoint() -> Endpoint | None:
    """Of the cluster that we have joined; None where it has none."""
    from ray._private.services import get_webui_url_from_internal_kv

    url = get_webui_url_from_internal_kv()
    host, _, port = (url or "").rpartition(":")
    return Endpoint(host, int(port)) if host and port.isdecimal() else None


def clock_offsets() -> dict[str, float]:
    """Seconds that each node's clock is ahead, in the best case for it: up to half the round trip is taken off."""
    from gapwise.distributed.shared import living_nodes, on_node

    offsets = {}
    for name, node in living_nodes().items():
        on_node(_clock, None, name, node)  # a fresh worker takes seconds
        before = time.time()
        there = on_node(_clock, None, name, node)
        after = time.time()
        offset, slack = there - (before + after) / 2, (after - before) / 2
        offsets[name] = max(abs(offset) - slack, 0.0) * (1 if offset > 0 else -1)
    return offsets


def _clock(what: None, node: str) -> float:
    del what, node
    return time.time()


def installed(requirements: list[str]) -> dict[str, str]:
    """Versions of what is installed, by the name that a requirement gives it."""
    from packaging.requirements import Requirement

    found = {}
    for name in {Requirement(one).name for one in requirements}:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
