"""`gapwise submit`: any command on a cluster, through Ray's Jobs API; the job does not need this terminal.

`gapwise submit [OPTIONS] -- COMMAND` is short for `gapwise submit run [OPTIONS] -- COMMAND`: what stands behind `--` is
the command line that the cluster runs, word for word.
"""

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gapwise.cli.options import size
from gapwise.cli.output import JsonOption, print_json, print_table, say, stdout
from gapwise.errors import SpecError, nearest
from gapwise.spec.home import refuse_unusable_name

if TYPE_CHECKING:
    from gapwise.distributed.jobs import Job, Jobs

_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_LOST = 1
_NOT_FOUND = 127
"""What a shell answers where there is no such command."""


class _RunByDefault(TyperGroup):
    """Puts the word `run` where somebody wrote `--` at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        if "--" in args and not named:
            args = ["run", *args]
        elif args and not named and not args[0].startswith("-"):
            raise SpecError(
                f"no `--` before {args[0]!r}",
                where="gapwise submit",
                allowed="gapwise submit [OPTIONS] -- COMMAND, gapwise submit status, logs or stop",
            )
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Run commands on a cluster: `gapwise submit [OPTIONS] -- COMMAND` (see `gapwise submit run --help`).",
    no_args_is_help=True,
)

ApiOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="http://HOST:8265",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's dashboard; by default RAY_ADDRESS where it is one, else this machine's.",
    ),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A job; see `gapwise submit status`.")]

EXAMPLES = """
Examples:

    gapwise submit -- tune search_spaces/prlf.yaml --data /shared/mosi --study night

    gapwise submit run --address http://head:8265 --env GAPWISE_HOME=/shared/home --env MLFLOW_TRACKING_URI --no-wait -- tune /shared/prlf.yaml --data /shared/mosi

Paths are the cluster's. A cluster with a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
~/.ray/auth_token here. Ctrl-C leaves the job running; the exit code is the job's.
"""  # noqa: E501


@app.command("run", epilog=EXAMPLES)
def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="A gapwise command with its options.")],
    address: ApiOption = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The job's name; a cluster takes each one once.")
    ] = None,
    env: Annotated[
        list[str],
        typer.Option(
            metavar="KEY[=VALUE]",
            help="A variable for the job, with its value from here if none is given; everybody on the cluster can "
            "read it. Repeatable.",
        ),
    ] = [],  # noqa: B006
    cpus: Annotated[float, typer.Option(help="Cores for the command itself, beside its trials.", min=0)] = 0.0,
    gpus: Annotated[float, typer.Option(help="GPUs for the command itself, beside its trials.", min=0)] = 0.0,
    memory: Annotated[str | None, typer.Option(metavar="8GB", help="Memory for the command itself.")] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            envvar="GAPWISE_CLUSTER_PYTHON",
            help="Interpreter with gapwise on the cluster; by default `gapwise` on its PATH.",
        ),
    ] = None,
    ship: Annotated[bool, typer.Option("--ship", help="Send this gapwise along to a cluster that lacks it.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return when the cluster has taken the job.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a gapwise command on a cluster and follow what it prints; the exit code is the command's."""
    words = tuple(command)
    _refuse_command(context, words)
    variables = _variables(env)
    if job_id is not None:
        refuse_unusable_name(job_id, where="--id")
    memory_bytes = 0 if memory is None else size(memory, where="--memory")

    from gapwise.distributed.jobs import Jobs, Request, new_id

    request = Request(
        words=words,
        id=job_id or new_id(words),
        env=variables,
        python=python,
        ship=ship,
        cpus=cpus,
        gpus=gpus,
        memory=memory_bytes,
    )
    jobs = Jobs.connect(address)
    job = jobs.submit(request)
    say(f"job {job}; it does not need this terminal: {_return(jobs, 'logs', job)} --follow")
    if no_wait:
        _answer(jobs, jobs.find(job), as_json)
        return
    _follow(jobs, job, as_json)


def _refuse_command(context: typer.Context, words: tuple[str, ...]) -> None:
    known = getattr(context.find_root().command, "commands", {})
    allowed = sorted(name for name in known if name != "submit")
    if words[0] not in allowed:
        raise SpecError(
            f"{words[0]!r} is no command to submit{nearest(words[0], allowed)}", where="gapwise submit", allowed=allowed
        )


def _variables(given: list[str]) -> dict[str, str]:
    """KEY=VALUE as written, KEY from our environment. Raises SpecError for a secret that was not written out."""
    variables = {}
    for one in given:
        key, told, value = one.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise SpecError(
                f"{one!r} is no variable", where="--env", allowed="KEY=VALUE, or KEY of one that is set here"
            )
        if not told:
            value = _forwarded(key)
        if key == "GAPWISE_HOME" and not value.startswith("/"):
            raise SpecError(f"{value!r} is not absolute", where="--env GAPWISE_HOME", allowed="a path on the cluster")
        variables[key] = value
    return variables


def _forwarded(key: str) -> str:
    if key not in os.environ:
        raise SpecError(f"{key} is not set here", where="--env", allowed="KEY=VALUE")
    if _SECRET.search(key):
        raise SpecError(
            f"{key} would stand in the job's description, which everybody on the cluster can read",
            where="--env",
            allowed="a secret of the cluster's own; KEY=VALUE sends it all the same",
        )
    return os.environ[key]


def _return(jobs: "Jobs", verb: str, job: str) -> str:
    """The command that comes back to a job."""
    return f"gapwise submit {verb} {job} --address {jobs.address}"


def _follow(jobs: "Jobs", job: str, as_json: bool) -> None:
    """Raises typer.Exit with the job's exit code; Ctrl-C and a lost cluster leave the job alone."""
    from gapwise.distributed.jobs import Lost

    try:
        ended = jobs.follow(job, lambda text: typer.echo(text, nl=False, file=sys.stderr if as_json else sys.stdout))
    except KeyboardInterrupt:
        say(f"detached; the job goes on: {_return(jobs, 'logs', job)} --follow, or {_return(jobs, 'stop', job)}")
        raise typer.Exit(_LOST) from None
    except Lost:
        say(f"the cluster does not answer any more; the job may go on: {_return(jobs, 'logs', job)} --follow")
        raise typer.Exit(_LOST) from None
    _answer(jobs, ended, as_json)
    raise typer.Exit(ended.exit_code)


def _answer(jobs: "Jobs", job: "Job", as_json: bool) -> None:
    if as_json:
        print_json(_body(job) | {"address": jobs.address})
    elif job.over:
        say(_ending(job))


def _ending(job: "Job") -> str:
    if job.status == "failed" and job.code == _NOT_FOUND:
        return f"job {job.id}: the cluster has no `gapwise` on its PATH; name an interpreter that has it with --python"
    why = f": {job.message}" if job.message and job.code is None else ""
    return f"job {job.id} {job.status}, exit code {job.exit_code}{why}"


def _body(job: "Job") -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "exit_code": job.exit_code if job.over else None,
        "message": job.message,
        "entrypoint": job.entrypoint,
        "began": job.began,
        "ended": job.ended,
    }


@app.command(epilog="Examples:  `gapwise submit status`, `gapwise submit status ID --json`")
def status(
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="One job; by default all.")] = None,
    address: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """How a job stands, or all that were submitted to the cluster."""
    from gapwise.distributed.jobs import Jobs

    jobs = Jobs.connect(address)
    found = jobs.list() if job is None else [jobs.find(job)]
    if as_json:
        print_json(_body(found[0]) if job is not None else {"jobs": [_body(one) for one in found]})
        return
    rows = [[one.id, one.status, _code(one), _clock(one.began), _clock(one.ended), one.entrypoint] for one in found]
    columns = ["job", "status", "exit code", "began", "ended", "command"]
    print_table(f"jobs on {jobs.address}", columns, rows, words=("status", "command"))
    for one in found if job is not None else []:
        if one.message:
            stdout.print(one.message, soft_wrap=True, markup=False)


def _code(job: "Job") -> str:
    return str(job.exit_code) if job.over else "-"


def _clock(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


@app.command(epilog="Example:  `gapwise submit logs ID --follow`")
def logs(
    job: IdArgument,
    follow: Annotated[bool, typer.Option("--follow", help="Until it is over; the exit code is the job's.")] = False,
    address: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a job printed, from its beginning."""
    from gapwise.distributed.jobs import Jobs

    jobs = Jobs.connect(address)
    found = jobs.find(job)
    if follow:
        _follow(jobs, job, as_json)
    printed = jobs.logs(job)
    if as_json:
        print_json(_body(found) | {"logs": printed})
    else:
        typer.echo(printed, nl=False, file=sys.stdout)


@app.command(epilog="Example:  `gapwise submit stop ID`")
def stop(job: IdArgument, address: ApiOption = None, as_json: JsonOption = False) -> None:
    """Ctrl-C to a job's command, so that a study keeps a checkpoint; what is left after a minute is killed."""
    from gapwise.distributed.jobs import Jobs

    jobs = Jobs.connect(address)
    was_over = jobs.find(job).over
    stopped = not was_over and jobs.stop(job)
    ended = jobs.wait(job)
    if as_json:
        print_json(_body(ended) | {"stopped": stopped})
    else:
        stdout.print(_ending(ended) + ("" if stopped else " (before)"), soft_wrap=True, markup=False)
