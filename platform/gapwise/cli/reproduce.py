"""`gapwise reproduce`: train a registered version again and compare."""

import os
from typing import Annotated

import typer

from gapwise.cli import completion
from gapwise.cli.options import AddressOption, DataOption, needed
from gapwise.cli.output import JsonOption, figure, print_json, print_table, say, stdout
from gapwise.spec.home import home

EXAMPLES = """
Examples:

    gapwise reproduce models:/mosi/3 --data data/mosi

    gapwise reproduce models:/mosi@champion-mr30 --data data/mosi
"""


def reproduce(
    version: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_URI", autocompletion=completion.models, help="models:/NAME/VERSION or models:/NAME@ALIAS."
        ),
    ],
    data: DataOption = None,
    workers: Annotated[int, typer.Option(help="Ray Train workers, as many as trained it.", min=1)] = 1,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of any validation metric; above it the exit code is 1.", min=0.0)
    ] = 0.005,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a version again from its own spec, seed and data, and set both side by side on validation.

    On the cluster that --address or RAY_ADDRESS names; otherwise here, without Ray where one worker is enough.
    """
    folder = needed(data)

    from gapwise.data.store import open_dataset
    from gapwise.distributed.cluster import connected
    from gapwise.promotion.reproduce import refuse_other_data, through_ray
    from gapwise.promotion.reproduce import reproduce as act
    from gapwise.tracking.client import connect
    from gapwise.tracking.locate import locate

    dataset = open_dataset(folder, verify=True)
    model = locate(connect(home()), version)
    refuse_other_data(model, dataset)
    say(f"training {model.spec.model.name} again: seed {model.trained['seed']}, {model.trained['epochs']} epochs")
    if workers == 1 and not (address or os.environ.get("RAY_ADDRESS")):
        found = act(model, dataset)
    else:
        with connected(address):
            found = act(model, dataset, workers=workers, train=through_ray)
    body = {"version": version, **found}
    off = max(abs(one["registered"] - one["again"]) for curve in body["valid"].values() for one in curve.values())
    body |= {"largest_metric_difference": off, "reproduced": off <= tolerance}
    if as_json:
        print_json(body)
    else:
        curves = body["valid"].values()
        rows = [[rate, *(_pair(curve[rate]) for curve in curves)] for rate in next(iter(curves))]
        print_table(f"{version} on validation: registered / again", ["missing", *body["valid"]], rows)
        stdout.print(
            "the weights are identical"
            if body["identical"]
            else f"the weights differ by up to {body['largest_weight_difference']:.3g}, the metrics by up to {off:.3g}"
        )
    if off > tolerance:
        raise typer.Exit(1)


def _pair(values: dict[str, float]) -> str:
    return f"{figure(values['registered'])} / {figure(values['again'])}"
