"""What a tick is to do: from the record, the time and the schedule to a decision. Pure; `tick` carries it out.

Two questions. *Is anything due?* The latest due instant counts, those before it that nobody looked at are missed and
noted so. *Is it worth training?* By what changed since the last training that came to a decision. Time may jump:
nothing is done twice because a clock went back, and what a clock far ahead noted does not hold later ticks up.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from gapwise.retraining.cron import Cron
from gapwise.retraining.log import AHEAD, SUCCESS, Attempt, State
from gapwise.spec.schedule import ScheduleSpec

SKEW = timedelta(minutes=2)
"""How far two machines' clocks may differ before one takes the other's lease for expired too early."""
_MOST_MISSED = 10_000
"""Missed ticks that are counted; beyond it their number is a lower bound."""
_DEATHS = 4
"""So many times `attempts` a tick may be begun in all: deaths and interruptions are no failures, but not for ever."""


_BEGUN = "; begun by the tick of"


class Wait(NamedTuple):
    """There is nothing to do now."""

    reason: str


class Missed(NamedTuple):
    """Due instants that nobody looked at."""

    first: datetime
    last: datetime
    ticks: int


class Due(NamedTuple):
    """A tick to look at."""

    tick: datetime
    attempt: int
    missed: Missed | None = None
    takes_over: Attempt | None = None
    """The attempt whose lease ended without an end: what it began is continued."""
    given_up: bool = False
    """No attempt is left."""


def due(state: State, now: datetime, cron: Cron, schedule: ScheduleSpec, *, lives: bool | None) -> Wait | Due:
    """`lives`: whether the process that holds the lease was seen alive or gone; None where nobody can see it."""
    running = state.running
    if running is not None and _holds(running, now, schedule, lives):
        return Wait(_busy(running))
    tick = cron.latest(now)
    if tick is None:
        return Wait("it was never due yet")
    if running is not None and running.tick >= tick:
        tick = running.tick  # a forced one, or one of a clock that went back
    if state.answered(tick, now) or state.passed(tick, now):
        return Wait(
            f"the tick of {_minutes(tick)} is done, or a later one was looked at; next {_minutes(cron.next(now))}"
        )
    attempts, failures = state.attempts(tick), state.failures(tick)
    given_up = len(failures) >= schedule.attempts or attempts >= _DEATHS * schedule.attempts
    again = failures[-1].time + timedelta(minutes=schedule.retry_minutes) if failures else now
    if not given_up and now < again <= now + timedelta(minutes=schedule.retry_minutes):
        return Wait(f"attempt {attempts} of the tick of {_minutes(tick)} failed; the next from {_minutes(again)}")
    takes_over = running if running is not None and running.tick == tick else None
    return Due(tick, attempts + 1, _missed(state, tick, now, cron), takes_over, given_up)


def forced(state: State, now: datetime, schedule: ScheduleSpec, *, lives: bool | None) -> Wait | Due:
    """A tick of this very second, due or not; what is running is waited for all the same."""
    running = state.running
    if running is not None and _holds(running, now, schedule, lives):
        return Wait(_busy(running))
    tick = now.replace(microsecond=0)
    return Due(tick, state.attempts(tick) + 1)


def _holds(running: Attempt, now: datetime, schedule: ScheduleSpec, lives: bool | None) -> bool:
    """A process that is seen alive was only suspended, or its tracking server away: it gets time for its next sign.

    A lease that ends further in the future than one can was taken by a clock that has been set back since.
    """
    lease = timedelta(minutes=schedule.lease_minutes)
    if lives is False or running.expires - now > lease + AHEAD:
        return False
    return now <= running.expires + SKEW + (lease / 2 if lives else timedelta())


def _busy(running: Attempt) -> str:
    return (
        f"attempt {running.number} of the tick of {_minutes(running.tick)} is running: {running.owner.who},"
        f" process {running.owner.process}, lease until {_minutes(running.expires)}"
    )


def _missed(state: State, tick: datetime, now: datetime, cron: Cron) -> Missed | None:
    """Between the newest tick that the record speaks of and this one; none before the first."""
    before = state.newest_tick(now)
    if before is None or before >= tick:
        return None
    between = cron.between(before, tick, _MOST_MISSED)
    if state.running is not None and state.running.tick == before:
        between = [before, *between]  # it died, and nobody took it over in time
    if not between:
        return None
    latest = cron.latest(tick - timedelta(seconds=1)) if len(between) == _MOST_MISSED else None
    return Missed(between[0], latest or between[-1], len(between))


class Facts(NamedTuple):
    """What can be known without training, or loading anything heavy."""

    data: str
    """Fingerprint of the data as it is."""
    code: str
    """Fingerprint of gapwise and of what the schedule asks for."""


class Drifted(NamedTuple):
    """What was measured, where that was asked for."""

    reasons: tuple[str, ...]
    """In words, of each test that rejected; none where none did."""
    said: str
    """What was looked at, in words."""


class Skip(NamedTuple):
    """The tick is done, and nothing was trained."""

    reason: str


class Train(NamedTuple):
    reason: str
    claimed: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    """Of an earlier tick that began the very same and died: it is continued."""


class Measure(NamedTuple):
    """The data changed, which is not reason enough here: whether they drifted decides."""


def begun(left: Attempt | None, facts: Facts) -> Train | None:
    """What an attempt that died left half done, where data and code are what they were: whoever is next finishes it."""
    if left is None or (left.facts.get("data"), left.facts.get("code")) != facts:
        return None
    reason = left.reason.partition(_BEGUN)[0]
    return Train(f"{reason}{_BEGUN} {_minutes(left.tick)}, which died", left.facts)


def worth(
    schedule: ScheduleSpec, state: State, facts: Facts, now: datetime, drifted: Drifted | None = None
) -> Skip | Train | Measure:
    """Whether a due tick trains. Ask again with `drifted` where it says Measure."""
    triggers, last = schedule.triggers, state.trained
    if last is None:
        return Train("nothing was trained by this schedule yet")
    changed = facts.data != last.facts.get("data")
    if triggers.new_data and changed:
        return Train("the data changed")
    if triggers.code and facts.code != last.facts.get("code"):
        return Train("gapwise, or what the schedule asks for, changed")
    age = (now - last.time).total_seconds() / 86400
    if triggers.max_age_days is not None and age > triggers.max_age_days:
        return Train(f"the last training is {age:.1f} days old, more than {triggers.max_age_days:g}")
    if not changed:
        return Skip("data and code are unchanged")
    if triggers.input_drift is None and triggers.error_drift is None:
        return Skip("the data changed, which is no trigger of this schedule")
    if drifted is None:
        return Measure()
    return (
        Train("; ".join(drifted.reasons))
        if drifted.reasons
        else Skip(f"the data changed and did not drift: {drifted.said}")
    )


def without_success(state: State, now: datetime, cron: Cron, most: int) -> int:
    """Due instants up to `now`, at most so many, since the last success; 0 for a schedule that never ran."""
    good = [one.tick for one in state.ends if one.outcome in SUCCESS and one.tick <= now]
    first = max(good) if good else min((one.tick for one in state.entries if one.tick <= now), default=None)
    if first is None:
        return 0
    return len(cron.between(first, now + timedelta(seconds=1), most)) + (0 if good else 1)


def alert(state: State, now: datetime, cron: Cron, schedule: ScheduleSpec) -> str:
    """In words, what nobody has been told of yet; empty where there is nothing."""
    periods = without_success(state, now, cron, schedule.alert_after)
    if periods < schedule.alert_after:
        return ""
    for entry in reversed(state.entries):
        if entry.kind == "alert":
            return ""
        if entry.kind == "end" and entry.outcome in SUCCESS:
            break
    return f"no success in the last {periods} ticks or more"


def _minutes(instant: datetime) -> str:
    return instant.isoformat(timespec="minutes").replace("+00:00", "Z")
