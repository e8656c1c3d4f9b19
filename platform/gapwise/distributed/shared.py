"""Whether every node of a cluster sees the same folder: studies, checkpoints and data are files on a shared path.

Nothing is concluded from mount tables. A file that is written here must be read by a task on every living node, and
what that task writes must be read here. One node alone has nobody to disagree with. A node that the autoscaler adds
later is not asked.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gapwise.errors import SpecError

_PATIENCE_SECONDS = 60.0
ALLOWED = (
    "a folder that every node mounts under this path, through GAPWISE_HOME and --data; MLflow's artifacts may be in "
    "s3:// and trials in PostgreSQL (--storage), but studies and checkpoints need such a folder"
)


class Look(NamedTuple):
    """What a node is asked: to find these paths, and to write beside the probe in `folder`."""

    folder: str
    probe: str
    paths: tuple[str, ...]


Ask = Callable[[Look], Mapping[str, str]]
"""Asks every node: what each found missing, by node name; empty where it found all."""


def refuse_unshared(folder: Path, data: Sequence[Path] = (), *, ask: Ask | None = None) -> None:
    """Raises SpecError where a node of a cluster of several does not see `folder` or `data`."""
    nodes = living_nodes()
    if len(nodes) < 2:
        return
    for node, missing in unseen(folder, data, ask or ask_nodes).items():
        what = f"node {node} does not see this folder, and a study on {len(nodes)} nodes needs it on all"
        raise SpecError(what, where=missing, allowed=ALLOWED)


def unseen(folder: Path, data: Sequence[Path], ask: Ask) -> dict[str, str]:
    """A path that a node does not see, or that we do not see it write to, by node. `folder` is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    look = Look(str(folder), f".probe-{uuid.uuid4().hex}", tuple(str(path) for path in data))
    (folder / look.probe).write_text("asked")
    try:
        found = ask(look)
        return {node: missing or str(folder) for node, missing in found.items() if missing or not _answered(look, node)}
    finally:
        for left in folder.glob(f"{look.probe}*"):
            left.unlink(missing_ok=True)


def _answered(look: Look, node: str) -> bool:
    with suppress(OSError):
        return _answer(look, node).read_text() == node
    return False


def _answer(look: Look, node: str) -> Path:
    return Path(look.folder) / f"{look.probe}-{node}"


def look_here(look: Look, node: str) -> str:
    """On a node: the first path that is not there, or cannot be written; empty where all is well."""
    try:
        if (Path(look.folder) / look.probe).read_text() != "asked":
            return look.folder
        _answer(look, node).write_text(node)
    except OSError:
        return look.folder
    return next((path for path in look.paths if not Path(path).exists()), "")


def living_nodes() -> dict[str, str]:
    """Node ids by a name that a person knows the node by: its address, with the id where several share it."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    addresses = [node["NodeManagerAddress"] for node in alive]
    return {
        address if addresses.count(address) == 1 else f"{address} ({node['NodeID'][:8]})": node["NodeID"]
        for node, address in zip(alive, addresses, strict=True)
    }


def ask_nodes(look: Look) -> dict[str, str]:
    """`look_here` on every node at once."""
    return on_every_node(look_here, look)


def on_every_node(question: Callable[[Any, str], Any], what: Any) -> dict[str, Any]:
    """`question(what, node)` as a task on each living node, by node. Raises SpecError where one cannot answer.

    A task takes no core, so that a busy cluster and a head without any are asked too.
    """
    refs = {name: _asked(question, what, name, node) for name, node in living_nodes().items()}
    return {name: _told(ref, name) for name, ref in refs.items()}


def on_node(question: Callable[[Any, str], Any], what: Any, name: str, node: str) -> Any:
    """`question(what, name)` as a task on the node with the id `node`. Raises SpecError where it cannot answer."""
    return _told(_asked(question, what, name, node), name)


def _asked(question: Callable[[Any, str], Any], what: Any, name: str, node: str) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(question).options(num_cpus=0, max_retries=0, scheduling_strategy=pinned).remote(what, name)


def _told(ref: Any, node: str) -> Any:
    try:
        return ray.get(ref, timeout=_PATIENCE_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        raise SpecError(f"no answer within {_PATIENCE_SECONDS:.0f} s", where=f"node {node}") from error
    except (ray.exceptions.RayError, ImportError) as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        allowed = "a living node with this gapwise"
        raise SpecError(f"cannot be asked: {reason}", where=f"node {node}", allowed=allowed) from error
