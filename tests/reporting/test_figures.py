"""Words in figures have room: measured by matplotlib's own renderer, on few trials and many curves, which lacked it."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gapwise.reporting.figures_result import reliability_figure
from gapwise.reporting.figures_search import learning_figure, progress_figure, slice_figure, timeline_figure
from gapwise.reporting.study_facts import Facts
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.search import Range


@pytest.fixture(scope="module")
def facts(lively_facts: Callable[..., Facts]) -> Facts:
    return lively_facts(trials=12)


def ticks(figure: Figure) -> list[tuple[str, Any]]:
    """The x axis' words that are seen, with their boxes, from left to right."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    low, high = sorted(figure.axes[0].get_xlim())
    axis = figure.axes[0].xaxis
    seen = [label for label, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True) if low <= at <= high]
    return [(one.get_text(), one.get_window_extent(canvas.get_renderer())) for one in seen]


@pytest.mark.parametrize("at", [0.2, 0.0001234, 123.456])
def test_the_values_below_a_slice_do_not_touch_when_only_one_was_tried(facts: Facts, at: float) -> None:
    one = facts.study.of("search")[0]
    trial = one._replace(assignment=one.assignment._replace(values={"model.w": at}))
    parameter = Range(role="searched", low=0.0, high=1000.0)
    found = ticks(slice_figure("model.w", parameter, {"prlf": [trial]}, facts.study.space.train.objective))
    assert len(found) >= 2
    assert all(left.x1 < right.x0 for (_, left), (_, right) in pairwise(found)), [word for word, _ in found]


def test_epochs_trials_and_whole_parameters_are_counted_in_whole_numbers(facts: Facts) -> None:
    objective, few = facts.study.space.train.objective, facts.study.of("search")[:2]
    few = [one._replace(assignment=one.assignment._replace(values={"model.steps": 3})) for one in few]
    steps = Range(role="searched", low=1, high=8, integer=True)
    for figure in (
        learning_figure(few, objective),
        timeline_figure(few),
        progress_figure({"prlf": few}, objective),
        slice_figure("model.steps", steps, {"prlf": few}, objective),
    ):
        words = [word for word, _ in ticks(figure)]
        assert words and all(float(word.replace("\N{MINUS SIGN}", "-")).is_integer() for word in words), words


def test_an_axis_label_is_whole_beside_a_tall_legend() -> None:
    curves = {f"{name}/{kind}": {"0.0": 0.1, "0.9": 0.4} for name in ("audio", "text", "vision") for kind in "ab"}
    figure = reliability_figure(curves, ProtocolSpec(name="frames"))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].yaxis.label.get_window_extent(canvas.get_renderer())
    assert box.y0 >= 0 and box.y1 <= figure.bbox.height
