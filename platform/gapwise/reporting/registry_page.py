"""A registered name's report: who serves which missing rate, since when, and every decision on the way there."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import matplotlib.dates
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gapwise.reporting.drawing import new_axes, thinned, with_legend
from gapwise.reporting.page import Chart, Page, Section, Table
from gapwise.reporting.palette import dashes, mark, series
from gapwise.reporting.words import NONE, counted, spread

_LISTED, _DRAWN = 200, 12
_APART = 0.06
"""Of a version, between the lines of two rates."""
Row = Mapping[str, Any]
_dates: Any = matplotlib.dates
"""It has no types."""


def registry_page(history: Mapping[str, Any], champions: Mapping[str, Any], written: str) -> Page:
    """From what `registry history` and `registry show` say."""
    rows: Sequence[Row] = history["entries"]
    problems = history["problems"]
    return Page(
        title=f"Champions of {history['name']}",
        question="Who serves which missing rate, since when, and by which decision?",
        notice=f"The ledger does not hold: {'; '.join(problems)}" if problems else "",
        sections=[_now(champions, rows), _over_time(rows), _decisions(rows, history["head"])],
        foot=f"Written by gapwise on {written}. Decisions are from the ledger, figures from the models' own studies.",
    )


def _now(champions: Mapping[str, Any], rows: Sequence[Row]) -> Section:
    present = champions["champions"]
    since = {row["rate"]: row["time"] for row in rows if row["to"] is not None}
    cells = [
        [
            rate,
            f"v{one['version']}",
            f"{one['study'] or NONE} {one['trial'] or ''}".strip(),
            spread(one["value"], one["sd"]),
            f"v{champions['previous'][rate]['version']}" if rate in champions["previous"] else NONE,
            since.get(rate, NONE)[:16].replace("T", " "),
        ]
        for rate, one in present.items()
    ]
    metric = next((one["metric"] for one in present.values() if one["metric"]), "metric")
    versions = {one["version"] for one in present.values()}
    serve = "version serves" if len(versions) == 1 else "versions serve"
    lead = f"{len(versions)} {serve} {counted(len(present), 'missing rate')}."
    return Section(
        key="champions",
        title="Champions now",
        lead=[lead if present else "No missing rate has a champion."],
        tables=[
            Table(
                caption="Champion by missing rate",
                columns=["missing rate", "version", "from", f"validation {metric}", "before", "since (UTC)"],
                rows=cells,
                words=("from",),
                note="Figures are those that the version was registered with: mean ± one sd between seeds.",
            )
        ],
    )


def _over_time(rows: Sequence[Row]) -> Section:
    moved = [row for row in rows if row["to"] is not None]
    held = sum(row["decision"] == "hold" for row in rows)
    moves = "1 move" if len(moved) == 1 else f"{len(moved):,} moves"
    lead = f"{moves} of a champion, {counted(held, 'decision')} held, {len(rows):,} in all."
    charts = []
    if moved:
        text = "The version that serves each missing rate after every promotion or rollback, by the ledger's time."
        charts = [
            Chart(key="promotions", title="Champion versions over time", text=text, figure=promotions_figure(rows))
        ]
    return Section(key="promotions-over-time", title="Promotions over time", lead=[lead], charts=charts)


def promotions_figure(rows: Sequence[Row]) -> Figure:
    """A step line a missing rate, to the last decision; lines are set a little apart, or they would hide each other."""
    moved = [row for row in rows if row["to"] is not None]
    axes = new_axes(f"time of the decision (UTC, {_days(rows)})", "champion (version number)", height=3.9)
    rates = thinned(sorted({row["rate"] for row in moved}), _DRAWN)
    last = max(_when(row) for row in rows)
    for index, rate in enumerate(rates):
        own = [row for row in moved if row["rate"] == rate]
        apart = _APART * (index - (len(rates) - 1) / 2)
        times, versions = [_when(row) for row in own], [int(row["to"]) + apart for row in own]
        axes.step(
            [*times, last],
            [*versions, versions[-1]],
            dashes(index),
            where="post",
            color=series(index),
            alpha=0.85,
            label=f"rate {rate}",
        )
        axes.plot(times, versions, mark(index), color=series(index), markersize=4)
    locator = _dates.AutoDateLocator(minticks=2, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(_dates.ConciseDateFormatter(locator, show_offset=False))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return with_legend(axes)


def _days(rows: Sequence[Row]) -> str:
    """Ticks of a short span say hours or seconds; matplotlib would write the day over the label."""
    days = sorted({row["time"][:10] for row in rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _when(row: Row) -> float:
    return float(_dates.date2num(datetime.fromisoformat(row["time"])))


def _decisions(rows: Sequence[Row], head: Mapping[str, Any]) -> Section:
    newest = list(reversed(rows))[:_LISTED]
    cells = [
        [
            str(row["sequence"]),
            row["time"][:16].replace("T", " "),
            row["decision"],
            row["rate"],
            f"v{row['from']}" if row["from"] else NONE,
            f"v{row['to']}" if row["to"] else NONE,
            row["who"],
            row["digest"][:12],
        ]
        for row in newest
    ]
    of = f"The newest {len(newest)} of {len(rows):,}." if len(newest) < len(rows) else "All of them, the newest first."
    return Section(
        key="decisions",
        title="Every decision",
        tables=[
            Table(
                caption="Decisions, an entry of the ledger for each missing rate",
                columns=["entry", "time (UTC)", "decision", "missing rate", "from", "to", "who", "digest"],
                rows=cells,
                words=("time (UTC)", "decision", "who", "digest"),
                note=f"{of} The ledger's head is entry {head['sequence']}, {head['digest']}.",
            )
        ],
    )
