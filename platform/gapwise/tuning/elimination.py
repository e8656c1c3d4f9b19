"""Who is out of the race for a rate, and how probable it is that a configuration is really the best one. Pure.

A configuration is dropped at a condition when it is worse than the leader there beyond doubt. Searched arms race among
themselves and the baseline among its own, so every condition keeps a leader of each side, with all its seeds. Doubt has
two sources. Items: the paired bootstrap over validation groups and mask seeds (`evaluation.paired`), with G - 1 degrees
of freedom. Training seeds: two or three of them cannot be resampled honestly (two against two are separated by chance
in one case of three), so their variance is estimated, pooled over the configurations of an arm, and the two are joined
in a Student t with Welch and Satterthwaite's degrees of freedom. A configuration whose own seeds scatter more than the
pool keeps its own variance: two seeds can agree by luck.

`confidence` is for the one that is truly best at a condition: it is dropped there with probability 1 - confidence at
most, over all comparisons and all rounds of the race (Bonferroni over both). Of two equal ones, one is dropped about
that often: 5 to 6 % of simulated worlds at .95. Where each arm has one configuration and two seeds, and one arm's seeds
scatter ten times as much as the other's, it is 14 % (the noisy one: 8 %), and 7 % with three seeds: `min_seeds: 3` is
for such models.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from gapwise.evaluation.metrics import Real
from gapwise.evaluation.objective import as_cost
from gapwise.evaluation.paired import drawn
from gapwise.spec.search import BASELINE, SecondPhaseSpec
from gapwise.tuning.assignment import Finished

Configuration = tuple[str, int]
"""Arm, and the searched trial that it comes from."""
Dropped = Mapping[Configuration, Mapping[str, int]]
"""{configuration: {condition: after how many seeds}}"""
Chances = Mapping[str, Mapping[Configuration, float]]
"""{condition: {configuration: probability of being the best}}"""
Resampled = Mapping[str, Real]
"""{key of a run: (K, B) figures on the resamples}; a run whose predictions are not there has none."""


class Seeds(NamedTuple):
    """A configuration over its finished seeds, as costs."""

    number: int
    cost: Real
    """(K,): mean over seeds."""
    variance: Real
    """(K,): between seeds; NaN for one seed."""
    resampled: Real | None
    """(S, K, B): every seed on the resamples; None where predictions are missing."""


def gather(runs: Sequence[Finished], resampled: Resampled, metric: str) -> dict[Configuration, Seeds]:
    """Every configuration with a finished run, in an order that does not depend on who ended first."""
    grouped: dict[Configuration, list[Finished]] = {}
    for run in sorted(runs, key=lambda one: one.assignment.key):
        if run.outcome.eligible:
            grouped.setdefault((run.assignment.arm, run.assignment.source), []).append(run)
    return {one: _seeds(grouped[one], resampled, metric) for one in sorted(grouped)}


def _seeds(runs: list[Finished], resampled: Resampled, metric: str) -> Seeds:
    cost_SK = np.array([[as_cost(metric, value) for value in run.outcome.metrics[metric].values()] for run in runs])
    known = [resampled[run.assignment.key] for run in runs if run.assignment.key in resampled]
    return Seeds(
        number=len(runs),
        cost=cost_SK.mean(0),
        variance=cost_SK.var(0, ddof=1) if len(runs) > 1 else np.full(cost_SK.shape[1], np.nan),
        resampled=as_cost(metric, 1.0) * np.stack(known) if len(known) == len(runs) else None,
    )


class Variance(NamedTuple):
    """Of a mean, with the degrees of freedom of its estimate."""

    value: float
    freedom: int


class Round(NamedTuple):
    """The race when everyone has run the same number of seeds."""

    seeds: int
    groups: int
    """Validation groups that were resampled."""
    conditions: list[str]
    found: Mapping[Configuration, Seeds]
    """Of these seeds alone."""

    def drop(self, phase: SecondPhaseSpec, dropped: Dropped) -> Dropped:
        """`dropped`, and those that are now worse than the leader of their side beyond doubt."""
        now = {one: dict(where) for one, where in dropped.items()}
        for side in (False, True):
            members = [one for one in self.found if (one[0] == BASELINE) == side]
            level = (1 - phase.confidence) / max(1, len(members) * (phase.seeds - phase.min_seeds))
            for k, condition in enumerate(self.conditions):
                racing = [one for one in members if condition not in dropped.get(one, {})]
                for one in self.beaten(racing, k, level):
                    now.setdefault(one, {})[condition] = self.seeds
        return now

    def beaten(self, racing: Sequence[Configuration], k: int, level: float) -> list[Configuration]:
        """Those whose p-value of being no worse than the leader is at most `level`. The leader is never among them.

        Nor is anyone, while predictions are missing or all of validation is one group: nothing is known of the doubt.
        """
        if not racing or self.groups < 2:
            return []
        leader = min(racing, key=lambda one: (self.found[one].number < self.seeds, self.found[one].cost[k]))
        return [one for one in racing if one != leader and self.p_value(one, leader, k) <= level]

    def p_value(self, one: Configuration, leader: Configuration, k: int) -> float:
        """One-sided, of "no worse than the leader"; 1 where predictions are missing, NaN where nothing is known."""
        its, best = self.found[one], self.found[leader]
        if its.resampled is None or best.resampled is None:
            return 1.0
        difference = its.resampled[:, k].mean(0) - best.resampled[:, k].mean(0)
        items = Variance(float(difference.var(ddof=1)), self.groups - 1)
        parts = [items, self.between_seeds(one, k), self.between_seeds(leader, k)]
        return student_p(float(its.cost[k] - best.cost[k]), parts)

    def between_seeds(self, one: Configuration, k: int) -> Variance:
        """Of a configuration's mean: from the scatter of its arm's seeds, or from its own where that is larger."""
        its = self.found[one]
        alike = [other for (arm, _), other in self.found.items() if arm == one[0] and other.number > 1]
        freedom = sum(other.number - 1 for other in alike)
        squares = sum(float(other.variance[k]) * (other.number - 1) for other in alike)
        if not freedom:
            return Variance(math.nan, 1)
        return Variance(float(np.fmax(its.variance[k], squares / freedom)) / its.number, freedom)

    def chances(self, *, seed: int) -> Chances:
        """How often each configuration has the best mean on resampled groups, mask seeds and training seeds.

        Training seeds are resampled for each configuration by itself: equal numbers do not make them alike. Empty where
        one lacks predictions, for a share among the others would be no probability of being best, and where all of
        validation is one group.
        """
        means = [_with_seeds_drawn(one, its, seed) for one, its in self.found.items() if its.resampled is not None]
        if not means or len(means) < len(self.found) or self.groups < 2:
            return {}
        cost_CKB = np.nan_to_num(np.stack(means), nan=np.inf)
        best_CKB = cost_CKB == cost_CKB.min(0)
        share_CK = (best_CKB / best_CKB.sum(0)).mean(2)
        rows = (dict(zip(self.found, share_K.tolist(), strict=True)) for share_K in share_CK.T)
        return dict(zip(self.conditions, rows, strict=True))


def student_p(difference: float, parts: Sequence[Variance]) -> float:
    """One-sided p-value of "no more than 0" for a difference whose variance is a sum of estimated ones.

    Degrees of freedom are Welch and Satterthwaite's. NaN where nothing varies or a part is not known.
    """
    whole = sum(part.value for part in parts)
    if not whole > 0:
        return math.nan
    freedom = whole**2 / sum(part.value**2 / part.freedom for part in parts)
    return float(stdtr(freedom, -difference / math.sqrt(whole)))


def _with_seeds_drawn(one: Configuration, its: Seeds, seed: int) -> Real:
    """(K, B): the mean over training seeds that are drawn anew on every resample."""
    assert its.resampled is not None
    counts_BS = drawn(its.number, its.resampled.shape[2], seed=seed, purpose=f"resampled seeds of {one[0]}-{one[1]}")
    mean_KB: Real = np.einsum("skb,bs->kb", its.resampled, counts_BS / counts_BS.sum(1, keepdims=True))
    return mean_KB
