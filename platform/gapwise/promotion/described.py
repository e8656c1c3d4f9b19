"""What MLflow's UI says beside a registered name and its versions: at which rates a version is champion, and why. Pure.

Told from the ledger and the aliases as they are after an entry is carried out, so whoever carries it out again writes
the same. A person's own words are left alone: a text is ours by its last line.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gapwise.promotion.chain import Entry
from gapwise.spec.protocol import rate_key
from gapwise.tracking import aliases
from gapwise.tracking.local import LEDGER, ROUTER
from gapwise.tracking.registry import Version

_MARK = "_Kept by gapwise; your own words in place of these stay._"
_BEFORE_MARKS = "champion at missing rates "
"""How descriptions of older versions of gapwise begin."""


class Since(NamedTuple):
    """The last move of a rate to a version."""

    entry: Entry
    why: str


def is_ours(text: str) -> bool:
    """Whether a description may be written over."""
    return not text or text.rstrip().endswith(_MARK) or text.startswith(_BEFORE_MARKS)


def of_version(name: str, one: Version, named: Mapping[str, str], entries: Sequence[Entry]) -> str:
    """At which rates it is champion, since when and why; and what else is known of it. Empty for one that the ledger
    never spoke of and no alias of ours names.
    """
    mine = [rate for rate, version in aliases.champions(named).items() if version == one.version]
    # Plain words, the rates first: a list of versions shows the beginning, and no Markdown.
    lines = [
        f"{', '.join(mine)}: champion of {name} at these missing rates." if mine else "No rate: not a champion now."
    ]
    told = [f"- {rate}: {_since(_last_move(entries, rate, one.version), name)}" for rate in mine]
    told += [f"- {line}" for line in _lost(one.version, mine, entries)]
    told += [f"- {line}" for line in _other_names(one.version, named)]
    if not told:
        return ""
    lines += ["", *told]
    facts = one.facts
    if "study" in facts and "trial" in facts:
        lines.append(f"\n{facts['trial']} of study {facts['study']}; its tags say on what data, with which figures.")
    return "\n".join([*lines, "", _MARK])


def of_name(name: str, named: Mapping[str, str], versions: Sequence[Version], entries: Sequence[Entry]) -> str:
    """Champions by rate, where they came from, and how to look further."""
    serving = aliases.champions(named)
    known = {one.version: one.facts for one in versions}
    lines = ["**Champions by missing rate**" if serving else "**No champion yet.**", ""]
    for version in dict.fromkeys(serving.values()):
        rates = ", ".join(rate for rate, one in serving.items() if one == version)
        facts = known.get(version, {})
        of = f": {facts['trial']} of study {facts['study']}" if "trial" in facts and "study" in facts else ""
        lines.append(f"- {rates}: version {version}{of}")
    last = entries[-1]
    lines += [
        "",
        f"Ask `models:/{name}{ROUTER}@champion` for the champion of each row's rate. Every decision: `{name}{LEDGER}`"
        f" (the last is entry {last.sequence}, {last.action}, {last.time[:10]}).",
        "",
        f"- `gapwise registry show {name}`",
        f"- `gapwise registry history {name} --verify`",
        f"- `gapwise report registry {name}`",
        "",
        _MARK,
    ]
    return "\n".join(lines)


def _last_move(entries: Sequence[Entry], rate: str, version: str) -> Since | None:
    for entry in reversed(entries):
        if any((move.rate, move.after) == (rate, version) for move in entry.moves):
            why = entry.facts.get("why")
            return Since(entry, str(why.get(rate, "")) if isinstance(why, dict) else "")
    return None


def _since(found: Since | None, name: str) -> str:
    if found is None:
        return f"since before {name}{LEDGER} began"
    entry = found.entry
    reason = found.why or str(entry.facts.get("reason", ""))
    return f"since {entry.time[:10]} by entry {entry.sequence} ({entry.action}){f': {reason}' if reason else ''}"


def _lost(version: str, mine: Sequence[str], entries: Sequence[Entry]) -> list[str]:
    """Rates that it served once, with who ended that."""
    ended = {
        move.rate: f"{move.rate}: until entry {entry.sequence} ({entry.action}) of {entry.time[:10]}"
        for entry in entries
        for move in entry.moves
        if move.before == version and move.rate not in mine
    }
    return [ended[rate] for rate in sorted(ended, key=float)]


def _other_names(version: str, named: Mapping[str, str]) -> list[str]:
    ours = [alias for alias, one in sorted(named.items()) if one == version and alias.startswith("challenger-mr")]
    held = [rate_key(int(alias.rpartition("-mr")[2]) / 100) for alias in ours]
    lines = [f"held, or taken back, at {', '.join(held)} (alias challenger)"] if held else []
    if named.get(aliases.BASELINE_ALIAS) == version:
        lines.append("the late_fusion that `gapwise evaluate` sets beside champions (alias baseline)")
    return lines
