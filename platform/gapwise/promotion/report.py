"""What the gate saw and said, as plain values for JSON, as sentences, and as a plot."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gapwise.data.store import Split
from gapwise.evaluation.paired import RESAMPLES
from gapwise.promotion.asked import Asked
from gapwise.promotion.candidates import Candidate
from gapwise.promotion.gate import FLOOR, Comparison, Verdict
from gapwise.spec.base import without_nan


class Decision(NamedTuple):
    """One rate."""

    rate: str
    decision: str
    """promote, hold, or ask."""
    candidate: Candidate
    version: str | None
    """Of the candidate; None where it is not registered."""
    before: str | None
    """The champion until now."""
    verdict: Verdict | None
    """None where there was nothing to weigh: the candidate serves the rate already, or must not."""
    reasons: list[str]


def reasons_of(verdict: Verdict) -> list[str]:
    """One sentence for each thing that had to hold."""
    return [_sentence(one, verdict) for one in verdict.contest.comparisons]


def _sentence(one: Comparison, verdict: Verdict) -> str:
    effect, interval = one.difference.effect, one.difference.interval(verdict.level)
    figures = f"{one.metric} {'better' if effect >= 0 else 'worse'} by {abs(effect):.4f}"
    if interval is None:
        figures += ", and nothing can be said beyond that"
    else:
        figures += f", {interval[0]:.4f} to {interval[1]:.4f}; p {one.p:.4f} against {verdict.level:.4f}"
    held = one.p <= verdict.level
    if one.allowed >= 0:
        margin = f" by more than {one.allowed:g}" if one.allowed else ""
        return f"{'beats' if held else 'is not shown to beat'} {_called(one.rival)}{margin} ({figures})"
    where = "" if one.rate == verdict.contest.rate else f"at {one.rate}, which it would serve too, "
    allowed = f"no worse than {_called(one.rival)} by {-one.allowed:g}"
    return f"{where}is {'' if held else 'not shown to be '}{allowed} ({figures})"


def _called(rival: str) -> str:
    return "the floor" if rival == FLOOR else f"version {rival}" if rival.isdigit() else rival


def gate_report(asked: Asked, split: Split, decisions: Sequence[Decision], spent: int) -> dict[str, Any]:
    """Everything behind the decisions, and `promote --json`'s keys; its digest stands in the ledger."""
    report: dict[str, Any] = {
        "name": asked.name,
        "split": split.name,
        "split_fingerprint": split.fingerprint,
        "samples": len(split),
        "groups": len(set(split.groups)),
        "metric": asked.metric,
        "gate": asked.spec.model_dump(mode="json"),
        "alpha": asked.spec.alpha,
        "decisions_before_within_a_year": spent,
        "reads_of_test": asked.dataset.exposures(),
        "resamples": RESAMPLES,
        "decisions": [_row(one) for one in decisions],
    }
    return dict(without_nan(report))


def _row(one: Decision) -> dict[str, Any]:
    comparisons = one.verdict.contest.comparisons if one.verdict else []
    level = one.verdict.level if one.verdict else None
    compared = [_compared(this, level) for this in comparisons if level is not None]
    first = compared[0] if compared else {}
    return {
        "rate": one.rate,
        "decision": one.decision,
        "version": one.version,
        "from": one.before,
        "study": one.candidate.result.study,
        "trial": one.candidate.model.trial,
        "arm": one.candidate.model.arm,
        "metric": one.candidate.result.objective.metric,
        "value": one.candidate.figure.mean,
        "sd": one.candidate.figure.sd,
        "rival": first.get("rival"),
        "effect": first.get("effect"),
        "interval": first.get("interval"),
        "p": one.verdict.contest.p if one.verdict else None,
        "level": level,
        "reasons": one.reasons,
        "comparisons": compared,
    }


def _compared(one: Comparison, level: float) -> dict[str, Any]:
    interval = one.difference.interval(level)
    return {
        "metric": one.metric,
        "rate": one.rate,
        "rival": one.rival,
        "allowed": one.allowed,
        "effect": one.difference.effect,
        "standard_error": one.difference.error,
        "interval": None if interval is None else list(interval),
        "p": one.p,
    }


def plot(report: Mapping[str, Any]) -> str:
    """SVG: by rate, how much better who asked is than who would serve otherwise, with its interval."""
    from matplotlib.figure import Figure

    rows = [row for row in report["decisions"] if row["effect"] is not None]
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(report["gate"]["margin"], color="0.5", linewidth=1.0)
    for row in rows:
        low, high = row["interval"] or (row["effect"], row["effect"])
        colour = "tab:red" if row["decision"] == "hold" else "tab:green"
        axes.plot([float(row["rate"])] * 2, [low, high], color=colour, linewidth=2.0)
        axes.plot(float(row["rate"]), row["effect"], "o", color=colour)
        label = f"{row['trial']}\nagainst {_called(row['rival'])}"
        axes.annotate(label, (float(row["rate"]), high), ha="center", va="bottom", fontsize=5)
    axes.set_xlabel("missing rate")
    axes.set_ylabel(f"{report['metric']}: better by")
    axes.set_title(f"{report['name']}: {report['split']} split, {report['samples']} samples (red: held)", fontsize=9)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
