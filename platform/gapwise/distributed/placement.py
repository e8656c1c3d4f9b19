"""Who gets what when several trials run at once: whole CPU cores, and a GPU or a fraction of one. Pure arithmetic.

Where there are GPUs every worker needs its share of one; elsewhere a core is the device. What does not fit is refused
here, in a line, because a cluster would wait for it for ever.
"""

from typing import NamedTuple

from gapwise.errors import SpecError


class Node(NamedTuple):
    """One machine."""

    cpus: int
    gpus: int = 0


class Resources(NamedTuple):
    """What a cluster has in all."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    def __str__(self) -> str:
        where = f" on {len(self.nodes)} nodes" if len(self.nodes) > 1 else ""
        return f"{self.gpus} GPU, {self.cpus} CPU{where}"


class Needs(NamedTuple):
    """What a trial asks for."""

    workers: int = 1
    trials_per_device: int = 1
    """How many share a GPU."""


class Share(NamedTuple):
    """What one worker gets."""

    cpus: int
    """Cores, and so threads."""
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus} CPU" + (f", {self.gpus:g} GPU" if self.gpus else "")


class Placement(NamedTuple):
    """Trials that run at once, each with as many workers as it needs."""

    at_once: int
    share: Share


def most_at_once(available: Resources, needs: Needs) -> int:
    """Trials that fit, 0 if not even one does. The workers of a trial may be on several nodes."""
    return _workers(available, needs, cpus=1) // needs.workers


def _workers(available: Resources, needs: Needs, cpus: int) -> int:
    """Workers that fit with so many cores each; a worker is on one node."""
    if not available.gpus:
        return sum(node.cpus // cpus for node in available.nodes)
    return sum(min(node.gpus * needs.trials_per_device, node.cpus // cpus) for node in available.nodes)


def fitting(available: Resources, needs: Needs, share: Share) -> int:
    """Trials that fit when each of their workers gets this share."""
    return _workers(available, needs, share.cpus) // needs.workers


def place(available: Resources, needs: Needs, wanted: int | None = None) -> Placement:
    """`wanted` trials at once, as many as fit where nothing is said; they share all cores, evenly.

    Raises SpecError where they, or the workers of a single trial, do not fit.
    """
    most = most_at_once(available, needs)
    if not most:
        fits = f"at most {_workers(available, needs, cpus=1)}, of {available}"
        raise SpecError(f"a trial of {needs.workers} workers does not fit", where="workers_per_trial", allowed=fits)
    at_once = most if wanted is None else wanted
    if at_once > most:
        raise SpecError(f"{at_once} trials at once do not fit", where="--concurrency", allowed=_fits(available, needs))
    cpus = max(
        each for each in range(1, available.cpus + 1) if _workers(available, needs, each) >= at_once * needs.workers
    )
    return Placement(at_once, Share(cpus, 1 / needs.trials_per_device if available.gpus else 0.0))


def _fits(available: Resources, needs: Needs) -> str:
    said = [f"at most {most_at_once(available, needs)} on {available}"]
    if available.gpus:
        said.append(f"at {needs.trials_per_device} a GPU (trials_per_device)")
    if needs.workers > 1:
        said.append(f"at {needs.workers} workers a trial")
    return ", ".join(said)
