"""For each missing rate the best model of one or several studies, by validation mean over the refit's seeds. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gapwise.errors import GateError
from gapwise.evaluation.metrics import better
from gapwise.tuning.result import RefitModel, Spread, StudyResult


class Candidate(NamedTuple):
    """A refitted model that asks for a rate."""

    rate: str
    result: StudyResult
    model: RefitModel
    reason: str
    """Why this one, in figures of validation."""

    @property
    def figure(self) -> Spread:
        return self.model.over_seeds[self.result.objective.metric][self.rate]

    @property
    def key(self) -> str:
        return f"{self.result.study}/{self.model.trial}"


def candidates(results: Sequence[StudyResult]) -> dict[str, list[Candidate]]:
    """By rate, who asks for it: the best searched model, where it beats late_fusion on validation, and late_fusion.

    The second is there for rates that the first cannot be shown to deserve. Raises GateError for a protocol without
    missing rates, for studies that cannot be compared, and for one without a finished baseline.
    """
    for result in results:
        _refuse(result, results[0])
    rates = dict.fromkeys(rate for result in results for rate in (result.best or result.baseline))
    return {rate: _of_rate(rate, results) for rate in sorted(rates, key=float)}


def _refuse(result: StudyResult, first: StudyResult) -> None:
    if not result.protocol.has_rates:
        raise GateError(
            f"protocol {result.protocol.name!r} has subsets, not missing rates, so it has no champions of a rate",
            where=f"study {result.study}",
            allowed="a study on protocol frames, block or random_rate",
        )
    different = [key for key, value in _ground(result).items() if value != _ground(first)[key]]
    if different:
        raise GateError(
            f"differs from study {first.study} in its {' and '.join(different)}",
            where=f"study {result.study}",
            allowed="studies of one dataset, protocol and metric, judged on the same validation split",
        )


def _ground(result: StudyResult) -> dict[str, Any]:
    return {
        "dataset": result.dataset,
        "task": result.task,
        "protocol": result.protocol.model_dump(exclude={"incomplete_share"}),
        "metric": result.objective.metric,
        "validation split": result.fingerprints["valid"],
    }


def _of_rate(rate: str, results: Sequence[StudyResult]) -> list[Candidate]:
    metric = results[0].objective.metric
    baseline = _best([_named(result, rate, baseline=True) for result in results], metric)
    winner = _best([_named(result, rate, baseline=False) for result in results], metric)
    if baseline is None:
        raise GateError(
            "late_fusion has no finished run in these studies, so nothing can be compared", where=f"rate {rate}"
        )
    if winner is None:
        return [baseline._replace(reason="no searched model finished: the baseline itself asks")]
    versus = f"validation {metric} {winner.figure.mean:.4f} against late_fusion's {baseline.figure.mean:.4f}"
    if not better(metric, winner.figure.mean, baseline.figure.mean):
        reason = f"{winner.model.trial} does not beat late_fusion ({versus}): the baseline itself asks"
        return [baseline._replace(reason=reason)]
    return [winner._replace(reason=f"best of the search ({versus})"), baseline._replace(reason="the baseline")]


def _named(result: StudyResult, rate: str, *, baseline: bool) -> Candidate | None:
    chosen = (result.baseline if baseline else result.best).get(rate)
    return Candidate(rate, result, result.model(chosen.trial), "") if chosen is not None else None


def _best(found: Sequence[Candidate | None], metric: str) -> Candidate | None:
    """The first of equals."""
    best: Candidate | None = None
    for one in found:
        if one is not None and (best is None or better(metric, one.figure.mean, best.figure.mean)):
            best = one
    return best
