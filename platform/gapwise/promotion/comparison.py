"""Runs and studies set side by side: a figure for each at every condition, and paired differences from the first.

The differences, their intervals and p are the gate's (`evaluation.contest`): the same items under the same masks,
groups and mask seeds resampled. They are two-sided here, for nobody is the challenger, and Holm's procedure runs over
all differences that are shown, so that "beyond noise" is wrong anywhere with a probability of at most ALPHA. What is
compared are models as they ship: noise between training seeds is not in the intervals.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from gapwise.data.store import Dataset, Split
from gapwise.errors import SpecError
from gapwise.evaluation.contest import Difference, Figures, Level, difference, figures, holm, with_mean
from gapwise.evaluation.paired import RESAMPLES, Resamples, draw_resamples, resampled_metrics
from gapwise.promotion.contamination import refuse_contaminated, refuse_unknowing
from gapwise.promotion.evidence import answers
from gapwise.promotion.gate import FLOOR, Answers
from gapwise.promotion.lineup import Contender
from gapwise.spec.base import without_nan

ALPHA = 0.05
"""Of all differences together."""
MEAN = "mean"
"""Over conditions, as one more condition."""
Verdict = Literal["better", "worse", "within noise", "the same", "nothing can be said"]


class Compared(NamedTuple):
    """One contender against the first, at one condition."""

    contender: str
    condition: str
    difference: Difference
    level: Level

    @property
    def verdict(self) -> Verdict:
        effect, error = self.difference.effect, self.difference.error
        if effect == 0.0 and error == 0.0:
            return "the same"
        if not error > 0.0:
            return "nothing can be said"
        if not self.level.passed:
            return "within noise"
        return "better" if effect > 0.0 else "worse"


def refuse_unknown_metric(metric: str, task: str) -> None:
    """Raises SpecError for a metric that cannot be resampled, or that the task does not have."""
    known = resampled_metrics(task)
    if metric not in known:
        raise SpecError(f"{metric!r} cannot be compared on {task}", where="--metric", allowed=known)


def seen_by(
    contenders: Sequence[Contender], dataset: Dataset, split: Split, *, metric: str, mask_seeds: int
) -> Answers:
    """What each contender answers, under its name: at every condition its model there. And the floor.

    Raises GateError where a model has seen samples of test.
    """
    models = {key: model for one in contenders for key, model in one.models.items()}
    if split.name == "test":
        refuse_unknowing(models)
        refuse_contaminated(models, split)
    found = answers(models, dataset, split, contenders[0].protocol, metric=metric, mask_seeds=mask_seeds)
    named = {
        one.name: np.stack([found.models[one.model_at(at)][index] for index, at in enumerate(found.conditions)])
        for one in contenders
    }
    return found._replace(models={**named, FLOOR: found.models[FLOOR]})


def compare(
    found: Answers, names: Sequence[str], *, seed: int = 0
) -> tuple[dict[str, dict[str, float]], list[Compared]]:
    """{contender, or the floor: {condition: figure}}, and the differences of all but the first of `names` from it."""
    resamples = draw_resamples(found.groups, next(iter(found.models.values())).shape[1], seed=seed)
    several = len(found.conditions) > 1
    conditions = [*found.conditions, *([MEAN] if several else [])]
    known = {name: _figures(found, name, resamples, several) for name in (*names, FLOOR)}
    values = {name: dict(zip(conditions, one.point.tolist(), strict=True)) for name, one in known.items()}
    pairs = [(name, index) for name in names[1:] for index in range(len(conditions))]
    differences = [difference(found.metric, known[name], known[names[0]], at, resamples) for name, at in pairs]
    levels = holm([one.p_differs for one in differences], ALPHA)
    rows = zip(pairs, differences, levels, strict=True)
    return values, [Compared(name, conditions[at], one, level) for (name, at), one, level in rows]


def _figures(found: Answers, name: str, resamples: Resamples, several: bool) -> Figures:
    own = figures(found.metric, found.models[name], found.labels, found.shape, resamples)
    return with_mean(own) if several else own


def told(contenders: Sequence[Contender], dataset: Dataset, split: Split, found: Answers) -> dict[str, Any]:
    """The keys of `gapwise compare --json`."""
    first = contenders[0]
    values, compared = compare(found, [one.name for one in contenders])
    body = {
        "metric": found.metric,
        "split": split.name,
        "protocol": first.protocol.name,
        "mask_seeds": int(next(iter(found.models.values())).shape[1]),
        "samples": len(split),
        "groups": len(set(split.groups)),
        "resamples": RESAMPLES,
        "alpha": ALPHA,
        "contenders": [_contender(one, found.conditions) for one in contenders],
        "rates" if first.protocol.has_rates else "subsets": _by_condition(values, found.conditions),
        "mean": {name: curve.get(MEAN, next(iter(curve.values()))) for name, curve in values.items() if name != FLOOR},
        "floor": next(iter(values[FLOOR].values())),
        "differences": [_row(one, first.name) for one in compared],
        "words": [_words(one.name, first.name, compared) for one in contenders[1:]],
        "dataset_fingerprint": dataset.manifest.fingerprint,
        "reads_of_test": dataset.exposures(),
    }
    return dict(without_nan(body))


def _contender(one: Contender, conditions: Sequence[str]) -> dict[str, Any]:
    return {
        "name": one.name,
        "study": one.study or None,
        "models": {at: one.model_at(at) for at in conditions},
        "seeds": {key: model.spec.seed for key, model in one.models.items()},
    }


def _by_condition(values: Mapping[str, Mapping[str, float]], conditions: Sequence[str]) -> dict[str, dict[str, float]]:
    return {at: {name: curve[at] for name, curve in values.items() if name != FLOOR} for at in conditions}


def _row(one: Compared, first: str) -> dict[str, Any]:
    interval = one.difference.interval(one.level.alpha / 2)
    return {
        "contender": one.contender,
        "against": first,
        "condition": one.condition,
        "better_by": one.difference.effect,
        "interval": None if interval is None else list(interval),
        "p": one.difference.p_differs,
        "level": one.level.alpha,
        "verdict": one.verdict,
    }


def _words(name: str, first: str, compared: Sequence[Compared]) -> str:
    """Which differences are beyond noise."""
    own = [one for one in compared if one.contender == name]
    by_verdict: dict[Verdict, list[str]] = {}
    for one in own:
        if one.condition != MEAN:
            by_verdict.setdefault(one.verdict, []).append(one.condition)
    said = [f"{_SAYS[verdict]} {', '.join(at)}" for verdict in _SAYS if (at := by_verdict.get(verdict))]
    mean = next((one for one in own if one.condition == MEAN), None)
    overall = "" if mean is None else f" Mean over conditions: {_overall(mean)}."
    return f"{name} against {first}: {'; '.join(said)}.{overall}"


_SAYS: dict[Verdict, str] = {
    "better": "better beyond noise at",
    "worse": "worse beyond noise at",
    "within noise": "no more apart than noise would put them at",
    "the same": "the very same figures at",
    "nothing can be said": "nothing can be said beyond the figures at",
}


def _overall(mean: Compared) -> str:
    effect, verdict = mean.difference.effect, mean.verdict
    interval = mean.difference.interval(mean.level.alpha / 2)
    if interval is None:
        return verdict if verdict == "the same" else f"{effect:+.4f}, and nothing can be said beyond that"
    side = "better" if effect >= 0 else "worse"
    noise = "within noise" if verdict == "within noise" else "beyond noise"
    return f"{side} by {abs(effect):.4f}, {noise} (better by {interval[0]:+.4f} to {interval[1]:+.4f})"
