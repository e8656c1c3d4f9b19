"""`gapwise compare`: runs, registered models and studies side by side, with paired differences from the first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapwise.cli.options import DataOption
from gapwise.cli.output import JsonOption, heading, in_bytes, print_json, print_table, stdout
from gapwise.errors import SpecError
from gapwise.spec.home import home

if TYPE_CHECKING:
    from gapwise.spec.protocol import ProtocolSpec

EXAMPLES = """
Examples:

    gapwise compare promise-mosi prlf-mosi

    gapwise compare models:/mosi@champion-mr30 prlf-mosi RUN_ID --out compared.html

    gapwise compare prlf-mosi/late_fusion-0 prlf-mosi --metric corr --data data/mosi

    gapwise compare models:/mosi/1 models:/mosi/2 --split test

A study stands for its winners by missing rate, STUDY/TRIAL for one of the models that it ships. Positive differences
are better, whatever the metric.
"""
_SPLITS = ("valid", "test")


def compare(
    contenders: Annotated[
        list[str],
        typer.Argument(metavar="A B...", help="Studies, STUDY/TRIAL, run ids, model folders or models:/NAME@ALIAS."),
    ],
    data: DataOption = None,
    metric: Annotated[
        str | None, typer.Option(metavar="METRIC", help="By default the one that all of them were chosen by.")
    ] = None,
    mask_seeds: Annotated[int, typer.Option(help="Masks drawn for every rate.", min=2)] = 20,
    split: Annotated[str, typer.Option(help="valid or test; reading test is logged with the dataset.")] = "valid",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page: an HTML file like `gapwise report`'s.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Set runs or studies beside the first: the same items, the same masks, paired intervals, Holm over rates."""
    if split not in _SPLITS:
        raise SpecError(f"unknown split {split!r}", where="--split", allowed=_SPLITS)
    if out is not None and not out.absolute().parent.is_dir():  # before anything of test is read
        raise SpecError("its folder does not exist", where=f"--out {out}", allowed="a file in a folder that is there")

    from gapwise.promotion.comparison import refuse_unknown_metric, seen_by, told
    from gapwise.promotion.lineup import dataset_for, lineup, refuse_other_ground
    from gapwise.tracking.client import connect

    found = lineup(connect(home()), home(), contenders)
    refuse_other_ground(found, metric=metric, split=split)
    by = metric or found[0].metric
    refuse_unknown_metric(by, found[0].task)
    dataset = dataset_for(found, None if data is None else data.absolute(), split=split)
    chosen = dataset.split(split, reason=f"compare {' '.join(contenders)}")
    body = told(found, dataset, chosen, seen_by(found, dataset, chosen, metric=by, mask_seeds=mask_seeds))
    size = None if out is None else _write(body, found[0].protocol, out)
    if as_json:
        print_json(body if out is None else {**body, "file": str(out), "bytes": size})
        return
    _show(body)
    if size is not None:
        stdout.print(f"{in_bytes(size)} written to {out}", soft_wrap=True, markup=False)


def _write(body: Mapping[str, Any], protocol: "ProtocolSpec", out: Path) -> int:
    from gapwise.reporting.compare_page import compare_page
    from gapwise.reporting.page import render, write
    from gapwise.reporting.words import now

    return write(render(compare_page(body, protocol, now())), out)


def _show(body: Mapping[str, Any]) -> None:
    from gapwise.reporting.words import evidence, interval_cell, number, signed

    names = [one["name"] for one in body["contenders"]]
    grid = body.get("rates") or body["subsets"]
    rows = [[at, *_numbers(row, names)] for at, row in [*grid.items(), ("mean", body["mean"])]]
    floor = f"mean over mask seeds; floor (the best constant answer) {number(body['floor'], 4)}"
    print_table(f"{body['metric']} on {body['split']}", [heading(body["protocol"]), *names], rows, caption=floor)
    for name in names[1:]:
        own = [row for row in body["differences"] if row["contender"] == name]
        listed = [
            [row["condition"], signed(row["better_by"]), interval_cell(row), number(row["p"], 4), row["verdict"]]
            for row in own
        ]
        columns = [heading(body["protocol"]), "better by", "interval", "p", "verdict"]
        print_table(f"{name} against {names[0]}", columns, listed, words=("verdict",))
    stdout.print(evidence(body), style="dim", soft_wrap=True, markup=False)
    for line in body["words"]:
        stdout.print(line, soft_wrap=True, markup=False)


def _numbers(row: Mapping[str, float | None], names: Sequence[str]) -> list[str]:
    from gapwise.reporting.words import number

    return [number(row[name], 4) for name in names]
