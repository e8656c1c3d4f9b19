"""Contenders side by side as a page: what differs beyond noise, the curves, and who and what was compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from gapwise.promotion.comparison import MEAN
from gapwise.reporting.drawing import new_axes, with_legend
from gapwise.reporting.figures_result import Beside, Line, robustness_figure
from gapwise.reporting.page import Chart, Page, Section, Table
from gapwise.reporting.palette import LIGHT, mark, series
from gapwise.reporting.words import SPLITS, condition_label, evidence, interval_cell, metric_label, number, signed
from gapwise.spec.protocol import ProtocolSpec

_DODGE = 0.008
"""Of the axis of missing rates, between the marks of two contenders."""


def compare_page(body: Mapping[str, Any], protocol: ProtocolSpec, written: str) -> Page:
    """From what `gapwise compare --json` says."""
    names = [one["name"] for one in body["contenders"]]
    return Page(
        title=f"{names[0]} and {names[1]}" if len(names) == 2 else f"{names[0]} and {len(names) - 1} others",
        question="Which differences are more than noise?",
        sections=[_answer(body, protocol, names), _curves(body, protocol, names), _compared(body)],
        foot=f"Written by gapwise on {written}. {evidence(body)}",
    )


def _conditions(body: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    found: Mapping[str, Mapping[str, float]] = body["rates"] if "rates" in body else body["subsets"]
    return found


def _answer(body: Mapping[str, Any], protocol: ProtocolSpec, names: Sequence[str]) -> Section:
    cells = [
        [
            row["condition"],
            row["contender"],
            signed(row["better_by"]),
            interval_cell(row),
            number(row["p"], 4),
            row["verdict"],
        ]
        for row in body["differences"]
    ]
    text = (
        f"How much better than {names[0]} each other contender is by {body['metric']}, at each condition, with its "
        "interval; filled marks are beyond noise, and above 0 is better whatever the metric."
    )
    return Section(
        key="answer",
        title="The answer",
        lead=body["words"],
        charts=[
            Chart(
                key="differences",
                title=f"Difference from {names[0]}",
                text=text,
                figure=difference_figure(body, protocol, names),
            )
        ],
        tables=[
            Table(
                caption=f"Paired differences from {names[0]}",
                columns=[
                    condition_label(protocol),
                    "contender",
                    f"{body['metric']} better by",
                    "interval",
                    "p",
                    "verdict",
                ],
                rows=cells,
                words=("contender", "verdict"),
                note=evidence(body) + ".",
            )
        ],
    )


def difference_figure(body: Mapping[str, Any], protocol: ProtocolSpec, names: Sequence[str]) -> Figure:
    """A mark with its interval for each contender but the first, at each condition."""
    conditions = list(_conditions(body))
    axes = new_axes(
        condition_label(protocol), f"{body['metric']} better by than the first\n(its units, 0: no difference)"
    )
    axes.axhline(0.0, color=LIGHT["ink"], linewidth=1.0)
    for index, name in enumerate(names[1:], start=1):
        rows = [row for row in body["differences"] if row["contender"] == name and row["condition"] != MEAN]
        rows = [row for row in rows if row["better_by"] is not None]
        apart = _DODGE * (index - len(names) / 2) * (1.0 if protocol.has_rates else 10.0)
        for label, row in zip([name, *[""] * len(rows)], rows, strict=False):
            place = _place(row["condition"], conditions, protocol) + apart
            beyond = row["verdict"] in ("better", "worse")
            if row["interval"]:
                axes.plot([place] * 2, row["interval"], color=series(index), linewidth=1.6)
            axes.plot(
                [place],
                [row["better_by"]],
                mark(index),
                color=series(index),
                markerfacecolor=series(index) if beyond else LIGHT["panel"],
                markersize=5.5,
                label=label or None,
            )
    if not protocol.has_rates:
        axes.set_xticks(range(len(conditions)), conditions, rotation=40, ha="right")
    return with_legend(axes)


def _place(condition: str, conditions: Sequence[str], protocol: ProtocolSpec) -> float:
    return float(condition) if protocol.has_rates else float(conditions.index(condition))


def _curves(body: Mapping[str, Any], protocol: ProtocolSpec, names: Sequence[str]) -> Section:
    grid, split = _conditions(body), SPLITS[body["split"]]
    lines = [Line(name, {at: row[name] for at, row in grid.items() if row[name] is not None}, {}, {}) for name in names]
    rows = [[at, *(number(row[name], 4) for name in names)] for at, row in grid.items()]
    rows.append(["mean", *(number(body["mean"][name], 4) for name in names)])
    text = f"{metric_label(body['metric'])}, {split} split, mean over mask seeds, a line a contender."
    drawn = robustness_figure(lines, Beside(body["floor"], {}, {}), protocol, body["metric"], split=split)
    return Section(
        key="curves",
        title="Everybody's figures",
        charts=[Chart(key="robustness", title="How figures change as more goes missing", text=text, figure=drawn)],
        tables=[
            Table(
                caption=f"{split} {body['metric']}",
                columns=[condition_label(protocol), *names],
                rows=rows,
                note=f"Mean over mask seeds; floor (the best constant answer) {number(body['floor'], 4)}.",
            )
        ],
    )


def _compared(body: Mapping[str, Any]) -> Section:
    rows = []
    for one in body["contenders"]:
        for model, seed in one["seeds"].items():
            at = [condition for condition, named in one["models"].items() if named == model]
            rows.append([one["name"], model, "all" if len(at) == len(one["models"]) else ", ".join(at), str(seed)])
    lead = [f"Data {body['dataset_fingerprint'][:12]}, whose test split was read {body['reads_of_test']} times in all."]
    return Section(
        key="compared",
        title="Who was compared",
        lead=lead,
        tables=[
            Table(
                caption="Models as they ship",
                columns=["contender", "model", "answers at", "training seed"],
                rows=rows,
                words=("model", "answers at"),
            )
        ],
    )
