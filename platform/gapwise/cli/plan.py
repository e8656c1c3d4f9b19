"""`gapwise plan`: what a study would do, without doing it."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gapwise.cli.encoding import sayable
from gapwise.cli.goals import goal_lines
from gapwise.cli.options import DataOption, SetOption, WarmStartOption, search_settings
from gapwise.cli.output import JsonOption, print_json, print_table, stdout
from gapwise.spec.home import home
from gapwise.spec.loader import load_spec
from gapwise.spec.search import SearchSpec

EXAMPLES = """
Examples:

    gapwise plan search_spaces/prlf.yaml --data data/mosi

    gapwise plan search_spaces/prlf.yaml --trials 40 --resolved
"""


def plan(
    space_file: Annotated[
        Path, typer.Argument(metavar="SPACE.yaml", help="A search space; see search_spaces/README.md.")
    ],
    data: DataOption = None,
    trials: Annotated[int | None, typer.Option(help="Trials of each model; by default the file's.", min=1)] = None,
    warm_start: WarmStartOption = [],  # noqa: B006
    settings: SetOption = [],  # noqa: B006
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the whole search space, every default written out, as YAML.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Resolve a search space: trials, seeds, resources and, with a dataset, an estimate of the time."""
    space = load_spec(SearchSpec, space_file, search_settings(settings, trials, warm_start))

    from gapwise.tuning.estimate import plan_study

    body = plan_study(space, data.absolute() if data else None, home().studies)
    if as_json:
        print_json(body)
    elif resolved:
        text = yaml.safe_dump(body["resolved"], sort_keys=False, allow_unicode=True)
        if not sayable(text, sys.stdout.encoding):  # escaped it is the same study still, with its signs replaced not
            text = yaml.safe_dump(body["resolved"], sort_keys=False)
        typer.echo(text, nl=False, file=sys.stdout)
    else:
        _show(body)


def _show(body: dict[str, Any]) -> None:
    stdout.print(body["question"], soft_wrap=True)
    rows = [[arm, str(count)] for arm, count in body["trials"].items()]
    print_table("search trials", ["model", "trials"], rows)
    for arm, parameters in body["space"].items():
        listed = [[path, one["role"], one["values"], str(one["first"])] for path, one in parameters.items()]
        print_table(arm, ["parameter", "role", "values", "tried first"], listed, words=("role", "values"))
    for line in goal_lines(body):
        stdout.print(line, soft_wrap=True, markup=False)
    phase = body["second_phase"]
    stdout.print(
        f"second phase: the {phase['top_k']} best of each missing rate, at most {phase['cap']} a model, with "
        f"{phase['seeds']} seeds and {phase['mask_seeds']} masks each: at most {body['second_phase_runs']} runs",
        soft_wrap=True,
    )
    stdout.print(f"refit: at most {body['refit_runs']} runs")
    stdout.print(
        f"executor {body['executor']}: {body['at_once']} trials at once, each with {body['trial_resources']}, "
        f"of {body['resources']}",
        soft_wrap=True,
    )
    _show_pack(body)
    if body["estimated_seconds"] is None:
        stdout.print("time: unknown: name a dataset with --data")
    else:
        stdout.print(f"time: about {body['estimated_seconds'] / 60:.0f} minutes at most", soft_wrap=True)
        stdout.print(f"estimated from {body['estimated_from']}", style="dim", soft_wrap=True)


def _show_pack(body: dict[str, Any]) -> None:
    pack = body["pack"]
    if body["executor"] == "warm" and pack not in (1, body["resolved"]["trials_per_device"]):
        many = "as many trials as a probe finds best" if pack == "auto" else f"{pack} trials"
        stdout.print(f"pack: each of them is a worker that trains {many} fused, as one program", soft_wrap=True)
        if body["resolved"]["compile"] is True:
            stdout.print(
                "compile: that program is compiled, which takes minutes for each kind of trial", soft_wrap=True
            )
    for arm, reason in body["unfused"].items():
        stdout.print(f"not fused: {arm}: {reason}", soft_wrap=True, markup=False)
