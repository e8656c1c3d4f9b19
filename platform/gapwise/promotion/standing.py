"""Who serves what: the ledger says so, and the registry's aliases follow it.

A decision is an entry first; aliases and tags move after it. Who dies in between leaves an entry that the next command
carries out, because every one of them begins with `settled`. So nothing is ever half-promoted for longer than that.
"""

import getpass
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gapwise.errors import GateError, RegistryError
from gapwise.promotion.chain import Entry, Head, Kept, Ledger, Move, read
from gapwise.tracking import aliases, ledger, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.router_model import ensure_router

_CITES = "ledger"
"""The fact in a champion's tags that cites its entry."""


class Standing(NamedTuple):
    """A registered name at one moment."""

    name: str
    aliases: dict[str, str]
    """{alias: version}, a person's own among them."""
    ledger: Ledger

    @property
    def champions(self) -> dict[str, str]:
        """{rate: version}, by ascending rate."""
        return aliases.champions(self.aliases)


class Deed(NamedTuple):
    """What somebody decided, before it has a place in the ledger."""

    action: str
    moves: list[Move]
    aliases: dict[str, str | None]
    facts: dict[str, Any]
    run_id: str | None = None
    """Of the run that keeps the report."""


def standing(tracking: Tracking, name: str, expect: str = "") -> Standing:
    """As it is, with whatever is wrong in the ledger's `problems`. A name that does not exist has nothing."""
    named = registry.aliases_if_any(tracking, name) or {}
    cited = {}
    for version in {one for alias, one in named.items() if aliases.rate_of(alias) is not None}:
        facts = registry.version_of(tracking, name, version).facts
        if _CITES in facts:
            cited[version] = Head(**facts[_CITES])
    return Standing(name, named, read([Kept(*one) for one in ledger.kept(tracking, name)], cited, expect))


def settled(tracking: Tracking, name: str) -> Standing:
    """The same after every alias is what the ledger says. Raises GateError for a ledger that does not hold."""
    found = standing(tracking, name)
    if found.ledger.problems:
        raise GateError(
            f"the ledger does not hold: {found.ledger.problems[0]}",
            where=f"ledger of {name!r}",
            allowed=f"see `gapwise registry history {name} --verify`",
        )
    if not found.ledger.entries:
        return found
    wanted = found.ledger.aliases
    ours = {alias: one for alias, one in found.aliases.items() if aliases.ours(alias)}
    _cite(tracking, name, found.ledger.entries[-1])
    _name(tracking, name, ours, wanted)
    with _half_way(name):
        ensure_router(tracking, name)
    own = {alias: one for alias, one in found.aliases.items() if not aliases.ours(alias)}
    return found._replace(aliases=own | wanted)


def record(tracking: Tracking, now: Standing, deed: Deed) -> Entry:
    """Write the entry, then carry it out. Raises GateError where somebody else was faster: nothing has moved then."""
    inherited = {} if now.ledger.entries else {a: v for a, v in now.aliases.items() if aliases.ours(a)}
    entry = Entry(
        sequence=now.ledger.last_number + 1,
        follows=now.ledger.head.digest,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        who=f"{getpass.getuser()}@{socket.gethostname()}",
        action=deed.action,
        moves=deed.moves,
        aliases={**inherited, **deed.aliases},
        facts=deed.facts,
    )
    number = ledger.append(tracking, now.name, entry.text(), entry.digest, deed.run_id)
    if number != entry.sequence:
        first = standing(tracking, now.name).ledger.entries[-1]
        raise GateError(
            f"{first.who} decided first ({first.action}, entry {first.sequence}); nothing was changed",
            where=f"ledger of {now.name!r}",
            allowed="the same command again, on what is there now",
        )
    _cite(tracking, now.name, entry)
    _name(tracking, now.name, {a: v for a, v in now.aliases.items() if aliases.ours(a)}, _after(now, entry))
    with _half_way(now.name, entry):
        ensure_router(tracking, now.name)
    return entry


def _after(now: Standing, entry: Entry) -> dict[str, str]:
    changed = {**now.ledger.aliases, **entry.aliases}
    return {alias: version for alias, version in changed.items() if version is not None}


def _cite(tracking: Tracking, name: str, entry: Entry) -> None:
    with _half_way(name, entry):
        cited = {"sequence": entry.sequence, "digest": entry.digest}
        for version in {move.after for move in entry.moves if move.after is not None}:
            if registry.version_of(tracking, name, version).facts.get(_CITES) != cited:
                registry.note(tracking, name, version, _CITES, cited)


def _name(tracking: Tracking, name: str, present: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    with _half_way(name):
        for alias, version in wanted.items():
            if present.get(alias) != version:
                registry.set_alias(tracking, name, alias, version)
        for alias in present.keys() - wanted.keys():
            registry.delete_alias(tracking, name, alias)


@contextmanager
def _half_way(name: str, entry: Entry | None = None) -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        what = "the decision is in the ledger" if entry is not None else "the ledger is ahead of the aliases"
        raise RegistryError(
            f"{what}, and then: {error.what}",
            where=f"registered model {name!r}",
            allowed="the next gapwise command on this name carries it out",
        ) from error
