"""The ledger's chain: entries that name the one before by its digest. Pure; `tracking.ledger` keeps them in MLflow.

It shows that an entry was changed, deleted or cut off, to whoever knows a later entry or the head; it prevents nothing,
and somebody who rewrites every entry and every citation leaves no trace.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue

FORMAT_VERSION = 1
BEGINNING = "0" * 64
"""What the first entry follows."""


class Move(BaseModel):
    """One rate whose champion changes; None where there was or will be none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: str = Field(pattern=r"^[01]\.\d{1,2}$")
    before: str | None
    after: str | None


class Entry(BaseModel):
    """One decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    sequence: int
    """The number that its writer meant it to have."""
    follows: str
    """Digest of the entry before."""
    time: str
    """ISO 8601, UTC, by its writer's clock."""
    who: str
    action: str
    """promote, hold, rollback, ask, approve or copy."""
    moves: list[Move]
    aliases: dict[str, str | None]
    """What the registry's aliases name from then on; None for one that goes. Aliases that are not here stay."""
    facts: dict[str, JsonValue]
    """Digest of the gate's report, fingerprints of data and code, study, reasons."""

    @property
    def digest(self) -> str:
        return digest_of(self.text())

    def text(self) -> str:
        """As it is kept: canonical JSON."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Kept(NamedTuple):
    """An entry as it was found."""

    number: int
    """Given by the store, in the order of writing."""
    text: str
    digest: str
    """As it was noted beside the text."""


class Head(NamedTuple):
    """Where a ledger ends; a version's tags cite the one that made it champion."""

    sequence: int
    digest: str


EMPTY = Head(0, BEGINNING)


class Ledger(NamedTuple):
    """What was found, in order."""

    entries: list[Entry]
    problems: list[str]
    """In words, each naming its entry; none where the chain holds."""
    last_number: int
    """That the store has given, to entries that lost a race too."""

    @property
    def aliases(self) -> dict[str, str]:
        """What all entries together say that the registry's aliases name."""
        found: dict[str, str | None] = {}
        for entry in self.entries:
            found |= entry.aliases
        return {alias: version for alias, version in found.items() if version is not None}

    @property
    def head(self) -> Head:
        return Head(self.entries[-1].sequence, self.entries[-1].digest) if self.entries else EMPTY


def read(kept: Sequence[Kept], cited: Mapping[str, Head] | None = None, expect: str = "") -> Ledger:
    """Check the chain, and against it what others cite ({who: head}) and the digest that a person noted.

    An entry that was given another number than it meant to have lost a race against the one before, and never counted;
    it stays, so a number that nobody has was deleted.
    """
    entries: list[Entry] = []
    numbers = {one.number for one in kept}
    gone = sorted(set(range(1, max(numbers, default=0))) - numbers)
    problems = [f"entry {number} was deleted" for number in gone]
    before = BEGINNING
    for one in sorted(kept):
        if digest_of(one.text) != one.digest:
            problems.append(f"entry {one.number} was changed: its content is not that of its digest")
        entry = _parsed(one, problems)
        if entry is None:
            before = one.digest
            continue
        if entry.sequence != one.number:
            continue
        if entry.follows != before:
            problems.append(f"entry {one.number} does not follow {_last(entries)}: one between was changed or deleted")
        entries.append(entry)
        before = one.digest
    noted = {one.number: one.digest for one in kept}
    digests = {entry.sequence: noted[entry.sequence] for entry in entries}
    problems += _uncited(digests, cited or {})
    if expect and expect not in {BEGINNING, *digests.values()}:
        problems.append(f"no entry has the digest {expect}: the ledger was cut off before it, or is another one")
    return Ledger(entries, problems, max((one.number for one in kept), default=0))


def _parsed(one: Kept, problems: list[str]) -> Entry | None:
    try:
        fields: dict[str, Any] = json.loads(one.text)
        if fields.get("format_version", 0) > FORMAT_VERSION:
            problems.append(f"entry {one.number} was written by a newer gapwise")
            return None
        return Entry.model_validate(fields)
    except (ValueError, TypeError, AttributeError):
        problems.append(f"entry {one.number} cannot be read")
        return None


def _last(entries: list[Entry]) -> str:
    return f"entry {entries[-1].sequence}" if entries else "the beginning"


def _uncited(digests: Mapping[int, str], cited: Mapping[str, Head]) -> list[str]:
    """What others say of entries that are not there, or not as they were."""
    problems = []
    for who, head in sorted(cited.items()):
        if head.sequence not in digests:
            problems.append(f"entry {head.sequence} is missing: {who} cites it")
        elif digests[head.sequence] != head.digest:
            problems.append(f"entry {head.sequence} is not the one that {who} cites")
    return problems
