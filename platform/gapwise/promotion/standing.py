"""Who serves what: the ledger says so, and the registry's aliases follow it.

A decision is an entry first; citations, aliases and the router move after it. Who dies in between leaves an entry that
the next command which changes something (promote, rollback, approve, copy) carries out, because each of them begins
with `settled`. So do the descriptions that MLflow's UI shows beside the name and its versions.
"""

import logging
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gapwise.errors import GateError, RegistryError
from gapwise.promotion.chain import Entry, Head, Kept, Ledger, Move, read
from gapwise.promotion.described import is_ours, of_name, of_version
from gapwise.spec.home import who
from gapwise.tracking import aliases, ledger, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.router_model import ensure_router

_CITES = "ledger"
"""The fact in a champion's tags, and in the registered model's, that cites an entry."""
_log = logging.getLogger(__name__)


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

    def drift(self) -> list[str]:
        """Where aliases are not as the ledger says, in words: a command died half-way, or a person moved one."""
        if not self.ledger.entries:
            return []
        wanted, present = self.ledger.aliases, {a: v for a, v in self.aliases.items() if aliases.ours(a)}
        return [
            f"{alias} names {_version(present.get(alias))}, and by the ledger {_version(wanted.get(alias))}"
            for alias in sorted(wanted.keys() | present.keys())
            if wanted.get(alias) != present.get(alias)
        ]


def _version(number: str | None) -> str:
    return "nobody" if number is None else f"version {number}"


class Deed(NamedTuple):
    """What somebody decided, before it has a place in the ledger."""

    action: str
    moves: list[Move]
    aliases: dict[str, str | None]
    facts: dict[str, Any]
    run_id: str = ""
    """Of the run that keeps the report; `announce.done` makes one where there is no report."""


def standing(tracking: Tracking, name: str, expect: str = "") -> Standing:
    """As it is, with whatever is wrong in the ledger's `problems`. A name that does not exist has nothing."""
    named = registry.aliases_if_any(tracking, name) or {}
    cited: dict[str, Any] = {
        f"version {one.version}": one.facts.get(_CITES) for one in registry.versions(tracking, name)
    }
    cited[f"registered model {name!r}"] = registry.noted(tracking, name, _CITES)
    heads = {who: _head(cite) for who, cite in cited.items() if cite is not None}
    return Standing(name, named, read([Kept(*one) for one in ledger.kept(tracking, name)], heads, expect))


def _head(cite: Any) -> Head:
    """One that nobody has, where the citation itself cannot be read."""
    try:
        return Head(int(cite["sequence"]), str(cite["digest"]))
    except (KeyError, TypeError, ValueError):
        return Head(-1, "")


def settled(tracking: Tracking, name: str, *, repair: bool = True) -> Standing:
    """The same with every alias as the ledger says, in the registry too where `repair`.

    An alias of a version that was deleted is let go. Raises GateError for a ledger that does not hold.
    """
    found = standing(tracking, name)
    if found.ledger.problems:
        raise GateError(
            f"the ledger does not hold: {found.ledger.problems[0]}",
            where=f"ledger of {name!r}",
            allowed=f"see `gapwise registry history {name} --verify`",
        )
    if not found.ledger.entries:
        return found
    own = {alias: one for alias, one in found.aliases.items() if not aliases.ours(alias)}
    believed = found._replace(aliases=own | _still_there(tracking, name, found.ledger.aliases))
    if repair:
        for line in found.drift():
            _log.warning("%s: %s; the ledger is believed", name, line)
        _carry_out(tracking, name, found.ledger.entries, found.aliases, believed.aliases)
    return believed


def _still_there(tracking: Tracking, name: str, wanted: dict[str, str]) -> dict[str, str]:
    known = {one.version for one in registry.versions(tracking, name)}
    return {alias: version for alias, version in wanted.items() if version in known}


def record(tracking: Tracking, now: Standing, deed: Deed) -> Entry:
    """Write the entry, then carry it out. Raises GateError where somebody else was faster: nothing has moved then."""
    inherited = {} if now.ledger.entries else {a: v for a, v in now.aliases.items() if aliases.ours(a)}
    entry = Entry(
        sequence=now.ledger.last_number + 1,
        follows=now.ledger.head.digest,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        who=who(),
        action=deed.action,
        moves=deed.moves,
        aliases={**inherited, **deed.aliases},
        facts=deed.facts,
    )
    _write(tracking, now.name, entry, deed.run_id)
    after = {**now.ledger.aliases, **entry.aliases}
    own = {alias: one for alias, one in now.aliases.items() if not aliases.ours(alias)}
    wanted = own | {alias: version for alias, version in after.items() if version is not None}
    entries = [*now.ledger.entries, entry]
    _carry_out(tracking, now.name, entries, now.aliases, own | _still_there(tracking, now.name, wanted))
    return entry


def _write(tracking: Tracking, name: str, entry: Entry, run_id: str) -> None:
    """A request without an answer may have been carried out, and one that MLflow repeated twice: the ledger knows."""
    lost: RegistryError | None = None
    try:
        if ledger.append(tracking, name, entry.text(), entry.digest, run_id) == entry.sequence:
            return
    except RegistryError as error:
        lost = error
    entries = standing(tracking, name).ledger.entries
    if any(one.digest == entry.digest for one in entries):
        return
    if lost is not None:
        raise lost
    by = (
        f"{entries[-1].who} decided first ({entries[-1].action}, entry {entries[-1].sequence})"
        if entries
        else "it is late"
    )
    raise GateError(
        f"{by}; nothing was changed",
        where=f"ledger of {name!r}",
        allowed="the same command again, on what is there now",
    )


def _carry_out(
    tracking: Tracking, name: str, entries: list[Entry], present: dict[str, str], wanted: dict[str, str]
) -> None:
    """The last entry's citations, the aliases, descriptions, the router: what is so already is left alone."""
    try:
        _cite(tracking, name, entries[-1], set(wanted.values()))
        for alias, version in wanted.items():
            if present.get(alias) != version:
                registry.set_alias(tracking, name, alias, version)
        for alias in present.keys() - wanted.keys():
            registry.delete_alias(tracking, name, alias)
        _describe(tracking, name, entries, wanted)
        ensure_router(tracking, name)
    except RegistryError as error:
        raise RegistryError(
            f"the decision is in the ledger, and then: {error.what}",
            where=f"registered model {name!r}",
            allowed="the next command that changes this name carries it out",
        ) from error


def _cite(tracking: Tracking, name: str, entry: Entry, there: set[str]) -> None:
    cited = {"sequence": entry.sequence, "digest": entry.digest}
    for version in {move.after for move in entry.moves if move.after is not None} & there:
        if registry.version_of(tracking, name, version).facts.get(_CITES) != cited:
            registry.note(tracking, name, version, _CITES, cited)
    if registry.noted(tracking, name, _CITES) != cited:
        registry.note_model(tracking, name, _CITES, cited)


def _describe(tracking: Tracking, name: str, entries: list[Entry], named: dict[str, str]) -> None:
    """What the UI says of every version and of the name, where it is ours to say and says something else."""
    versions = registry.versions(tracking, name)
    for one in versions:
        text = of_version(name, one, named, entries)
        if is_ours(one.description) and text != one.description:
            registry.describe(tracking, name, one.version, text)
    before, text = registry.description(tracking, name), of_name(name, named, versions, entries)
    if is_ours(before) and text != before:
        registry.describe_model(tracking, name, text)
