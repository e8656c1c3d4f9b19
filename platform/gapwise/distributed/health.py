"""What `gapwise doctor` says of machines, cluster and token: pure functions from facts to a line each.

Nothing is asked here: `distributed/facts.py` gathers, so that every answer of every check is tested without a cluster.
"""

import re
from collections.abc import Mapping, Sequence

from packaging.requirements import Requirement

from gapwise.distributed.facts import ClusterFacts, NodeFacts, TokenFacts
from gapwise.distributed.placement import Needs, Resources, most_at_once
from gapwise.spec.health import Check, fail, ok, warn

_EXTRA, _FOR_DEVELOPERS = re.compile(r'extra == "(\w+)"'), "dev"
_LITTLE_BYTES, _LOW_BYTES = 10**9, 10 * 10**9
_SLOW_SECONDS, _WRONG_SECONDS = 2.0, 60.0
"""Leases are measured in minutes, log lines are compared by the second."""
_LOOPBACK = ("127.", "::1", "localhost")
_REMOTE_CODE = "whoever reaches it runs code on the cluster"


def check_python(version: str, supported: str) -> Check:
    """`supported` is a range such as ">=3.11,<3.13"."""
    if Requirement(f"python{supported}").specifier.contains(version, prereleases=True):
        return ok("python", f"{version} ({supported})")
    return fail("python", f"{version} is outside {supported}", f"an environment with Python {supported}")


def check_libraries(requirements: Sequence[str], installed: Mapping[str, str]) -> Check:
    """Every requirement of ours against what is installed; what belongs to an extra may be missing."""
    problems, found = [], 0
    for one in map(Requirement, requirements):
        extra = _EXTRA.search(str(one.marker))
        version = installed.get(one.name)
        if extra and (extra[1] == _FOR_DEVELOPERS or version is None):
            continue
        found += 1
        if version is None:
            problems.append(f"{one.name} is missing")
        elif not one.specifier.contains(version, prereleases=True):
            problems.append(f"{one.name} {version} is outside {one.specifier}")
    if problems:
        return fail("libraries", "; ".join(problems), "pip install -c constraints.txt with gapwise's own ranges")
    return ok("libraries", f"{found} within their ranges")


def check_threads(value: str | None, cpus: int) -> Check:
    """OMP_NUM_THREADS, which is an upper bound of the threads of a run."""
    name = "OMP_NUM_THREADS"
    if not value:
        return ok(name, f"not set; every run uses the cores it gets, of {cpus}")
    if not value.isdecimal() or int(value) < 1:
        return warn(name, f"{value!r} is no number of threads", f"unset it, or a number from 1 to {cpus}")
    if int(value) > cpus:
        return warn(name, f"{value} threads on {cpus} cores wait for each other", f"at most {cpus}")
    return ok(name, f"{value} of {cpus} cores")


def check_ray(address: str | None, error: str) -> Check:
    """Whether the cluster answered and took our token."""
    if address is None:
        return ok("ray", "no cluster: private Ray on this machine")
    if error:
        return fail("ray", error, "the address, the token, or `ray status` on the head node")
    return ok("ray", f"{address} answers")


def check_token(token: TokenFacts) -> Check:
    """Who may read the file that the token comes from."""
    name = "token"
    if not token.on or token.file is None:
        return ok(name, "from RAY_AUTH_TOKEN" if token.on else "none is shown (RAY_AUTH_MODE is not token)")
    if token.mode is None:
        return fail(name, f"{token.file} cannot be read", "RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token")
    if token.mode & 0o077:
        return fail(name, f"{token.file} is mode {token.mode:04o}: others read it", f"chmod 600 {token.file}")
    return ok(name, f"{token.file}, mode {token.mode:04o}")


def check_auth(cluster: ClusterFacts) -> Check:
    """Whether a cluster that others reach asks for a token."""
    if not cluster.open:
        return ok("auth", "the cluster asks for a token")
    mend = "start the cluster with RAY_AUTH_MODE=token on every node (KubeRay: authOptions.mode: token)"
    if cluster.loopback:
        return warn("auth", "no token is asked; only this machine reaches the cluster", mend)
    return fail("auth", f"no token is asked: {_REMOTE_CODE} (CVE-2023-48022)", mend)


def check_dashboard(cluster: ClusterFacts) -> Check:
    """On which addresses dashboard and Jobs API listen."""
    name = "dashboard"
    public = sorted(one for one in cluster.dashboard if not one.startswith(_LOOPBACK))
    if not cluster.dashboard:
        return ok(name, "none")
    if not public:
        return ok(name, f"on loopback ({', '.join(sorted(cluster.dashboard))})")
    where = f"listens on {', '.join(public)}"
    if cluster.open:
        return fail(name, f"{where} and asks for no token: {_REMOTE_CODE}", "--dashboard-host 127.0.0.1, or a token")
    return warn(name, f"{where}; a token is asked", "--dashboard-host 127.0.0.1, or a NetworkPolicy before it")


def check_versions(ours: NodeFacts, nodes: Mapping[str, NodeFacts]) -> Check:
    """Ray, Python and gapwise alike on every node."""
    other = [f"{name} has {_versions(one)}" for name, one in nodes.items() if _versions(one) != _versions(ours)]
    if other:
        return fail("versions", f"here is {_versions(ours)}; {'; '.join(other)}", "one image for every node")
    return ok("versions", f"{_versions(ours)} on {_count(nodes)}")


def _versions(node: NodeFacts) -> str:
    return f"Python {node.python}, " + ", ".join(f"{name} {version}" for name, version in node.versions.items())


def check_storage(folder: str, nodes: Mapping[str, NodeFacts], unseen: Mapping[str, str]) -> Check:
    """GAPWISE_HOME seen and written by every node, with room."""
    name = "storage"
    if unseen:
        missing = "; ".join(f"{node} does not see {path}" for node, path in unseen.items())
        return fail(name, missing, "GAPWISE_HOME and --data on a folder that every node mounts and may write")
    free = min((node.free_bytes for node in nodes.values() if node.free_bytes is not None), default=None)
    if free is None:
        return fail(name, f"{folder} cannot be written", "a GAPWISE_HOME of yours")
    said = f"{folder}: {free / 10**9:.1f} GB free, on {_count(nodes)}"
    if free < _LITTLE_BYTES:
        return fail(name, said, "gapwise gc, or a larger disk")
    return warn(name, said, "gapwise gc, or a larger disk") if free < _LOW_BYTES else ok(name, said)


def check_gpus(found: Resources, nodes: Mapping[str, NodeFacts], concurrency: int | None) -> Check:
    """GPUs, cores and torch's build against how many trials are to run at once."""
    name = "gpus"
    blind = [node for node, facts in nodes.items() if facts.gpus and not facts.cuda]
    if blind:
        return fail(name, f"torch without CUDA on {', '.join(blind)}", "a CUDA build of torch in the image")
    most = most_at_once(found, Needs())
    if concurrency is not None and concurrency > most:
        return fail(name, f"{concurrency} trials at once on {found}", f"--concurrency at most {most}")
    if found.gpus > most:
        return warn(name, f"{most} trials at once use {most} of {found}", "a core for every GPU, at the least")
    return ok(name, f"{found}: {most} trials at once")


def check_clocks(offsets: Mapping[str, float]) -> Check:
    """Seconds by which each node's clock is ahead of ours, what the question took already taken off."""
    name = "clocks"
    if not offsets:
        return ok(name, "one machine")
    node, worst = max(offsets.items(), key=lambda one: abs(one[1]))
    said = f"{node} is {worst:+.1f} s from this machine"
    if abs(worst) < _SLOW_SECONDS:
        return ok(name, f"within {_SLOW_SECONDS:.0f} s of this machine's")
    mend = "chrony or ntpd on every node: leases and schedules compare clocks"
    return fail(name, said, mend) if abs(worst) > _WRONG_SECONDS else warn(name, said, mend)


def _count(nodes: Mapping[str, NodeFacts]) -> str:
    return next(iter(nodes)) if len(nodes) == 1 else f"{len(nodes)} nodes"
