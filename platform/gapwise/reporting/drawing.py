"""A matplotlib figure in a report's look, and as SVG that lies inside a page: text stays text, colours are variables.

Figures are as wide as a telephone, so that their words can be read there; a page shows them larger where there is room.
"""

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gapwise.reporting.palette import LIGHT

WIDTH, HEIGHT = 4.3, 3.1
"""Inches; at 72 points each a figure is about as wide as a telephone's page."""
_DOTS = 120
"""An inch of a PNG."""
Item = TypeVar("Item")


def new_axes(x: str, y: str, *, height: float = HEIGHT) -> Axes:
    """Empty axes in a figure of their own, labelled; a label says its unit."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.set_xlabel(x, color=LIGHT["ink"], fontsize=9)
    axes.set_ylabel(y, color=LIGHT["ink"], fontsize=9)
    axes.tick_params(which="both", colors=LIGHT["muted"], labelsize=8)
    axes.grid(color=LIGHT["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LIGHT["faint"])
    return axes


def log_scale(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers: powers would be drawn as formulas."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def few_ticks(axes: Axes, *, whole: bool = False) -> None:
    """A linear x axis whose figures have room beside each other however long they are; `whole`: whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if whole else 5, integer=whole, min_n_ticks=1))


def with_legend(axes: Axes) -> Figure:
    """The figure of the axes, its legend below them where there is anything to tell apart."""
    figure = figure_of(axes)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=8,
            labelcolor=LIGHT["ink"],
        )
    return figure


def figure_of(axes: Axes) -> Figure:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many, evenly spread, the first and the last among them: what is drawn of a study of thousands."""
    if len(items) <= most:
        return list(items)
    step = (len(items) - 1) / (most - 1)
    return [items[round(index * step)] for index in range(most)]


def lay_out(figure: Figure) -> None:
    """Find everything its place once. With a layout engine, each file that is saved would be drawn twice."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def save_png(figure: Figure, file: Path) -> None:
    """The figure as a picture on white."""
    lay_out(figure)
    figure.savefig(file, dpi=_DOTS, facecolor="white")


def as_svg(figure: Figure, key: str, *, title: str, text: str) -> str:
    """The figure as an `<svg>` element named by its title and described by `text`; `key` keeps its ids its own."""
    lay_out(figure)
    drawn = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": key, "font.family": "sans-serif"}
    with mpl.rc_context(settings):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    found = drawn.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    found = re.sub(r"<!--.*?-->", "", found, flags=re.DOTALL)
    found = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", found)
    found = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", found)
    for name, colour in LIGHT.items():
        found = found.replace(colour, f"var(--{name})")
    size = re.search(r'viewBox="[^"]*"', found)
    assert size is not None, "matplotlib gives every SVG a viewBox"
    head = f'<svg {size[0]} role="img" aria-labelledby="{key}-title {key}-text" xmlns:xlink="http://www.w3.org/1999/xlink">'
    names = f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-text">{escape(text)}</desc>'
    return re.sub(r"<svg[^>]*>", lambda _: head + names, found, count=1)
