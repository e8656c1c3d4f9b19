"""One tick: look, decide, and where it is worth it train under a lease. It may be called by anybody, as often as they
like, on any machine, and may die anywhere: the record decides, and the next call goes on from there.

What training is stands behind `Work`; what the record is behind `Store`; the decisions are `policy`'s.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from gapwise.errors import GapwiseError, StudyError, raised
from gapwise.retraining.cron import Cron
from gapwise.retraining.log import Attempt, Entry, Outcome, Owner, State, Store, fold
from gapwise.retraining.policy import (
    Drifted,
    Due,
    Facts,
    Measure,
    Missed,
    Skip,
    Train,
    Wait,
    alert,
    begun,
    due,
    forced,
    worth,
)
from gapwise.spec.schedule import ScheduleSpec

_NEWEST = 500
"""Entries that a tick reads at first."""
_TRIES = 8
"""Races that one call may lose before it gives up: somebody else is at work then."""
_log = logging.getLogger(__name__)


class LeaseLost(StudyError):
    """Somebody took this tick over; nothing may be decided in its name any more."""


class Result(NamedTuple):
    """What came of an attempt."""

    outcome: Outcome
    reason: str
    facts: dict[str, Any]
    """Ledger entry, study and whatever else the record should say."""


class Work(Protocol):
    """What a tick does to the world outside its record."""

    def facts(self) -> Facts:
        """Without loading anything heavy."""

    def drifted(self, last: Entry) -> Drifted:
        """Whether the data moved since the training of `last`."""

    def begin(self, facts: Facts, tick: datetime, reason: str) -> dict[str, Any]:
        """What the claim says: enough for another attempt, on another machine, or a later tick to do the very same."""

    def train(self, attempt: Attempt, lease: "Lease") -> Result:
        """Train, and put the result before the gate. Calls `lease.hold` before anything that others see."""

    def tell(self, event: str, body: dict[str, Any]) -> None:
        """Notify whoever wants to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """Who calls, for which schedule, with what at hand."""

    schedule: ScheduleSpec
    cron: Cron
    store: Store
    work: Work
    owner: Owner
    now: Callable[[], datetime]
    lives: Callable[[Owner], bool | None]
    """Whether a process was seen alive or gone; None where nobody can tell."""

    def state(self) -> State:
        """From the newest entries, or from all where those do not reach back to the last training and claim."""
        kept = self.store.read(_NEWEST)
        found = fold(kept)
        known = found.trained is not None and any(one.kind == "claim" for one in found.entries)
        return found if known or len(kept) < _NEWEST else fold(self.store.read())


class Ticked(NamedTuple):
    """What one call came to."""

    action: str
    """wait, skip, refit or study."""
    reason: str
    tick: datetime | None = None
    attempt: int = 0
    outcome: Outcome | None = None
    record: int | None = None
    """Number of the entry that says so; None where nothing was due."""
    facts: dict[str, Any] = {}  # noqa: RUF012  (never written to)


class Lost(Exception):
    """Somebody else wrote first: look again."""


def tick(desk: Desk, *, force: bool = False) -> Ticked:
    """Do what is due. Raises what the work raises, after it was recorded, and LeaseLost where it was taken over."""
    for _ in range(_TRIES):
        try:
            return _tick(desk, force)
        except Lost:
            continue
    return Ticked("wait", "others are writing this schedule's record all the time")


def _tick(desk: Desk, force: bool) -> Ticked:
    state, now = desk.state(), desk.now()
    running = state.running
    lives = desk.lives(running.owner) if running is not None else None
    if force:
        found = forced(state, now, desk.schedule, lives=lives)
    else:
        found = due(state, now, desk.cron, desk.schedule, lives=lives)
    if isinstance(found, Wait):
        _alert(desk)
        return Ticked("wait", found.reason)
    if found.missed is not None:
        state = _note_missed(desk, state, found.missed)
    try:
        done = _look(desk, state, found, force, left=running)
    except Lost:
        raise
    except Exception:
        _alert(desk)
        raise
    _alert(desk)
    return done


def _look(desk: Desk, state: State, found: Due, force: bool, *, left: Attempt | None) -> Ticked:
    """`left` is an attempt that died, of this tick or of one before."""
    if found.given_up:
        reason = f"{found.attempt - 1} attempts died or failed"
        return _ended(desk, state, found._replace(attempt=found.attempt - 1), Result("given up", reason, {}), "skip")
    if found.takes_over is not None:
        return _attempt(desk, state, found, found.takes_over.facts, found.takes_over.reason)
    try:
        facts = desk.work.facts()
        decision = begun(left, facts) or worth(desk.schedule, state, facts, desk.now())
        if force and not isinstance(decision, Train):
            decision = Train("forced")
        if isinstance(decision, Measure):
            assert state.trained is not None
            decision = worth(desk.schedule, state, facts, desk.now(), desk.work.drifted(state.trained))
        if isinstance(decision, Train):
            claimed = decision.claimed or desk.work.begin(facts, found.tick, decision.reason)
    except Exception as error:
        _ended(desk, state, found, Result("failed", _said(error), {}), "skip")
        raise
    if isinstance(decision, Train):
        return _attempt(desk, state, found, claimed, decision.reason)
    assert isinstance(decision, Skip)
    skipped = Result("skipped", decision.reason, {"data": facts.data, "code": facts.code})
    return _ended(desk, state, found._replace(attempt=0), skipped, "skip")


def _attempt(desk: Desk, state: State, found: Due, facts: dict[str, Any], reason: str) -> Ticked:
    expires = desk.now() + timedelta(minutes=desk.schedule.lease_minutes)
    claim = _entry(
        desk, state, kind="claim", tick=found.tick, attempt=found.attempt, expires=expires, reason=reason, facts=facts
    )
    state = _write(desk, state, claim)
    running = Attempt(found.tick, found.attempt, claim.sequence, desk.owner, expires, facts, reason)
    lease = Lease(desk, running)
    try:
        with lease.kept_alive():
            result = desk.work.train(running, lease)
    except (LeaseLost, KeyboardInterrupt):
        lease.refuse_lost()
        raise
    except Exception as error:
        _close(desk, lease, found, Result("failed", _said(error), facts))
        raise
    return _close(desk, lease, found, result._replace(facts={**facts, **result.facts}))


def _said(error: Exception) -> str:
    """In a line; Ray wraps what its workers raised."""
    cause = raised(error)
    return str(cause) if isinstance(cause, GapwiseError) else f"{type(cause).__name__}: {cause}".splitlines()[0]


def _close(desk: Desk, lease: "Lease", found: Due, result: Result) -> Ticked:
    """The end of an attempt, which only its owner may write."""
    while True:
        state = lease.hold()
        try:
            return _ended(desk, state, found, result, desk.schedule.mode.kind)
        except Lost:
            continue


def _ended(desk: Desk, state: State, found: Due, result: Result, action: str) -> Ticked:
    entry = _entry(
        desk,
        state,
        kind="end",
        tick=found.tick,
        attempt=found.attempt,
        outcome=result.outcome,
        reason=result.reason,
        facts=result.facts,
    )
    _write(desk, state, entry)
    if result.outcome != "skipped":
        desk.work.tell(result.outcome, entry.model_dump(mode="json"))
    return Ticked(action, result.reason, found.tick, found.attempt, result.outcome, entry.sequence, result.facts)


def _note_missed(desk: Desk, state: State, missed: Missed) -> State:
    reason = f"{missed.ticks} ticks that nobody looked at; the latest is caught up with"
    facts = {"count": missed.ticks}
    entry = _entry(desk, state, kind="missed", tick=missed.first, last=missed.last, reason=reason, facts=facts)
    return _write(desk, state, entry)


def _alert(desk: Desk) -> None:
    """Whatever goes wrong here must not change what the tick came to."""
    try:
        state, now = desk.state(), desk.now()
        words = alert(state, now, desk.cron, desk.schedule)
        if words:
            entry = _entry(desk, state, kind="alert", tick=now, reason=words)
            _write(desk, state, entry)
            desk.work.tell("alert", entry.model_dump(mode="json"))
    except Lost:
        return  # whoever wrote first looks as well
    except GapwiseError as error:
        _log.warning("no alert could be looked for: %s", error)


def _entry(desk: Desk, state: State, **fields: Any) -> Entry:
    return Entry(sequence=state.last_number + 1, time=desk.now(), owner=desk.owner, **fields)


def _write(desk: Desk, state: State, entry: Entry) -> State:
    """The state after it. Raises Lost where the number went to somebody else.

    A request without an answer may have been carried out, and one that was repeated unheard twice: the store knows.
    """
    text = entry.text()
    try:
        number = desk.store.append(text)
    except GapwiseError:
        number = None
        if (entry.sequence, text) not in desk.store.read(_NEWEST):
            raise
    if number != entry.sequence and (entry.sequence, text) not in desk.store.read(_NEWEST):
        raise Lost
    return State([*state.entries, entry], entry.sequence)


class Lease:
    """The right to act for a tick, for as long as its owner gives signs of life and nobody took it over."""

    def __init__(self, desk: Desk, running: Attempt) -> None:
        self._desk, self._running = desk, running
        self._lock = threading.Lock()
        self._lost = False

    def hold(self) -> State:
        """Raises LeaseLost where somebody else has the tick now."""
        state = self._desk.state()
        now = state.running
        if now is None or now.token != self._running.token:
            self._lost = True
            self.refuse_lost(now)
        return state

    def refuse_lost(self, now: Attempt | None = None) -> None:
        """Raises LeaseLost where that has been found out."""
        if self._lost:
            by = f"attempt {now.number}, {now.owner.who}" if now is not None else "somebody else"
            raise LeaseLost(
                f"its lease was taken over by {by}; this process decides nothing any more",
                where=f"attempt {self._running.number} of the tick of {self._running.tick.isoformat()}",
            )

    def renew(self) -> None:
        """A sign of life. Raises LeaseLost."""
        with self._lock:
            while True:
                state = self.hold()
                expires = self._desk.now() + timedelta(minutes=self._desk.schedule.lease_minutes)
                running = self._running
                entry = _entry(
                    self._desk, state, kind="renew", tick=running.tick, attempt=running.number, expires=expires
                )
                try:
                    _write(self._desk, state, entry)
                except Lost:
                    continue
                return

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renewed every third of its length by a thread of its own; the main thread hears of a loss as of Ctrl-C."""
        stop = threading.Event()
        thread = threading.Thread(target=self._keep, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(self._desk.schedule.lease_minutes * 60 / 3):
            try:
                self.renew()
            except LeaseLost:
                os.kill(os.getpid(), signal.SIGINT)  # runs finish their epoch and keep a checkpoint
                return
            except Exception as error:  # noqa: BLE001 - the server is away: the lease may outlast that
                _log.warning("the lease was not renewed: %s", error)
