"""Early stopping that needs no state of its own: every verdict follows from the epochs in the journal.

A trial is judged by the best objective it had up to an epoch, because the best epoch is what it will be known by.
*ASHA* (Li et al. 2020) compares at rungs: `min_epochs`, then each `reduction` times the one before. *Hyperband* (Li et
al. 2018) deals trials to brackets whose first rung is later and later, each an ASHA of its own, against the risk that
early epochs say little. *Median* (Golovin et al. 2017) compares at every epoch from `min_epochs` on. But for the first
there is no rung past the middle of a training: what is left then is cheaper to finish than to throw away (ours).

What a driver that died had told but not heard is judged when it is told again, on what is known by then.
"""

import hashlib
from bisect import bisect_left, insort

from gapwise.spec.search import PrunerSpec

_MEDIAN_NEEDS = 4
"""Other trials at an epoch before their median means anything."""


class Pruning:
    """The trials of one arm: costs go in as they are told, verdicts come out."""

    def __init__(self, spec: PrunerSpec, epochs: int) -> None:
        self._spec = spec
        self._brackets = brackets(spec, epochs)
        self._best: dict[int, float] = {}
        self._told: dict[int, int] = {}
        self._apart: set[int] = set()
        self._reached: dict[tuple[int, int], list[float]] = {}
        self._own: dict[int, dict[tuple[int, int], float]] = {}

    def set_apart(self, number: int) -> None:
        """From now on others are not compared with this trial, though it is with them."""
        for (bracket, epoch), own in self._own.pop(number, {}).items():
            self._reached[bracket, epoch].remove(own)
        self._apart.add(number)

    def tell(self, number: int, epoch: int, cost: float) -> None:
        """Note the objective of a trial's epoch; epochs come in order, and one told before is not counted again."""
        if epoch <= self._told.get(number, 0):
            return
        self._told[number] = epoch
        best = self._best[number] = min(cost, self._best.get(number, cost))
        if self._decides(number, epoch):
            rung = self._bracket(number), epoch
            costs = self._reached.setdefault(rung, [])
            if number not in self._apart:
                insort(costs, best)
                self._own.setdefault(number, {})[rung] = best

    def stops(self, number: int) -> bool:
        """Whether the trial stops at the epoch it told last."""
        epoch = self._told[number]
        if not self._decides(number, epoch):
            return False
        sorted_costs, best = self._reached[self._bracket(number), epoch], self._best[number]
        if number in self._apart:
            sorted_costs = sorted([*sorted_costs, best])
        if self._spec.name == "median":
            return _above_median(sorted_costs, best)
        survivors = max(1, len(sorted_costs) // self._spec.reduction)
        return best > sorted_costs[survivors - 1]

    def _decides(self, number: int, epoch: int) -> bool:
        return self._spec.name != "none" and epoch in self._brackets[self._bracket(number)]

    def _bracket(self, number: int) -> int:
        return bracket_of(number, self._brackets, self._spec.reduction) if self._spec.name == "hyperband" else 0


def brackets(spec: PrunerSpec, epochs: int) -> list[list[int]]:
    """Rungs of each bracket: Hyperband's begin a rung later each, and the last has none; other rules have one."""
    rungs = [spec.min_epochs] if spec.min_epochs < epochs else []
    if rungs and spec.name == "median":
        return [[*rungs, *range(spec.min_epochs + 1, epochs // 2 + 1)]]
    while rungs and rungs[-1] * spec.reduction <= epochs / 2:
        rungs.append(rungs[-1] * spec.reduction)
    return [rungs[first:] for first in range(len(rungs) + 1)] if spec.name == "hyperband" else [rungs]


def bracket_of(number: int, known: list[list[int]], reduction: int) -> int:
    """Dealt by the trial's number, so that each bracket gets about the same number of epochs."""
    shares = [reduction ** len(rungs) / (len(rungs) + 1) for rungs in known]
    digest = hashlib.blake2b(str(number).encode(), digest_size=8).digest()
    left = int.from_bytes(digest, "little") / 2**64 * sum(shares)
    for bracket, share in enumerate(shares):
        left -= share
        if left < 0:
            return bracket
    return len(shares) - 1


def _above_median(sorted_costs: list[float], best: float) -> bool:
    """Worse than the median of the others at the same epoch; the lower one of an even number."""
    others = len(sorted_costs) - 1
    if others < _MEDIAN_NEEDS:
        return False
    own, middle = bisect_left(sorted_costs, best), (others - 1) // 2
    return best > sorted_costs[middle if middle < own else middle + 1]
