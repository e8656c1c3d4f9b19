"""How studies share one cluster: who may start a trial now. Pure: claims and a capacity in, study names out.

The cluster's devices (GPUs, or cores where a study uses none) are dealt one trial at a time: to the highest priority
first, among equals to whom has fewest. So equals hold the same number or differ by one, a study alone holds all that it
wants, and no device is idle while someone can use it. Nothing that runs is taken away: a study with more than its deal
starts nothing until its own trials have ended.

Two decisions and their price. A higher priority that wants everything gets everything, and lower ones wait for as long
as it does: whoever wants a guaranteed part should use equal priorities. And where there are more equal studies than
slots, the slot goes round, to whom has waited longest, trial by trial.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

LOWEST, HIGHEST = -100, 100
"""Priorities; 0 where nothing is said."""
Device = Literal["CPU", "GPU"]


class Claim(NamedTuple):
    """What one study says of itself."""

    study: str
    """Its key among all on the cluster: two sessions of a study are two."""
    name: str
    """What people call it."""
    priority: int
    wanted: int
    """Trials that it would run at once, those that run included."""
    held: int
    """Trials that run, or wait for Ray to place them."""
    size: Fraction
    """Devices that one trial takes; a part of one where trials share a GPU."""
    device: Device
    started: int = 0
    """When it last started a trial, in starts of all studies; 0: never."""


def deal(claims: Sequence[Claim], capacity: int) -> list[str]:
    """To whom the devices go, one study for each trial, in order; what a study holds already is among its own."""
    given: Counter[str] = Counter()
    dealt, left = [], Fraction(capacity)
    while open_still := [one for one in claims if given[one.study] < one.wanted and one.size <= left]:
        first = min(open_still, key=lambda one: _rank(one, given[one.study]))
        given[first.study] += 1
        left -= first.size
        dealt.append(first.study)
    return dealt


def _rank(claim: Claim, given: int) -> tuple[object, ...]:
    """Lower is served first. A first trial goes to whom has waited longest; an odd one stays where it is."""
    stays = claim.started if not given else -int(claim.held > given)
    return (-claim.priority, given * claim.size, stays, claim.started, claim.study)


def starters(claims: Sequence[Claim], capacity: int) -> list[str]:
    """Who may start a trial now, one study for each trial, in order.

    Devices are kept free for the first whose trial does not fit yet: smaller trials do not slip past it for ever.
    """
    covered = {one.study: one.held for one in claims}
    sizes = {one.study: one.size for one in claims}
    free = capacity - sum((one.held * one.size for one in claims), Fraction(0))
    may_start = []
    for study in deal(claims, capacity):
        if covered[study]:
            covered[study] -= 1
        elif sizes[study] > free:
            break
        else:
            free -= sizes[study]
            may_start.append(study)
    return may_start


def why_it_waits(claim: Claim, claims: Sequence[Claim], capacity: int) -> str:
    """One line for a study that wants more than it holds; empty for one that does not, or that need not wait."""
    missing = claim.wanted - claim.held
    if missing <= 0 or claim.study in starters(claims, capacity):
        return ""
    waiting = f"waiting for {missing} slot{'s' if missing > 1 else ''}"
    others = [one for one in claims if one.study != claim.study and one.wanted]
    if not others:
        return f"{waiting}: the cluster has {capacity} {claim.device} just now"
    first = min(others, key=lambda one: (-one.priority, -one.held, one.study))
    said = "is first" if first.priority > claim.priority else f"holds {first.held} of its {first.wanted}"
    return f"{waiting}: study {first.name} (priority {first.priority}) {said}"
