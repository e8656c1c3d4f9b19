"""Robustness curves of a study's winners: validation metric against missing rate, baseline and floor beside."""

import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from gapwise.tracking.client import Tracking
from gapwise.tracking.runs import log_file
from gapwise.tracking.study_run import StudyRun
from gapwise.tuning.result import StudyResult


def curve_figure(result: StudyResult) -> Figure:
    """One line a refitted model, with a band of one standard deviation over its seeds."""
    metric = result.objective.metric
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for model in result.models:
        curve = model.over_seeds[metric]
        conditions = list(curve)
        means = [spread.mean for spread in curve.values()]
        low = [spread.mean - spread.sd for spread in curve.values()]
        high = [spread.mean + spread.sd for spread in curve.values()]
        style = "--" if model.arm == "late_fusion" else "-"
        (line,) = axes.plot(conditions, means, style, marker="o", markersize=3, label=model.trial)
        axes.fill_between(conditions, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(result.floor[metric], color="0.5", linestyle=":", label="floor (constant answer)")
    axes.set_xlabel("missing rate" if result.protocol.has_rates else "modalities present")
    axes.set_ylabel(f"validation {metric}")
    axes.set_title(f"{result.study} on {result.dataset}: mean over {len(result.models[0].seeds)} seeds, band ± 1 sd")
    axes.legend(fontsize="small")
    return figure


def log_study(tracking: Tracking, run: StudyRun, result: StudyResult) -> None:
    """The result as artifacts of the parent run: winners, Pareto fronts, diagnostics, and the figure as SVG and PNG.

    Raises TrackingDown or TrackingRefused; doing it again replaces what is there.
    """
    run.log_result(result.best, result.baseline)
    if result.objectives:
        fronts = {"front": result.front, "baseline_front": result.baseline_front, "search_front": result.search_front}
        run.log_front(fronts)
    run.log_diagnostics({model.trial: model.diagnostics for model in result.models})
    figure = curve_figure(result)
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        for ending in ("svg", "png"):
            file = Path(temporary) / f"robustness.{ending}"
            figure.savefig(file, dpi=120)
            log_file(tracking, run.run_id, file, "figures")
