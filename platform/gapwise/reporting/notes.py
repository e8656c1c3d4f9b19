"""What MLflow's UI says beside a finished study's parent run, in Markdown: winners by rate, how to go on. Pure."""

from statistics import fmean

from gapwise.reporting.words import NONE, metric_label, number, spread
from gapwise.spec.search import BASELINE
from gapwise.tuning.result import Best, StudyResult


def study_note(result: StudyResult) -> str:
    metric = result.objective.metric
    winners = result.best or result.baseline
    rows = [
        f"| {at} | {one.trial} | {_figure(one)} | {_figure(result.baseline.get(at))} |" for at, one in winners.items()
    ]
    head = "missing rate" if result.protocol.has_rates else "present"
    seeds = next(iter(winners.values())).seeds if winners else 0
    return "\n".join(
        [
            f"**{result.question}**",
            "",
            f"| {head} | winner | {metric} | {BASELINE} |",
            "|---|---|---|---|",
            *rows,
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


def _figure(one: Best | None) -> str:
    return NONE if one is None else spread(one.mean, one.sd if one.seeds > 1 else None)


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
