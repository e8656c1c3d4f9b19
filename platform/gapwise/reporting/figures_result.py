"""Figures of a study's outcome, a function each: robustness, the Pareto front, noise between seeds, what models say of
themselves, and where the time went.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapwise.evaluation.objective import as_cost
from gapwise.reporting.drawing import new_axes, with_legend
from gapwise.reporting.palette import LIGHT, dashes, mark, series
from gapwise.reporting.words import axis_label, condition_label
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.result import FrontMember


class Line(NamedTuple):
    """A model's curve."""

    name: str
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    """Between seeds; empty for a single one."""
    mask_sd: Mapping[str, float]
    """Between mask seeds; empty where their answers are not at hand."""


class Beside(NamedTuple):
    """What a curve is held against."""

    floor: float | None
    optimum: Mapping[str, float]
    before: Mapping[str, float]
    """The model that served before, by condition."""


def robustness_figure(
    lines: Sequence[Line], beside: Beside, protocol: ProtocolSpec, metric: str, *, split: str = "validation"
) -> Figure:
    """A line a model over conditions, with a band of one standard deviation."""
    axes = new_axes(condition_label(protocol), f"{split} {axis_label(metric)}", height=3.9)
    conditions = list(lines[0].mean)
    for index, line in enumerate(lines):
        _curve(axes, index, line, _places(list(line.mean), conditions, protocol))
    for name, curve, style in (("optimum", beside.optimum, "-."), ("served before", beside.before, "--")):
        if shown := [at for at in conditions if at in curve]:
            places = _places(shown, conditions, protocol)
            axes.plot(places, [curve[at] for at in shown], style, color=LIGHT["ink"], linewidth=1.1, label=name)
    if beside.floor is not None:
        axes.axhline(beside.floor, color=LIGHT["muted"], linestyle=":", label="floor (constant answer)")
    if not protocol.has_rates:
        axes.set_xticks(range(len(conditions)), conditions, rotation=40, ha="right")
    return with_legend(axes)


def _places(shown: Sequence[str], conditions: Sequence[str], protocol: ProtocolSpec) -> list[float]:
    return [float(one) if protocol.has_rates else conditions.index(one) for one in shown]


def _curve(axes: Axes, index: int, line: Line, places: Sequence[float]) -> None:
    means = list(line.mean.values())
    axes.plot(places, means, dashes(index), marker=mark(index), markersize=4, color=series(index), label=line.name)
    if line.sd:
        low = [mean - line.sd[at] for at, mean in line.mean.items()]
        high = [mean + line.sd[at] for at, mean in line.mean.items()]
        axes.fill_between(places, low, high, color=series(index), alpha=0.15, linewidth=0)
    if line.mask_sd:
        bars = [line.mask_sd.get(at, 0.0) for at in line.mean]
        axes.errorbar(places, means, bars, fmt="none", ecolor=series(index), elinewidth=0.9, capsize=2.5)


def front_figure(
    members: Mapping[str, Sequence[FrontMember]], first: tuple[str, ObjectiveSpec], second: tuple[str, ObjectiveSpec]
) -> Figure:
    """Two objectives of the fronts, by name of the front."""
    axes = new_axes(f"{first[0]}: {axis_label(first[1].metric)}", f"{second[0]}: {axis_label(second[1].metric)}")
    for index, (name, some) in enumerate(members.items()):
        if some:
            x, y = ([one.objectives[goal].mean for one in some] for goal in (first[0], second[0]))
            wide, high = ([one.objectives[goal].sd for one in some] for goal in (first[0], second[0]))
            axes.errorbar(x, y, high, wide, mark(index), color=series(index), markersize=5, elinewidth=0.7, label=name)
    return with_legend(axes)


def noise_figure(seeds: Mapping[str, Sequence[float]], objective: ObjectiveSpec) -> Figure:
    """A row a configuration of the second phase: a mark a seed, a bar at the mean."""
    rows = list(seeds.items())[::-1]
    axes = new_axes(axis_label(objective.metric), "configuration", height=1.5 + 0.3 * len(seeds))
    for row, (name, costs) in enumerate(rows):
        values = [as_cost(objective.metric, cost) for cost in costs]
        baseline = name.startswith("late_fusion")
        axes.plot(
            values, [row] * len(values), mark(int(baseline)), color=series(int(baseline)), markersize=5, alpha=0.8
        )
        axes.plot([sum(values) / len(values)], [row], "|", color=LIGHT["ink"], markersize=14, markeredgewidth=1.5)
    axes.set_yticks(range(len(seeds)), [name for name, _ in rows])
    axes.set_ylim(-0.6, len(seeds) - 0.4)
    return with_legend(axes)


def shares_figure(curves: Mapping[str, Mapping[str, float]], protocol: ProtocolSpec) -> Figure:
    """Who leads, by condition: one line a modality."""
    return _diagnostic(curves, protocol, "led by (share of samples)")


def reliability_figure(curves: Mapping[str, Mapping[str, float]], protocol: ProtocolSpec) -> Figure:
    """How far reliabilities agree with what the synthetic data know, by condition."""
    return _diagnostic(curves, protocol, "agreement\n(rank correlation, -1 to 1)")


def accuracy_figure(curves: Mapping[str, Mapping[str, float]], protocol: ProtocolSpec) -> Figure:
    """How often the leading modality is the one that ought to lead."""
    return _diagnostic(curves, protocol, "right leader (share of samples)")


def distance_figure(curves: Mapping[str, Mapping[str, float]], protocol: ProtocolSpec) -> Figure:
    """How far an incomplete sample's representation is from its complete one."""
    return _diagnostic(curves, protocol, "distance from complete (no unit)")


def _diagnostic(curves: Mapping[str, Mapping[str, float]], protocol: ProtocolSpec, label: str) -> Figure:
    axes = new_axes(condition_label(protocol), label)
    conditions = list(dict.fromkeys(at for curve in curves.values() for at in curve))
    for index, (name, curve) in enumerate(curves.items()):
        places = _places(list(curve), conditions, protocol)
        axes.plot(
            places,
            list(curve.values()),
            dashes(index),
            marker=mark(index),
            markersize=4,
            color=series(index),
            label=name,
        )
    if not protocol.has_rates:
        axes.set_xticks(range(len(conditions)), conditions, rotation=40, ha="right")
    return with_legend(axes)


def cost_figure(seconds: Mapping[str, Mapping[str, float]]) -> Figure:
    """Device-seconds by phase, stacked by how runs ended."""
    axes = new_axes("training time (device-seconds)", "phase", height=1.9)
    rows = list(seconds)
    states = list(dict.fromkeys(state for by_state in seconds.values() for state in by_state))
    before = [0.0] * len(rows)
    for index, state in enumerate(states):
        widths = [seconds[row].get(state, 0.0) for row in rows]
        axes.barh(rows, widths, 0.6, left=before, color=series(index), label=state)
        before = [start + width for start, width in zip(before, widths, strict=True)]
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    return with_legend(axes)
