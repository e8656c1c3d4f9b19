"""`gapwise plan`: what a study would do, without doing it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gapwise.cli.options import DataOption, SetOption
from gapwise.cli.output import JsonOption, print_json, print_table, stdout
from gapwise.spec.loader import load_spec
from gapwise.spec.search import SearchSpec

EXAMPLES = """
Example:

    gapwise plan search_spaces/prlf.yaml --data data/mosi
"""


def plan(
    space_file: Annotated[
        Path, typer.Argument(metavar="SPACE.yaml", help="A search space; see search_spaces/README.md.")
    ],
    data: DataOption = None,
    trials: Annotated[int | None, typer.Option(help="Trials of each model; by default the file's.", min=1)] = None,
    settings: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Resolve a search space: trials, seeds, resources and, with a dataset, an estimate of the time."""
    chosen = (*settings, f"trials={trials}") if trials else tuple(settings)
    space = load_spec(SearchSpec, space_file, chosen)

    from gapwise.tuning.estimate import plan_study

    body = plan_study(space, data.absolute() if data else None)
    print_json(body) if as_json else _show(body)


def _show(body: dict[str, Any]) -> None:
    stdout.print(body["question"], soft_wrap=True)
    rows = [[arm, str(count)] for arm, count in body["trials"].items()]
    print_table("search trials", ["model", "trials"], rows)
    for arm, parameters in body["space"].items():
        listed = [[path, one["role"], one["values"], str(one["first"])] for path, one in parameters.items()]
        print_table(arm, ["parameter", "role", "values", "tried first"], listed)
    stdout.print(f"second phase: at most {body['second_phase_runs']} runs; refit: at most {body['refit_runs']} runs")
    stdout.print(f"executor {body['executor']}, {body['workers']} worker(s) a trial, {body['resources']}")
    estimate = body["estimated_seconds"]
    text = (
        f"about {estimate / 60:.0f} minutes at most, without pruning"
        if estimate
        else "unknown: name a dataset with --data"
    )
    stdout.print(f"time: {text}")
