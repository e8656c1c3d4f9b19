"""Champions from one registry to another, such as from staging to production: decided there, cited here."""

from typing import Any, NamedTuple

import gapwise
from gapwise.errors import GateError, RegistryError
from gapwise.promotion.announce import done
from gapwise.promotion.chain import Entry, Move
from gapwise.promotion.compatible import what_changed
from gapwise.promotion.ground import refuse_other_ground
from gapwise.promotion.standing import Deed, Standing, settled, standing
from gapwise.spec.home import Home
from gapwise.tracking import aliases, ledger, registering, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.locate import locate


class Place(NamedTuple):
    """A registered name in a registry."""

    tracking: Tracking
    name: str


def copy(source: Place, target: Place, here: Home, rate: str | None) -> Entry:
    """The champions of one rate, or of all (None): artifacts, then one entry that cites the source's head.

    The source is only read. Raises RegistryError for a name or rate that it does not have, or where nothing would
    change, and GateError for a ledger of it that does not hold.
    """
    theirs = _theirs(source, rate)
    now = settled(target.tracking, target.name)
    chosen = theirs.champions if rate is None else {rate: theirs.champions[rate]}
    versions = {one: registry.version_of(source.tracking, source.name, one) for one in sorted(set(chosen.values()))}
    for one in versions.values():
        who = f"version {one.version} of {source.name!r}"
        refuse_other_ground(target.tracking, target.name, now.aliases, one.facts, who)
        _refuse_other_rows(source, one, target, now)
    made = {number: _carried(source, target, here, one) for number, one in versions.items()}
    changed: dict[str, str | None] = {}
    moves = []
    for at, number in chosen.items():
        before, after = now.champions.get(at), made[number]
        if before == after:
            continue
        moves.append(Move(rate=at, before=before, after=after))
        changed |= {aliases.champion(at): after, aliases.challenger(at): None}
        if before is not None:
            changed[aliases.previous(at)] = before
    if not moves:
        raise RegistryError("has these champions already", where=f"registered model {target.name!r}")
    facts: dict[str, Any] = {
        "source": {"uri": source.tracking.uri, "name": source.name, "head": theirs.ledger.head._asdict()},
        "reason": f"decided as entry {theirs.ledger.head.sequence} of {source.name} elsewhere",
        "code_version": gapwise.__version__,
    }
    return done(target.tracking, here, now, Deed("copy", moves, changed, facts))


def _theirs(source: Place, rate: str | None) -> Standing:
    registry.aliases(source.tracking, source.name)  # says which names there are
    found = standing(source.tracking, source.name)
    where = f"registered model {source.name!r} in {source.tracking.uri}"
    problems = found.ledger.problems or found.drift() or ([] if found.ledger.entries else ["nothing was decided there"])
    if problems:
        raise GateError(f"the ledger does not hold: {problems[0]}", where=where, allowed="champions that it stands for")
    if not found.champions or rate not in (None, *found.champions):
        missing = "no champions" if rate is None else f"no champion of rate {rate}"
        raise RegistryError(missing, where=where, allowed=found.champions or "a promoted name")
    return found


def _refuse_other_rows(source: Place, one: registry.Version, target: Place, now: Standing) -> None:
    for version in sorted(set(now.champions.values())):
        if (
            registry.version_of(target.tracking, target.name, version).facts[registry.READS]
            == one.facts[registry.READS]
        ):
            continue
        serving = locate(target.tracking, f"models:/{target.name}/{version}").shape
        changed = what_changed(serving, locate(source.tracking, f"models:/{source.name}/{one.version}").shape)
        if changed:
            raise GateError(
                f"version {one.version} of {source.name!r} reads other rows than champion version {version}: {changed}",
                where=f"registered model {target.name!r}",
                allowed="another name",
            )


def _carried(source: Place, target: Place, here: Home, one: registry.Version) -> str:
    """The version there; one with the very same files is not made twice."""
    known = registry.find_version(target.tracking, target.name, {"files": one.facts["files"]})
    if known is not None:
        return known.version
    run_id = ledger.keep_report(target.tracking, here, target.name, f"copy of version {one.version}", [])
    facts = {key: value for key, value in one.facts.items() if key != "ledger"}
    facts["copied_from"] = {"uri": source.tracking.uri, "name": source.name, "version": one.version}
    return registering.carry(source.tracking, one, target.tracking, target.name, run_id=run_id, facts=facts).version
