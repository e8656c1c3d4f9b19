"""`gapwise registry`: who serves which missing rate, since when, by whose decision; and taking it back."""

import getpass
from typing import Annotated, Any

import typer

from gapwise.cli import completion
from gapwise.cli.options import rate_or
from gapwise.cli.output import JsonOption, figure, print_json, print_table, stdout
from gapwise.spec.home import home

app = typer.Typer(help="Champions by missing rate.", no_args_is_help=True)


@app.callback()
def registry() -> None:
    """Champions by missing rate."""


@app.command(epilog="Example:  `gapwise registry show mosi`")
def show(
    name: Annotated[str, typer.Argument(autocompletion=completion.registered, help="A registered model.")],
    as_json: JsonOption = False,
) -> None:
    """The champion of every missing rate, and the one before."""
    from gapwise.promotion.champions import champions
    from gapwise.tracking.client import connect

    body = champions(connect(home()), name)
    print_json(body) if as_json else _show(body)


def _show(body: dict[str, Any]) -> None:
    rows = [
        [
            rate,
            f"v{one['version']}",
            _previous(body, rate),
            one["trial"] or "-",
            figure(one["value"], one["sd"]) if one["value"] is not None else "-",
            one["run_id"],
        ]
        for rate, one in body["champions"].items()
    ]
    metric = next((one["metric"] for one in body["champions"].values() if one["metric"]), "metric")
    print_table(
        f"{body['name']}: champions", ["missing", "version", "previous", "model", f"valid {metric}", "run"], rows
    )


def _previous(body: dict[str, Any], rate: str) -> str:
    return f"v{body['previous'][rate]['version']}" if rate in body["previous"] else "-"


_Name = Annotated[str, typer.Argument(autocompletion=completion.registered, help="A registered model.")]


@app.command(epilog="Example:  `gapwise registry history mosi --verify --expect 3fa9...`")
def history(
    name: _Name,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the chain; exit code 1 where it does not hold.")
    ] = False,
    expect: Annotated[
        str, typer.Option(metavar="DIGEST", help="A digest that was printed before and must still be there.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Every decision: when, who, from which version to which. The ledger shows tampering; it does not prevent it."""
    from gapwise.promotion.history import history as told
    from gapwise.tracking.client import connect

    body = told(connect(home()), name, expect)
    if as_json:
        print_json(body)
    else:
        _show_history(body)
    if (verify or expect) and body["problems"]:
        raise typer.Exit(1)


def _show_history(body: dict[str, Any]) -> None:
    rows = [
        [
            str(one["sequence"]),
            one["time"],
            one["who"],
            one["decision"],
            one["rate"],
            f"v{one['from']}" if one["from"] else "-",
            f"v{one['to']}" if one["to"] else "-",
            one["digest"][:12],
        ]
        for one in body["entries"]
    ]
    print_table(
        f"{body['name']}: decisions", ["entry", "time", "who", "decision", "missing", "from", "to", "digest"], rows
    )
    head = body["head"]
    stdout.print(f"{head['sequence']} entries, head {head['digest']}", soft_wrap=True)
    for problem in body["problems"]:
        stdout.print(f"does not hold: {problem}", soft_wrap=True)
    if not body["problems"]:
        stdout.print("the chain holds")


@app.command(epilog="Example:  `gapwise registry rollback mosi --rate 0.5`")
def rollback(
    name: _Name,
    rate: Annotated[
        str, typer.Option(metavar="RATE", autocompletion=completion.rate_or("all"), help="A missing rate, or all.")
    ],
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="A version; by default the champion before this one.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Goes into the ledger.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Put the champion before this one back, or a version by number; one more entry in the ledger."""
    from gapwise.promotion.rollback import roll_back
    from gapwise.tracking.client import connect

    _tell(roll_back(connect(home()), home(), name, _rate(rate), to, reason), as_json)


@app.command(epilog="Example:  `gapwise registry copy mosi --source http://staging:5000`")
def copy(
    name: _Name,
    source: Annotated[
        str, typer.Option(metavar="URI", help="The registry that has it; its ledger must hold. It is only read.")
    ],
    rate: Annotated[
        str, typer.Option(metavar="RATE", autocompletion=completion.rate_or("all"), help="A missing rate, or all.")
    ] = "all",
    to: Annotated[str, typer.Option("--as", metavar="NAME", help="Its name here; by default the same.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Champions of another registry become champions here (MLFLOW_TRACKING_URI); one entry cites the head there."""
    from gapwise.promotion.copy import Place
    from gapwise.promotion.copy import copy as act
    from gapwise.tracking.client import connect
    from gapwise.tracking.registry import refuse_reserved

    refuse_reserved(to or name, "--as")
    theirs = Place(connect(home(), source), name)
    _tell(act(theirs, Place(connect(home()), to or name), home(), _rate(rate)), as_json)


@app.command(epilog="Example:  `gapwise registry approve mosi`")
def approve(
    name: _Name,
    who: Annotated[str, typer.Option("--as", metavar="WHO", help="Who approves; by default you.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Carry out the promotion that `gapwise promote --require-approval` asked for."""
    from gapwise.promotion.rollback import approve as act
    from gapwise.tracking.client import connect

    _tell(act(connect(home()), home(), name, who or getpass.getuser()), as_json)


def _rate(text: str) -> str | None:
    """A rate's key; None for all."""
    from gapwise.spec.protocol import rate_key

    rate = rate_or("all", text)
    return None if rate is None else rate_key(rate)


def _tell(entry: Any, as_json: bool) -> None:
    moves = [{"rate": one.rate, "from": one.before, "to": one.after} for one in entry.moves]
    if as_json:
        print_json({"sequence": entry.sequence, "digest": entry.digest, "decision": entry.action, "moves": moves})
        return
    for one in moves:
        stdout.print(
            f"{one['rate']}: v{one['from']} -> v{one['to']}" if one["from"] else f"{one['rate']}: v{one['to']}"
        )
    stdout.print(f"ledger: entry {entry.sequence}, {entry.digest}", soft_wrap=True)
