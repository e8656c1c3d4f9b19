"""`gapwise doctor`: whether this machine, the cluster, storage and tracking are fit for work, and what mends them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from gapwise.cli.options import AddressOption, DataOption
from gapwise.cli.output import JsonOption, print_json, print_table
from gapwise.errors import GapwiseError, SpecError
from gapwise.spec.health import Check, fail, ok, warn
from gapwise.spec.home import home

if TYPE_CHECKING:
    from gapwise.distributed.facts import ClusterFacts, NodeFacts
    from gapwise.distributed.placement import Resources

EXAMPLES = """
Examples:

    gapwise doctor

    gapwise doctor --address auto --data /shared/mosi --concurrency 8

    gapwise submit -- doctor --data /shared/mosi --json

Exit code 0 where nothing fails (warnings may remain), 1 where something does. Nothing is started or made: without an
address no Ray, and an MLflow store that is not there yet stays so.
"""
_FAILED = 1
_HERE = "this machine"


class _Machines(NamedTuple):
    """What the machines, be it one, turned out to be."""

    resources: "Resources"
    nodes: "dict[str, NodeFacts]"
    unseen: dict[str, str]
    """Folders that nodes do not see, by node."""
    clocks: dict[str, float]
    cluster: "ClusterFacts | None" = None


def doctor(
    address: AddressOption = None,
    data: DataOption = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="GAPWISE_STORAGE", help="Where studies record trials, if in a database."),
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Trials that are to run at once.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at versions, Ray, token, dashboard, storage, MLflow, GPUs and clocks; say what mends them."""
    checks = [*_here(), *_ray(address, data, concurrency), *_storage(storage)]
    if as_json:
        print_json({"checks": [check._asdict() for check in checks]})
    else:
        _show(checks)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(_FAILED)


def _here() -> list[Check]:
    """This process: its libraries, threads and token."""
    import os
    import platform
    from importlib import metadata

    from gapwise.distributed.facts import DISTRIBUTION, installed, token_facts
    from gapwise.distributed.health import check_libraries, check_python, check_threads, check_token

    try:
        about = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        checks = [warn("libraries", "gapwise is not installed as a package", "pip install it, for its version ranges")]
    else:
        requirements = list(about.get_all("Requires-Dist") or [])
        checks = [
            check_python(platform.python_version(), str(about["Requires-Python"])),
            check_libraries(requirements, installed(requirements)),
        ]
    checks.append(check_threads(os.environ.get("OMP_NUM_THREADS"), os.cpu_count() or 1))
    try:
        checks.append(check_token(token_facts()))
    except SpecError as error:
        checks.append(fail("token", str(error), "RAY_AUTH_MODE=token or disabled"))
    return checks


def _ray(address: str | None, data: Path | None, concurrency: int | None) -> list[Check]:
    """The machines, be it one or a cluster's, and MLflow for so many."""
    from gapwise.distributed.address import is_api
    from gapwise.distributed.health import check_ray

    checks = []
    machines = None
    try:
        if address is None:
            machines = _machine()
        elif is_api(address):
            checks += _api(address)
        else:
            machines = _cluster(address, data)
        checks.insert(0, check_ray(address, ""))
    except GapwiseError as error:
        checks = [check_ray(address, str(error))]
    checks += _judged(machines or _machine(), data, concurrency)
    return checks


def _machine() -> _Machines:
    from gapwise.distributed.facts import Question, describe
    from gapwise.distributed.placement import Node, Resources

    here = describe(Question(str(home().root), None), _HERE)
    return _Machines(Resources((Node(here.cpus, here.gpus),)), {_HERE: here}, {}, {})


def _cluster(address: str, data: Path | None) -> _Machines:
    """As a driver of the cluster. Raises GapwiseError where it does not answer, or one of its nodes."""
    from gapwise.distributed.address import driver_endpoint
    from gapwise.distributed.cluster import connected
    from gapwise.distributed.facts import (
        ClusterFacts,
        Question,
        answers_anybody,
        clock_offsets,
        dashboard_endpoint,
        describe,
    )
    from gapwise.distributed.shared import ask_nodes, on_every_node, unseen
    from gapwise.distributed.token import token_mode

    root = home().root
    with connected(address) as found:
        dashboard = dashboard_endpoint()
        nodes = on_every_node(describe, Question(str(root), dashboard.port if dashboard else None))
        cluster = ClusterFacts(
            loopback=address == "auto" or driver_endpoint(address).loopback,
            open=answers_anybody(f"http://{dashboard}") if dashboard else not token_mode(),
            dashboard=frozenset(one for node in nodes.values() for one in node.listening),
        )
        missing = unseen(root, [data.absolute()] if data else [], ask_nodes)
        return _Machines(found, nodes, missing, clock_offsets(), cluster)


def _api(address: str) -> list[Check]:
    """From outside: what the Jobs API itself says. Raises SpecError where it does not answer."""
    from gapwise.distributed.address import api_endpoint
    from gapwise.distributed.facts import ClusterFacts, answers_anybody
    from gapwise.distributed.health import check_auth, check_dashboard
    from gapwise.distributed.jobs import Jobs

    endpoint = api_endpoint(Jobs.connect(address).address)
    reached = frozenset({endpoint.host})
    cluster = ClusterFacts(loopback=endpoint.loopback, open=answers_anybody(address.rstrip("/")), dashboard=reached)
    nodes = warn("nodes", "cannot be asked from outside", f"gapwise submit run --address {address} -- doctor")
    return [check_auth(cluster), check_dashboard(cluster), nodes]


def _judged(machines: _Machines, data: Path | None, concurrency: int | None) -> list[Check]:
    from gapwise.distributed.health import (
        check_auth,
        check_clocks,
        check_dashboard,
        check_gpus,
        check_storage,
        check_versions,
    )
    from gapwise.tracking.health import check_artifacts, check_schema, check_server, check_tracking, gather

    here = _machine().nodes[_HERE]
    cluster = [] if machines.cluster is None else [check_auth(machines.cluster), check_dashboard(machines.cluster)]
    tracking = gather(home())
    return [
        *cluster,
        check_versions(here, machines.nodes),
        check_storage(str(home().root), machines.nodes, machines.unseen),
        check_gpus(machines.resources, machines.nodes, concurrency),
        check_clocks(machines.clocks),
        *([] if data is None else [_data(data)]),
        check_tracking(tracking),
        check_schema(tracking),
        check_server(tracking, len(machines.nodes)),
        check_artifacts(tracking),
    ]


def _data(folder: Path) -> Check:
    from gapwise.data.store import open_dataset

    try:
        dataset = open_dataset(folder)
    except GapwiseError as error:
        return fail("data", str(error), "a dataset folder (gapwise data check DIR)")
    return ok("data", f"{dataset.manifest.name} in {folder}")


def _storage(where: str | None) -> list[Check]:
    """Of studies, where it is a database."""
    if where in (None, "journal"):
        return []

    from gapwise.tuning.database import refuse_silent

    assert where is not None
    try:
        refuse_silent(where)
    except GapwiseError as error:
        return [fail("study storage", str(error), "--storage, PGPASSWORD or ~/.pgpass, the database server")]
    return [ok("study storage", f"{where} answers")]


def _show(checks: list[Check]) -> None:
    rows = [[check.status, check.name, check.detail, check.mend] for check in checks]
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    print_table(
        "gapwise doctor",
        ["", "check", "what", "mend"],
        rows,
        caption=f"{len(checks) - failed - warned} ok, {warned} to look at, {failed} failed",
        words=("check", "what", "mend"),
    )
