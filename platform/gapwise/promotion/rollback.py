"""Taking a promotion back, and agreeing to one: entries in the ledger like any other."""

from collections.abc import Mapping
from typing import Any

import gapwise
from gapwise.errors import GateError, RegistryError
from gapwise.promotion.announce import done
from gapwise.promotion.chain import Entry, Move
from gapwise.promotion.standing import Deed, Standing, settled
from gapwise.spec.home import Home
from gapwise.tracking import aliases, registry
from gapwise.tracking.client import Tracking


def roll_back(tracking: Tracking, here: Home, name: str, rate: str | None, to: str | None, reason: str) -> Entry:
    """One rate, or all (None), back to the champion before it, or to a version by number.

    Going back twice goes back by two: the champion before the one that serves again is the one before it in the ledger.
    Raises RegistryError for a rate without a champion or without one before it, and for a version that does not exist.
    """
    now = settled(tracking, name)
    if not now.champions:
        registry.aliases(tracking, name)  # says which names there are
        raise RegistryError("has no champions", where=f"registered model {name!r}", allowed="a promoted name")
    if rate is not None and rate not in now.champions:
        raise RegistryError(f"no champion of rate {rate}", where=name, allowed=now.champions)
    rates = [rate] if rate is not None else list(now.champions)
    if to is not None:
        known = [one.version for one in registry.versions(tracking, name)]
        if to not in known:
            raise RegistryError(f"no version {to}", where=f"registered model {name!r}", allowed=known)
    changed: dict[str, str | None] = {}
    moves = []
    for one in rates:
        target, before_it = (to, now.champions[one]) if to is not None else _before(now, one)
        if target is None or target == now.champions[one]:
            continue
        moves.append(Move(rate=one, before=now.champions[one], after=target))
        changed |= {aliases.champion(one): target, aliases.previous(one): before_it}
        changed[aliases.challenger(one)] = now.champions[one]
    if not moves:
        raise RegistryError(
            "there is nothing to go back to",
            where=f"{name}, rate {rate or 'all'}",
            allowed="a rate with a champion before it",
        )
    return done(tracking, here, now, Deed("rollback", moves, changed, _facts(reason)))


def _before(now: Standing, rate: str) -> tuple[str | None, str | None]:
    """The champion before the present one, and the one before that, by the promotion that made it champion."""
    target = now.aliases.get(aliases.previous(rate))
    made = [
        move.before
        for entry in now.ledger.entries
        if entry.action != "rollback"
        for move in entry.moves
        if (move.rate, move.after) == (rate, target)
    ]
    return target, made[-1] if made else None


def approve(tracking: Tracking, here: Home, name: str, who: str) -> Entry:
    """Carry out the newest promotion that waits for a person. Raises GateError where none waits, or not any more."""
    now = settled(tracking, name)
    decided = [one for one in now.ledger.entries if one.moves or one.action == "ask"]
    if not decided or decided[-1].action != "ask" or decided[-1].facts["champions"] != now.champions:
        raise GateError(
            "no promotion waits for approval", where=f"ledger of {name!r}", allowed="promote --require-approval"
        )
    asked = decided[-1]
    wanted: Mapping[str, Any] = dict(asked.facts["asked"])  # type: ignore[arg-type]
    moves = [Move(rate=rate, before=now.champions.get(rate), after=version) for rate, version in wanted.items()]
    changed: dict[str, str | None] = {aliases.BASELINE_ALIAS: str(asked.facts["baseline"])}
    for move in moves:
        changed |= {aliases.champion(move.rate): move.after, aliases.challenger(move.rate): None}
        if move.before is not None:
            changed[aliases.previous(move.rate)] = move.before
    facts = _facts(f"{who} approved entry {asked.sequence}") | {"why": asked.facts.get("why", {})}
    return done(tracking, here, now, Deed("approve", moves, changed, facts))


def _facts(reason: str) -> dict[str, Any]:
    return {"reason": reason, "code_version": gapwise.__version__}
