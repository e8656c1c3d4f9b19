"""The gate: at which missing rates a challenger has been shown to be better. Pure; no model, no registry, no clock.

Every model has answered the same items under the same masks. A rate is promoted when "better by no more than the
margin" is rejected against whoever serves the rate now, and "worse by more than the non-inferiority margin" is rejected
for the further metrics and for all other rates that the router would send to the challenger: a specialist is not vetoed
by rates that it will not serve. A rate without a champion of its own asks for more than the floor and the baseline too.
All of that must hold for one rate, so its p is the largest of its parts; over rates Holm's procedure keeps the
probability of any wrong promotion below alpha.

Shape legend: K conditions, V mask seeds, N items.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import Labels
from gapwise.data.shape import DataShape
from gapwise.evaluation.contest import Difference, difference, figures, holm
from gapwise.evaluation.paired import draw_resamples
from gapwise.evaluation.routing import nearest, serving
from gapwise.spec.gate import GateSpec

FLOOR = "floor"
"""The best constant answer, by this name among the models."""


class Answers(NamedTuple):
    """What every model answered on the same items under the same masks."""

    metric: str
    conditions: list[str]
    """Missing rates, K of them."""
    models: Mapping[str, NDArray[np.float32]]
    """(K, V, N) scores or (K, V, N, C) logits by model."""
    labels: Labels
    groups: Sequence[str]
    shape: DataShape


class Comparison(NamedTuple):
    """One thing that must hold of a challenger."""

    metric: str
    rate: str
    rival: str
    allowed: float
    """The challenger must be better by more than this; below 0 it may be worse."""
    difference: Difference
    p: float


class Contest(NamedTuple):
    """One rate that a challenger asks for, and everything that must hold; the first is what it is about."""

    rate: str
    challenger: str
    comparisons: list[Comparison]

    @property
    def p(self) -> float:
        return max(one.p for one in self.comparisons)


class Verdict(NamedTuple):
    """What the gate says of a contest."""

    contest: Contest
    level: float
    """The alpha that Holm's procedure leaves for this rate; intervals use it too."""
    passed: bool


def weigh(
    answers: Answers,
    challengers: Sequence[tuple[str, str]],
    champions: Mapping[str, str],
    spec: GateSpec,
    *,
    baselines: Mapping[str, str],
    seed: int = 0,
) -> list[Verdict]:
    """A verdict for each of `challengers` (rate, model) that does not serve the rate already.

    `champions` are {rate: model}; `baselines` are late_fusion by rate. All models, and FLOOR, are among the
    answers.
    """
    compare = _comparer(answers, seed)
    now = dict(champions)
    contests = []
    for rate, challenger in challengers:
        incumbent = serving(rate, now)
        if incumbent == challenger:
            continue
        rivals = [incumbent] if incumbent is not None else []
        if rate not in now:
            rivals += [one for one in (baselines.get(rate), FLOOR) if one not in (None, challenger, incumbent)]
        found = [compare(answers.metric, rate, challenger, one, spec.margin) for one in rivals if one is not None]
        found += [compare(*one) for one in _must_not_lose(rate, challenger, now, answers, spec)]
        contests.append(Contest(rate, challenger, found))
    return _holm(contests, spec.alpha)


_Compare = Callable[[str, str, str, str, float], Comparison]


def _comparer(answers: Answers, seed: int) -> _Compare:
    mask_seeds = next(iter(answers.models.values())).shape[1]
    resamples = draw_resamples(answers.groups, mask_seeds, seed=seed)

    @cache
    def known(metric: str, model: str) -> Any:
        return figures(metric, answers.models[model], answers.labels, answers.shape, resamples)

    def compare(metric: str, rate: str, challenger: str, rival: str, allowed: float) -> Comparison:
        condition = answers.conditions.index(rate)
        found = difference(metric, known(metric, challenger), known(metric, rival), condition, resamples)
        return Comparison(metric, rate, rival, allowed, found, found.p_above(allowed))

    return compare


def _must_not_lose(
    rate: str, challenger: str, champions: dict[str, str], answers: Answers, spec: GateSpec
) -> Iterator[tuple[str, str, str, str, float]]:
    """What `compare` takes, for every metric and rate where the challenger would follow somebody."""
    for other in (rate, *_sent_there_too(rate, champions, answers.conditions)):
        incumbent = serving(other, champions)
        if incumbent is None or incumbent == challenger:
            continue
        if other != rate:
            yield answers.metric, other, challenger, incumbent, -spec.non_inferiority
        for metric, allowed in spec.also.items():
            yield metric, other, challenger, incumbent, -allowed


def _sent_there_too(rate: str, champions: dict[str, str], conditions: list[str]) -> list[str]:
    """Other rates that the router would send to the challenger if it were promoted at this one alone."""
    after = {*champions, rate}
    return [other for other in conditions if other != rate and nearest(other, after) == rate]


def _holm(contests: list[Contest], alpha: float) -> list[Verdict]:
    levels = holm([contest.p for contest in contests], alpha)
    return [Verdict(contest, *level) for contest, level in zip(contests, levels, strict=True)]
