"""`gapwise evaluate`: the robustness grid of a trained model, with floor, baseline and optima beside it.

With --diagnostics also what the model says of itself on the same masks.
"""

from typing import Annotated, Any

import typer

from gapwise.cli import completion
from gapwise.cli.diagnostics import show_diagnostics
from gapwise.cli.options import DataOption, needed, rates
from gapwise.cli.output import JsonOption, figure, heading, print_json, print_table
from gapwise.cli.work_view import WorkView

EXAMPLES = """
Examples:

    gapwise evaluate models:/mosi@champion-mr30 --data data/mosi

    gapwise evaluate RUN_ID --data data/mosi --protocol modalities

    gapwise evaluate models:/mosi/3 --data data/mosi --rates 0:0.9:0.3 --mask-seeds 5 --split test

    gapwise evaluate RUN_ID --data data/synthetic --diagnostics
"""


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL_URI",
            autocompletion=completion.models,
            help="Run id, model folder or models:/NAME@ALIAS.",
        ),
    ],
    data: DataOption = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.one_of(completion.PROTOCOLS),
            help="frames, modalities, random_rate or block; by default the model's own.",
        ),
    ] = None,
    rate_list: Annotated[
        str | None,
        typer.Option("--rates", help="FIRST:LAST:STEP or a list; by default the model's grid, or the protocol's."),
    ] = None,
    mask_seeds: Annotated[int, typer.Option(help="Masks drawn for every rate.", min=1)] = 20,
    split: Annotated[
        str,
        typer.Option(
            autocompletion=completion.one_of(completion.SPLITS),
            help="valid, train or test; reading test is logged with the dataset.",
        ),
    ] = "valid",
    baseline: Annotated[
        str | None, typer.Option(help="A model to set beside; by default the registered name's `baseline` alias.")
    ] = None,
    diagnostics: Annotated[
        bool,
        typer.Option(
            "--diagnostics",
            help="PRLF: who leads, and on synthetic data whether it should. PROMISE: incomplete from complete.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score a model at every missing rate, or on every subset of modalities."""
    chosen_rates = rates(rate_list) if rate_list is not None else None
    folder = needed(data)

    from gapwise.evaluation.hearing import heard_by
    from gapwise.verbs.evaluate import EvaluateWish
    from gapwise.verbs.evaluate import evaluate as judged

    wish = EvaluateWish(
        model=model,
        data=folder,
        protocol=protocol,
        rates=chosen_rates,
        mask_seeds=mask_seeds,
        split=split,
        baseline=baseline,
        diagnostics=diagnostics,
    )
    with WorkView(f"{model} on {split}, {mask_seeds} masks") as view, heard_by(view):
        kind, body = judged(wish)
    if as_json:
        print_json(body)
        return
    show(model, body)
    if diagnostics:
        show_diagnostics(kind, body["protocol"], body["diagnostics"])


_SHOWN = ("mae", "acc2_non0", "acc2_has0", "f1_non0", "corr", "acc7", "accuracy", "macro_recall", "f1_weighted")


def show(model: str, body: dict[str, Any]) -> None:
    """What `judge` said, as tables."""
    grid = body.get("rates") or body["subsets"]
    metrics = [name for name in _SHOWN if name in body["mean"]]
    rows = [[key, *_figures(row, metrics)] for key, row in [*grid.items(), ("mean", body["mean"])]]
    if body["baseline"] is not None:
        beside = [*body["baseline"]["conditions"].items(), ("mean", body["baseline"]["mean"])]
        rows += [[f"late_fusion {key}", *_figures(row, metrics)] for key, row in beside]
    for key, name in _OPTIMA.items():
        if body[key] is not None:
            rows.append([f"{name} mean", *_figures(body[key]["mean"], metrics)])
    rows.append(["floor", *(figure(body["floor"][name]) for name in metrics)])
    seeds = f"mean ± sd over {body['mask_seeds']} mask seeds" if body["mask_seeds"] > 1 else "one mask, so no sd"
    caption = f"{seeds}; floor: the best constant answer"
    print_table(
        f"{model} on {body['split']}, protocol {body['protocol']}",
        [heading(body["protocol"]), *metrics],
        rows,
        caption=caption,
    )
    if body["optimum"] is not None:
        _show_optima(grid, body)


def _figures(row: dict[str, Any], metrics: list[str]) -> list[str]:
    return [figure(row[name]["mean"], row[name]["sd"]) for name in metrics]


_OPTIMA = {"optimum": "optimum", "plugin_optimum": "plug-in"}
_OPTIMA_CAPTION = (
    "optimum: the best possible expected score on these masks, known because the data are synthetic; plug-in: the same "
    "form fitted on the training split, a strong reference and no bound; excess: how far the model's MAE lies above"
)


def _show_optima(grid: dict[str, Any], body: dict[str, Any]) -> None:
    """MAE of the model, the optimum and the plug-in optimum, with the model's excess over each, by condition."""
    columns = ["missing", "mae"] + [column for name in _OPTIMA.values() for column in (name, "excess", "in %")]
    whole = {key: {**body[key]["conditions"], "mean": body[key]["mean"]} for key in _OPTIMA}
    rows = []
    for condition, row in [*grid.items(), ("mean", body["mean"])]:
        mae = row["mae"]["mean"]
        best = [whole[key][condition]["mae"]["mean"] for key in _OPTIMA]
        compared = [
            cell for one in best for cell in (figure(one), f"{mae - one:+.3f}", f"{100 * (mae / one - 1):+.1f}")
        ]
        rows.append([condition, figure(mae), *compared])
    print_table("MAE beside the synthetic task's optima", columns, rows, caption=_OPTIMA_CAPTION)
