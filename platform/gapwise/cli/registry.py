"""`gapwise registry`: who serves which missing rate."""

from typing import Annotated, Any

import typer

from gapwise.cli.output import JsonOption, figure, print_json, print_table
from gapwise.spec.home import home

app = typer.Typer(help="Champions by missing rate.", no_args_is_help=True)


@app.callback()
def registry() -> None:
    """Champions by missing rate."""


@app.command(epilog="Example:  `gapwise registry show mosi`")
def show(
    name: Annotated[str, typer.Argument(help="A registered model.")],
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
            one["trial"],
            figure(one["value"], one["sd"]),
            one["run_id"],
        ]
        for rate, one in body["champions"].items()
    ]
    metric = next((one["metric"] for one in body["champions"].values()), "metric")
    print_table(
        f"{body['name']}: champions", ["missing", "version", "previous", "model", f"valid {metric}", "run"], rows
    )


def _previous(body: dict[str, Any], rate: str) -> str:
    return f"v{body['previous'][rate]['version']}" if rate in body["previous"] else "-"
