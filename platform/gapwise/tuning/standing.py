"""How a study stands on a shared cluster, in a file of its folder: `gapwise study show` says why it waits without Ray.

The file is there while a driver shares; one that a killed driver left says nothing, because nobody drives the study.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapwise.tuning.files import write_whole

if TYPE_CHECKING:  # who reads a study needs no Ray
    from gapwise.distributed.turns import Turns

SHARING_FILE = "sharing"


class StandingFile:
    """Writes it down when it changes."""

    def __init__(self, folder: Path, priority: int) -> None:
        self._file, self._priority = folder / SHARING_FILE, priority
        self._last: dict[str, Any] = {}

    def stands(self, wanted: int, held: int, waits: str) -> None:
        now = {"priority": self._priority, "wanted": wanted, "held": held, "waits": waits}
        if now != self._last:
            self._last = now
            write_whole(self._file, json.dumps(now))


@contextmanager
def on_the_cluster(turns: "Turns | None", folder: Path) -> Iterator[None]:
    """While the context lasts the study has its place on the cluster's book; nothing at all on a private cluster."""
    file = folder / SHARING_FILE
    file.unlink(missing_ok=True)
    if turns is None:
        yield
        return
    turns.watchers.append(StandingFile(folder, turns.priority))
    try:
        with turns.taking():
            yield
    finally:
        file.unlink(missing_ok=True)


def read_standing(folder: Path) -> dict[str, Any] | None:
    """Keys priority, wanted, held (slots) and waits (a line, or empty); None where the study does not share."""
    try:
        found: dict[str, Any] = json.loads((folder / SHARING_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found
