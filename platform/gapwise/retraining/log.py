"""A schedule's record, which is its lock too: numbered entries, and what they add up to. Pure; kept by MLflow.

Who writes an entry says which number it means to have; the store gives each number once. An entry that got another one
lost against somebody who was faster, and counts for nothing. So of two that claim a tick one has it, a claim is a lease
with the number as its fencing token, and whoever was taken over finds out when it next writes.
"""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

FORMAT_VERSION = 1
AHEAD = timedelta(days=1)
"""A record from further in the future than this was made by a clock that was wrong; from less, by one that was set back
a little, and it still counts."""

Kind = Literal["claim", "renew", "end", "missed", "alert"]
Outcome = Literal["promoted", "held", "skipped", "failed", "given up"]
SUCCESS: tuple[Outcome, ...] = ("promoted", "held", "skipped")


class Owner(BaseModel):
    """The process that holds a lease."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    who: str
    """User and host, for people."""
    machine: str
    """Identity of the running system and its process namespace: another process there can tell whether it lives."""
    process: int


class Entry(BaseModel):
    """One thing that happened to a schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    sequence: int
    """The number that its writer meant it to have."""
    time: AwareDatetime
    """By its writer's clock."""
    kind: Kind
    """claim and renew: an attempt is running. end: how it ended, or why the tick was skipped without one. missed: ticks
    that nobody looked at. alert: there was no success for too long."""
    tick: AwareDatetime
    """When it was due; of missed ticks the first."""
    last: AwareDatetime | None = None
    """Of missed ticks the last."""
    attempt: int = 0
    """1, 2, ... of this tick; 0 where none was made."""
    owner: Owner
    expires: AwareDatetime | None = None
    """Of a claim or its renewal."""
    outcome: Outcome | None = None
    """Of an end."""
    reason: str = ""
    facts: dict[str, Any] = {}
    """Fingerprints, study, action, ledger entry."""

    def text(self) -> str:
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))


class Store(Protocol):
    """Where entries are kept."""

    def read(self, newest: int | None = None) -> list[tuple[int, str]]:
        """(number, text) in order, all or only the newest so many."""

    def append(self, text: str) -> int:
        """Keep an entry; returns the number it was given."""


class Attempt(NamedTuple):
    """Who is, or was last seen, running a tick."""

    tick: datetime
    number: int
    token: int
    """Number of its claim."""
    owner: Owner
    expires: datetime
    facts: dict[str, Any]
    reason: str


class State(NamedTuple):
    """What the entries add up to."""

    entries: list[Entry]
    """Those that count, in order."""
    last_number: int

    @property
    def running(self) -> Attempt | None:
        """The newest claim that has not ended, whether or not its lease holds."""
        since = next((at for at in reversed(range(len(self.entries))) if self.entries[at].kind == "claim"), None)
        if since is None:
            return None
        claim = self.entries[since]
        if any(one.last is not None and one.tick <= claim.tick <= one.last for one in self.entries[since:]):
            return None  # it died, and was noted as missed when the next one was due
        own = [one for one in self.entries[since:] if (one.tick, one.attempt) == (claim.tick, claim.attempt)]
        if own[-1].kind == "end":
            return None
        expires = own[-1].expires
        assert expires is not None
        return Attempt(claim.tick, claim.attempt, claim.sequence, claim.owner, expires, claim.facts, claim.reason)

    @property
    def ends(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == "end"]

    @property
    def trained(self) -> Entry | None:
        """The newest end of an attempt that trained to a decision."""
        return next((one for one in reversed(self.ends) if one.outcome in ("promoted", "held")), None)

    def attempts(self, tick: datetime) -> int:
        """Made of this tick so far."""
        return max((entry.attempt for entry in self.entries if entry.tick == tick), default=0)

    def failures(self, tick: datetime) -> list[Entry]:
        """Attempts of this tick that came to an end without success."""
        return [one for one in self.ends if one.tick == tick and one.outcome == "failed"]

    def answered(self, tick: datetime, now: datetime) -> bool:
        """Whether nothing is left to do about a tick: it ended well, was given up, or was noted as missed.

        What a clock far ahead of `now` noted as missed may still come.
        """
        for entry in self.entries:
            if entry.kind == "end" and entry.tick == tick and entry.outcome != "failed":
                return True
            if entry.last is not None and entry.tick <= tick <= entry.last and entry.time <= now + AHEAD:
                return True
        return False

    def passed(self, tick: datetime, now: datetime) -> bool:
        """Whether somebody looked at a later one, so that this one is caught up with."""
        looked = (one for one in self.entries if one.kind in ("claim", "end") and one.time <= now + AHEAD)
        return any(one.tick > tick for one in looked)

    def newest_tick(self, now: datetime) -> datetime | None:
        """The newest due instant up to `now` that is spoken of."""
        spoken = [entry.last or entry.tick for entry in self.entries if entry.kind != "alert"]
        return max((tick for tick in spoken if tick <= now), default=None)


def fold(kept: Iterable[tuple[int, str]]) -> State:
    """Entries that lost a race, or that nobody can read, count for nothing but their number."""
    entries, last = [], 0
    for number, text in sorted(kept):
        last = number
        entry = _parsed(text)
        if entry is not None and entry.sequence == number and entry.format_version <= FORMAT_VERSION:
            entries.append(entry)
    return State(entries, last)


@lru_cache(maxsize=4096)  # `serve` and renewals read the same entries again and again
def _parsed(text: str) -> Entry | None:
    try:
        return Entry.model_validate_json(text)
    except ValidationError:
        return None
