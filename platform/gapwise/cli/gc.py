"""`gapwise gc`: disk space back, without losing what anybody relies on."""

import time
from itertools import groupby
from typing import Annotated, Any, NamedTuple

import typer

from gapwise.cli import completion
from gapwise.cli.options import size
from gapwise.cli.output import JsonOption, in_bytes, print_json, print_table, stderr
from gapwise.errors import GapwiseError
from gapwise.spec.home import home

EXAMPLES = """
Examples:

    gapwise gc --dry-run

    gapwise gc --study night --keep-top 1

    gapwise gc --quota 20GB

Goes: what Ray left in studies that no driver has; of finished studies also checkpoints, what refits left, and models
that neither an alias of the registry names nor the top K of a rate count. Stays: journals, results, tracking, the
registry's own copies, `gapwise train` and `gapwise ablate`.
"""
OVER_QUOTA = 1
"""Exit code: everything that may go is gone, and the rest is still above the quota."""


class _Done(NamedTuple):
    """What happened, or would."""

    items: list[Any]
    """`retention.Item`s."""
    left: dict[str, str]
    used: int
    quota: int | None
    dry_run: bool

    @property
    def freed(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def met(self) -> bool:
        return self.quota is None or self.used - self.freed <= self.quota


def gc(
    only: Annotated[
        list[str],
        typer.Option("--study", metavar="NAME", autocompletion=completion.studies, help="Only this study; repeatable."),
    ] = [],  # noqa: B006
    keep_top: Annotated[int, typer.Option(help="Winners of each rate whose models stay, over all studies.", min=0)] = 3,
    quota: Annotated[
        str | None, typer.Option(metavar="20GB", help="Remove the oldest first, and only until this much is left.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go; remove nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Free disk space: champions, challengers, the top K of each rate, and unfinished studies stay."""
    most = size(quota) if quota is not None else None

    from gapwise.promotion.in_use import in_use
    from gapwise.tracking.client import connect
    from gapwise.tuning.reading import Study, read_studies, study_folder
    from gapwise.tuning.removal import removable, remove, used_bytes
    from gapwise.tuning.retention import kept_models, until_under

    here = home()
    wanted = {study_folder(here.studies, name).name for name in only}
    found = read_studies(here.studies)
    readable = [one for one in found.values() if isinstance(one, Study)]
    left = {name: str(error) for name, error in found.items() if isinstance(error, GapwiseError)}
    results = [one.result for one in readable if one.result is not None]
    aliased = [(one.study, one.trial) for one in in_use(connect(here))] if results else []
    kept = kept_models(results, aliased, keep_top)
    items = removable(here, [one for one in readable if not wanted or one.name in wanted], kept)
    used = used_bytes(here.root)
    if most is not None:
        items = until_under(items, used, most)
    if not dry_run:
        items, refused = remove(here, items)
        left |= refused
    done = _Done(items, left, used, most, dry_run)
    print_json(_body(done)) if as_json else _show(done)
    if not done.met:
        raise typer.Exit(OVER_QUOTA)


def _body(done: _Done) -> dict[str, Any]:
    return {
        "dry_run": done.dry_run,
        "freed": [
            {"study": item.study, "kind": item.kind, "path": str(item.path), "bytes": item.bytes} for item in done.items
        ],
        "freed_bytes": done.freed,
        "left_bytes": done.used - done.freed,
        "quota_bytes": done.quota,
        "quota_met": done.met,
        "left_alone": done.left,
    }


def _show(done: _Done) -> None:
    ordered = sorted(done.items, key=lambda item: (item.study, item.kind))
    rows = []
    for (study, kind), group in groupby(ordered, key=lambda item: (item.study, item.kind)):
        items = list(group)
        newest = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(item.changed for item in items)))
        rows.append([study, kind, str(len(items)), in_bytes(sum(item.bytes for item in items)), newest])
    would = "would be " if done.dry_run else ""
    caption = f"{in_bytes(done.freed)} {would}freed, {in_bytes(done.used - done.freed)} left in {home().root}"
    print_table("what would go" if done.dry_run else "what went", _COLUMNS, rows, caption=caption)
    for name, reason in done.left.items():
        stderr.print(f"left alone: {name}: {reason}", soft_wrap=True, markup=False)
    if not done.met:
        stderr.print(f"the quota of {in_bytes(done.quota or 0)} cannot be met: the rest is protected", soft_wrap=True)


_COLUMNS = ["study", "what", "pieces", "size", "last change"]
