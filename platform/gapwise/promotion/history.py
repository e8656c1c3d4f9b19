"""A ledger as people and scripts read it, with what is wrong in it."""

from typing import Any

from gapwise.errors import RegistryError
from gapwise.promotion.chain import Entry
from gapwise.promotion.standing import standing
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking


def history(tracking: Tracking, name: str, expect: str = "") -> dict[str, Any]:
    """The keys of `registry history --json`. Raises RegistryError for a name that does not exist."""
    now = standing(tracking, name, expect)
    if not now.ledger.entries and not now.ledger.problems:
        registry.aliases(tracking, name)  # says which names there are
        raise RegistryError("nothing was decided yet", where=f"ledger of {name!r}", allowed="after gapwise promote")
    problems = [*now.ledger.problems, *now.drift()]
    return {
        "name": name,
        "entries": [row for entry in now.ledger.entries for row in _rows(entry)],
        "head": now.ledger.head._asdict(),
        "verified": not problems,
        "problems": problems,
    }


def _rows(entry: Entry) -> list[dict[str, Any]]:
    """One for each rate that the entry speaks of."""
    told = entry.facts.get("decisions")
    said = told if isinstance(told, dict) else {}
    moves = {move.rate: move for move in entry.moves}
    rates = sorted({*said, *moves})
    return [
        {
            "sequence": entry.sequence,
            "time": entry.time,
            "who": entry.who,
            "rate": rate,
            "decision": said.get(rate, entry.action),
            "from": moves[rate].before if rate in moves else None,
            "to": moves[rate].after if rate in moves else None,
            "digest": entry.digest,
        }
        for rate in rates
    ]
