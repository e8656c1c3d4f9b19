"""What MLflow's UI says beside a finished study's parent run, in Markdown: winners by rate, how to go on. Pure."""

from collections.abc import Mapping
from statistics import fmean

from gapwise.reporting.words import metric_label, number, spread
from gapwise.spec.search import BASELINE
from gapwise.tuning.result import Best, StudyResult


def study_note(result: StudyResult) -> str:
    """The UI shows the first lines, hides the rest, and sets tables without a gap: hence the order, and lists."""
    metric = result.objective.metric
    winners = result.best or result.baseline
    seeds = next((one.seeds for one in winners.values()), 0)
    return "\n".join(
        [
            f"**{result.question}**",
            "",
            _answer(result, winners),
            "",
            *[
                f"- {at}: **{one.trial}** {_figure(one)}{_beside(result.baseline.get(at), one)}"
                for at, one in winners.items()
            ],
            "",
            f"Validation {metric_label(metric)}; mean ± sd over {seeds} training seeds; a constant answer has"
            f" {number(result.floor.get(metric))}. {_counted(result)}",
            "",
            "Artifacts: `report.html` (the whole study on a page; also `gapwise report`), `figures/`, `best.json`."
            f" Metrics `{metric}/winners`, `{metric}/{BASELINE}`: curves whose step is the missing rate in percent.",
            "",
            *[f"- `{command}`" for command in _next(result)],
        ]
    )


def _answer(result: StudyResult, winners: Mapping[str, Best]) -> str:
    """Who won where, and by how much on average, in a line."""
    names = dict.fromkeys(one.trial for one in winners.values())
    parts = [f"{name} at {', '.join(at for at, one in winners.items() if one.trial == name)}" for name in names]
    mean = f"mean {result.objective.metric} {number(fmean(one.mean for one in winners.values()))}" if winners else ""
    if result.best and result.baseline:
        mean += f" against {BASELINE}'s {number(fmean(one.mean for one in result.baseline.values()))}"
    return f"Best: {'; '.join(parts)}. On validation, {mean}." if winners else "Nobody finished."


def _beside(baseline: Best | None, winner: Best) -> str:
    return "" if baseline is None or baseline == winner else f" ({BASELINE} {_figure(baseline)})"


def _figure(one: Best) -> str:
    return spread(one.mean, one.sd if one.seeds > 1 else None)


def _counted(result: StudyResult) -> str:
    counted = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    return f"Trials: {counted}." if counted else "A refit: nothing was searched."


def _next(result: StudyResult) -> list[str]:
    commands = [f"gapwise study show {result.study}"]
    if result.best and result.baseline:
        commands.append(f"gapwise compare {result.study}/{next(iter(result.baseline.values())).trial} {result.study}")
    if result.protocol.has_rates:
        commands.append(f"gapwise promote {result.study} --name {result.dataset} --dry-run")
    return commands


def study_curves(result: StudyResult) -> dict[str, dict[str, float]]:
    """{name: {condition: value}} of the objective's metric: MLflow draws winners beside the baseline and the floor."""
    sides = {"winners": result.best, BASELINE: result.baseline}
    curves = {name: {at: one.mean for at, one in side.items()} for name, side in sides.items() if side}
    means = {f"{name}_mean": {"0.0": fmean(curve.values())} for name, curve in curves.items()}
    floor = result.floor.get(result.objective.metric)
    line = {"floor": dict.fromkeys(result.best or result.baseline, floor)} if floor is not None else {}
    return {**curves, **line, **means}
