"""Who becomes champion of a rate. Pure: a finished study and the present champions in, decisions out.

What is asked today, and no more: on validation, over the refit's fresh seeds, the winner's mean beats the floor and
`late_fusion`'s; and a present champion that was judged on the same validation data is not replaced by a worse one.
There is no significance test yet. Where no model beats the baseline, the baseline itself is the candidate, and that is
said.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from gapwise.errors import GateError
from gapwise.evaluation.metrics import better
from gapwise.tuning.result import RefitModel, StudyResult

ASKED = "asked: validation mean over seeds beats the floor and late_fusion; no significance test yet"


class Decision(NamedTuple):
    """One rate. `effect` is candidate minus what it had to beat, in the metric's own units."""

    rate: str
    decision: Literal["promote", "hold"]
    trial: str
    metric: str
    value: float
    sd: float
    against: float | None
    """The baseline's mean."""
    effect: float | None
    reasons: list[str]


class Present(NamedTuple):
    """The champion that a rate has now: its version and the facts in its tags."""

    version: str
    facts: Mapping[str, Any]


def decide(result: StudyResult, champions: Mapping[str, Present]) -> list[Decision]:
    """A decision for every rate of the study's grid. Raises GateError for a protocol without missing rates."""
    if not result.protocol.has_rates:
        raise GateError(
            f"protocol {result.protocol.name!r} has subsets, not missing rates, so it has no champions of a rate",
            where=f"study {result.study}",
            allowed="a study on protocol frames, block or random_rate",
        )
    return [_decide(result, rate, champions.get(rate)) for rate in result.best or result.baseline]


def _decide(result: StudyResult, rate: str, present: Present | None) -> Decision:
    metric = result.objective.metric
    baseline = result.model(result.baseline[rate].trial) if rate in result.baseline else None
    winner = result.model(result.best[rate].trial) if rate in result.best else None
    candidate, reasons = _candidate(metric, rate, winner, baseline)
    figure = candidate.over_seeds[metric][rate]
    floor = result.floor[metric]
    against = baseline.over_seeds[metric][rate].mean if baseline is not None else None
    passed = better(metric, figure.mean, floor)
    reasons.append(f"{'beats' if passed else 'does not beat'} the floor ({metric} {floor:.4f})")
    if present is not None:
        kept, reason = _against_present(result, candidate, rate, present)
        passed = passed and kept
        reasons.append(reason)
    return Decision(
        rate=rate,
        decision="promote" if passed else "hold",
        trial=candidate.trial,
        metric=metric,
        value=figure.mean,
        sd=figure.sd,
        against=against,
        effect=figure.mean - against if against is not None and candidate is not baseline else None,
        reasons=[*reasons, ASKED],
    )


def _candidate(
    metric: str, rate: str, winner: RefitModel | None, baseline: RefitModel | None
) -> tuple[RefitModel, list[str]]:
    if baseline is None:
        raise GateError(
            "late_fusion has no finished run in this study, so nothing can be compared", where=f"rate {rate}"
        )
    base = baseline.over_seeds[metric][rate]
    if winner is None:
        return baseline, ["no searched model finished: the baseline itself is the candidate"]
    figure = winner.over_seeds[metric][rate]
    versus = f"{metric} {figure.mean:.4f} against late_fusion's {base.mean:.4f}"
    if better(metric, figure.mean, base.mean):
        return winner, [f"beats late_fusion ({versus})"]
    return baseline, [f"{winner.trial} does not beat late_fusion ({versus}): the baseline itself is the candidate"]


def identity_of(result: StudyResult, model: RefitModel) -> dict[str, str]:
    """What makes a version the same version: promoting a study twice changes nothing."""
    return {
        "study": result.study,
        "trial": model.trial,
        "spec_fingerprint": model.spec_fingerprint,
        "dataset_fingerprint": result.fingerprints["dataset"],
    }


def _against_present(result: StudyResult, candidate: RefitModel, rate: str, present: Present) -> tuple[bool, str]:
    facts, metric = present.facts, result.objective.metric
    value = candidate.over_seeds[metric][rate].mean
    ground = {
        "valid_fingerprint": result.fingerprints["valid"],
        "protocol": result.protocol.model_dump(mode="json"),
        "metric": metric,
    }
    if not _says(facts, ground):
        return True, f"version {present.version} was judged on other data, protocol or metric: not compared"
    if _says(facts, identity_of(result, candidate)):
        return True, f"is version {present.version}, the champion already"
    held = facts["over_seeds"][metric][rate]["mean"]
    if better(metric, value, held):
        return True, f"beats version {present.version} ({metric} {held:.4f} on the same validation data)"
    return False, f"does not beat version {present.version} ({metric} {held:.4f} on the same validation data)"


def _says(facts: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return all(facts.get(key) == value for key, value in expected.items())
