"""What the gate saw and said, as plain values for JSON and as sentences. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gapwise.data.store import Split
from gapwise.evaluation.paired import RESAMPLES
from gapwise.promotion.candidates import Candidate
from gapwise.promotion.gate import FLOOR, Comparison, Verdict
from gapwise.spec.base import without_nan
from gapwise.spec.gate import GateSpec


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
    """None where there was nothing to decide: the candidate serves the rate already."""
    reasons: list[str]


def reasons_of(verdict: Verdict) -> list[str]:
    """One sentence for each thing that had to hold."""
    return [_sentence(one, verdict) for one in verdict.contest.comparisons]


def _sentence(one: Comparison, verdict: Verdict) -> str:
    rival = "the floor" if one.rival == FLOOR else f"version {one.rival}" if one.rival.isdigit() else one.rival
    effect = one.difference.effect
    sense = "better" if effect >= 0 else "worse"
    figures = f"{one.metric} {sense} by {abs(effect):.4f}"
    interval = one.difference.interval(verdict.level)
    if interval is None:
        figures += ", and nothing can be said beyond that"
    else:
        figures += f", {interval[0]:.4f} to {interval[1]:.4f}; p {one.p:.4f} against {verdict.level:.4f}"
    held = one.p <= verdict.level
    if one.allowed >= 0:
        margin = f" by more than {one.allowed:g}" if one.allowed else ""
        return f"{'beats' if held else 'is not shown to beat'} {rival}{margin} ({figures})"
    where = "" if one.rate == verdict.contest.rate else f"at {one.rate}, which it would serve too, "
    return f"{where}{'is' if held else 'is not shown to be'} no worse than {rival} by {-one.allowed:g} ({figures})"


def gate_report(
    name: str, split: Split, decisions: Sequence[Decision], spec: GateSpec, metric: str, spent: int
) -> dict[str, Any]:
    """Everything behind the decisions; its digest stands in the ledger."""
    report: dict[str, Any] = {
        "name": name,
        "split": split.name,
        "split_fingerprint": split.fingerprint,
        "samples": len(split),
        "groups": len(set(split.groups)),
        "metric": metric,
        "gate": spec.model_dump(mode="json"),
        "alpha": spec.alpha,
        "decisions_before_within_a_year": spent,
        "resamples": RESAMPLES,
        "rates": {one.rate: _of_rate(one) for one in decisions},
    }
    return dict(without_nan(report))


def _of_rate(one: Decision) -> dict[str, Any]:
    return {
        "decision": one.decision,
        "study": one.candidate.result.study,
        "trial": one.candidate.model.trial,
        "before": one.before,
        "level": one.verdict.level if one.verdict else None,
        "comparisons": [_compared(this, one.verdict.level) for this in one.verdict.contest.comparisons]
        if one.verdict
        else [],
        "reasons": one.reasons,
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
