"""Figures of a search, a function each: what mattered, slices, parallel coordinates, learning, the course of trials.

Of a study of thousands a part is drawn, evenly spread; a figure's text says so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from gapwise.evaluation.objective import as_cost
from gapwise.reporting.drawing import few_ticks, log_scale, new_axes, thinned, with_legend
from gapwise.reporting.palette import LIGHT, dashes, mark, series
from gapwise.reporting.words import objective_label, short, value
from gapwise.spec.search import Choices, Parameter, Range
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.importance import Importance
from gapwise.tuning.reading import TrialRecord

DRAWN_POINTS, DRAWN_LINES, DRAWN_CURVES = 400, 120, 60
_LEVEL = 4
"""Axes whose names stand level beside each other."""
_STATES = ("complete", "pruned", "failed", "infeasible", "running")


def importance_figure(found: Importance) -> Figure:
    """Two bars a parameter."""
    paths = sorted(found.fanova, key=lambda path: found.fanova[path])
    axes = new_axes("importance (share of the explained differences)", "parameter", height=1.4 + 0.34 * len(paths))
    places = range(len(paths))
    axes.barh(
        [at + 0.19 for at in places],
        [found.fanova[path] for path in paths],
        0.36,
        color=series(0),
        label="all trials (fANOVA)",
    )
    axes.barh(
        [at - 0.19 for at in places],
        [found.ped_anova.get(path, 0.0) for path in paths],
        0.36,
        color=series(1),
        label="best tenth (PED-ANOVA)",
    )
    axes.set_yticks(list(places), [short(path) for path in paths])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)
    return with_legend(axes)


def slice_figure(
    path: str, parameter: Parameter, trials: Mapping[str, Sequence[TrialRecord]], objective: ObjectiveSpec
) -> Figure:
    """The objective of complete trials against one parameter, a mark an arm."""
    log = isinstance(parameter, Range) and parameter.log
    unit = ", log scale" if log else ", choice" if isinstance(parameter, Choices) else ""
    axes = new_axes(f"{short(path)} (value tried{unit})", objective_label(objective))
    choices = [str(one) for one in parameter.choices] if isinstance(parameter, Choices) else []
    for index, (arm, some) in enumerate(trials.items()):
        drawn = thinned([one for one in some if path in one.assignment.values], DRAWN_POINTS)
        values = [one.assignment.values[path] for one in drawn]
        x = [choices.index(str(one)) for one in values] if choices else values
        axes.plot(
            x,
            [natural(one, objective) for one in drawn],
            mark(index),
            color=series(index),
            markersize=4,
            alpha=0.75,
            label=arm,
        )
    if choices:
        axes.set_xticks(range(len(choices)), choices)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif log:
        log_scale(axes)
    else:
        few_ticks(axes, whole=isinstance(parameter, Range) and parameter.integer)
    return with_legend(axes)


def natural(one: TrialRecord, objective: ObjectiveSpec) -> float:
    """A trial's objective in its metric's own direction; NaN without one."""
    return math.nan if one.outcome.cost is None else as_cost(objective.metric, one.outcome.cost)


def parallel_figure(parameters: Mapping[str, Parameter], trials: Sequence[TrialRecord]) -> Figure:
    """A line a complete trial through its values; the best tenth stands out."""
    paths = list(parameters)
    ranked = sorted(trials, key=lambda one: one.outcome.cost or 0.0)
    best = ranked[: max(1, len(ranked) // 10)]
    axes = new_axes("parameter", "place in its range (0: low, 1: high)", height=4.0)
    for one in thinned(ranked[len(best) :], DRAWN_LINES):
        axes.plot(range(len(paths)), _places(one, parameters), color=LIGHT["faint"], linewidth=0.6, alpha=0.5)
    for index, one in enumerate(thinned(best, DRAWN_LINES // 2)):
        label = "best tenth" if index == 0 else None
        axes.plot(range(len(paths)), _places(one, parameters), color=series(0), linewidth=1.3, label=label)
    axes.plot([], [], color=LIGHT["faint"], linewidth=0.6, label="other complete trials")
    few = len(paths) <= _LEVEL
    words = [_range_words(path, parameters[path], "\n" if few else " ") for path in paths]
    slanted: dict[str, Any] = {} if few else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(paths)), words, **slanted)
    axes.margins(x=0.12 if few else 0.04)
    axes.set_ylim(-0.03, 1.03)
    return with_legend(axes)


def _places(one: TrialRecord, parameters: Mapping[str, Parameter]) -> list[float]:
    values = one.assignment.values
    return [place(parameter, values[path]) if path in values else math.nan for path, parameter in parameters.items()]


def place(parameter: Parameter, given: Any) -> float:
    """Where a value lies between the first and the last that its parameter allows, on its scale, from 0 to 1."""
    if isinstance(parameter, Choices):
        texts = [str(one) for one in parameter.choices]
        return texts.index(str(given)) / (len(texts) - 1) if str(given) in texts else math.nan
    assert isinstance(parameter, Range)
    low, high, here = (math.log(v) if parameter.log else float(v) for v in (parameter.low, parameter.high, given))
    return (here - low) / (high - low)


def _range_words(path: str, parameter: Parameter, between: str) -> str:
    if isinstance(parameter, Choices):
        low, high = parameter.choices[0], parameter.choices[-1]
    else:
        assert isinstance(parameter, Range)
        low, high = parameter.low, parameter.high
    return f"{short(path)}{between}{value(low)} to {value(high)}"


def learning_figure(trials: Sequence[TrialRecord], objective: ObjectiveSpec) -> Figure:
    """The objective by epoch, a line a trial, by how it ended."""
    axes = new_axes("epoch (passes over the training split)", objective_label(objective))
    few_ticks(axes, whole=True)
    told = thinned([one for one in trials if one.costs], DRAWN_CURVES)
    seen: set[str] = set()
    for one in sorted(told, key=lambda one: one.outcome.state == "complete"):
        state = one.outcome.state
        index = _STATES.index(state)
        costs = [as_cost(objective.metric, one.costs[epoch]) for epoch in sorted(one.costs)]
        label = state if state not in seen else None
        seen.add(state)
        axes.plot(
            sorted(one.costs),
            costs,
            color=series(index),
            linestyle="-" if state == "complete" else "--",
            linewidth=0.9,
            alpha=0.75,
            label=label,
        )
        axes.plot(max(one.costs), costs[-1], mark(index), color=series(index), markersize=3.5)
    return with_legend(axes)


def timeline_figure(trials: Sequence[TrialRecord]) -> Figure:
    """Epochs that each trial was trained for, in the order of asking, by how it ended."""
    axes = new_axes("trial (arm after arm, as they were asked)", "trained for (epochs)")
    few_ticks(axes, whole=True)
    order = {id(one): at for at, one in enumerate(trials, start=1)}
    for index, state in enumerate(_STATES):
        some = thinned([one for one in trials if one.outcome.state == state], DRAWN_POINTS)
        if some:
            axes.plot(
                [order[id(one)] for one in some],
                [one.epochs or 0 for one in some],
                mark(index),
                color=series(index),
                markersize=4,
                alpha=0.8,
                label=state,
            )
    axes.set_ylim(bottom=-0.3)
    return with_legend(axes)


def progress_figure(trials: Mapping[str, Sequence[TrialRecord]], objective: ObjectiveSpec) -> Figure:
    """The best objective so far, an arm a line."""
    axes = new_axes("trial of its arm (number)", f"best {objective_label(objective)}")
    few_ticks(axes, whole=True)
    for index, (arm, some) in enumerate(trials.items()):
        best, reached = math.inf, []
        for one in some:
            if one.outcome.eligible and one.outcome.cost is not None and one.outcome.cost < best:
                best = one.outcome.cost
                reached.append((one.assignment.number, as_cost(objective.metric, best)))
        if reached:
            reached.append((some[-1].assignment.number, reached[-1][1]))
            x, y = zip(*reached, strict=True)
            axes.step(x, y, dashes(index), where="post", color=series(index), label=arm)
            axes.plot(x[:-1], y[:-1], mark(index), color=series(index), markersize=4)
    return with_legend(axes)
