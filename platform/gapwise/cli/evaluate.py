"""`gapwise evaluate`: the robustness grid of a trained model, with floor and baseline beside every number."""

from typing import Annotated, Any

import typer

from gapwise.cli.options import DataOption, needed, rates
from gapwise.cli.output import JsonOption, figure, print_json, print_table
from gapwise.spec.home import home
from gapwise.spec.loader import validate
from gapwise.spec.protocol import ProtocolSpec

EXAMPLES = """
Examples:

    gapwise evaluate models:/mosi@champion-mr30 --data data/mosi

    gapwise evaluate RUN_ID --data data/mosi --protocol modalities

    gapwise evaluate models:/mosi/3 --data data/mosi --rates 0:0.9:0.3 --mask-seeds 5 --split test
"""


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL_URI", help="Run id, model folder or models:/NAME@ALIAS.")
    ],
    data: DataOption = None,
    protocol: Annotated[
        str | None, typer.Option(help="frames, modalities, random_rate or block; by default the model's own.")
    ] = None,
    rate_list: Annotated[
        str | None,
        typer.Option("--rates", help="FIRST:LAST:STEP or a list; by default the model's grid, or the protocol's."),
    ] = None,
    mask_seeds: Annotated[int, typer.Option(help="Masks drawn for every rate.", min=1)] = 20,
    split: Annotated[
        str, typer.Option(help="valid, train or test; reading test is logged with the dataset.")
    ] = "valid",
    baseline: Annotated[
        str | None, typer.Option(help="A model to set beside; by default the registered name's `baseline` alias.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model at every missing rate, or on every subset of modalities."""
    chosen_rates = rates(rate_list) if rate_list is not None else None
    folder = needed(data)

    from gapwise.data.store import open_dataset
    from gapwise.promotion.judge import baseline_of, judge
    from gapwise.tracking.client import connect
    from gapwise.tracking.locate import locate

    dataset = open_dataset(folder, verify=True)
    tracking = connect(home())
    found = locate(tracking, model)
    spec = _protocol(found.spec.protocol, protocol, chosen_rates)
    beside = locate(tracking, baseline) if baseline else baseline_of(tracking, model)
    chosen = dataset.split(split, reason=f"evaluate {model}")
    body = judge(found, beside, dataset, spec, split=chosen, mask_seeds=mask_seeds)
    print_json(body) if as_json else _show(model, body)


def _protocol(own: ProtocolSpec, name: str | None, chosen: tuple[float, ...] | None) -> ProtocolSpec:
    changed: dict[str, Any] = own.model_dump()
    if name is not None:
        changed["name"] = name
        if (name == "random_rate") != (own.name == "random_rate"):
            del changed["rates"]  # a share of cells is another scale than a share of frames: the protocol's own grid
    if chosen is not None:
        changed["rates"] = chosen
    return validate(ProtocolSpec, changed, where="--protocol and --rates")


_SHOWN = ("mae", "acc2_non0", "acc2_has0", "f1_non0", "corr", "acc7", "accuracy", "macro_recall", "f1_weighted")


def _show(model: str, body: dict[str, Any]) -> None:
    grid = body.get("rates") or body["subsets"]
    metrics = [name for name in _SHOWN if name in body["mean"]]
    rows = [[key, *(figure(row[name]["mean"], row[name]["sd"]) for name in metrics)] for key, row in grid.items()]
    rows.append(["mean", *(figure(body["mean"][name]["mean"], body["mean"][name]["sd"]) for name in metrics)])
    if body["baseline"] is not None:
        rows += [
            [f"late_fusion {key}", *(figure(row[name]["mean"], row[name]["sd"]) for name in metrics)]
            for key, row in [*body["baseline"]["conditions"].items(), ("mean", body["baseline"]["mean"])]
        ]
    rows.append(["floor", *(figure(body["floor"][name]) for name in metrics)])
    seeds = f"mean ± sd over {body['mask_seeds']} mask seeds" if body["mask_seeds"] > 1 else "one mask, so no sd"
    caption = f"{seeds}; floor: the best constant answer"
    print_table(
        f"{model} on {body['split']}, protocol {body['protocol']}", ["missing", *metrics], rows, caption=caption
    )
