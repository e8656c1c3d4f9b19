"""What happened in a study, on disk beside its journal, one JSON line an event: MLflow and the display read it there.

The book appends, and an event is on disk before its worker hears an answer. Whoever watches reads on from its own
position, in its own time: what a watcher has not taken survives the driver, and nobody keeps it in memory.
"""

import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.tuning.assignment import Assignment
from gapwise.tuning.files import whole_or_nothing


class Event(NamedTuple):
    """Something that observers (MLflow, the progress display) want to know."""

    kind: str
    """started, reported or finished."""
    assignment: Assignment
    body: dict[str, Any]
    time: float
    """Seconds since the epoch, on the book's clock."""


def events_beside(journal: Path) -> Path:
    return journal.with_suffix(".events.jsonl")


class EventLog:
    """The one writer. An epoch or an ending that is told again (a trial was resumed) is left out: the first counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._epochs: dict[tuple[str, str, int], int] = {}
        self._ended: set[tuple[str, str, int]] = set()
        whole = 0
        for event, after in _read(file, 0):
            self._remember(event)
            whole = after
        if file.exists():
            os.truncate(file, whole)  # a line that a dying writer left torn got no answer: it will be told again

    def note(self, kind: str, assignment: Assignment, body: dict[str, Any]) -> None:
        """Append, unless it is there already; on disk when this returns."""
        event = Event(kind, assignment, body, time.time())
        if self._knows(event):
            return
        line = json.dumps(event._asdict() | {"assignment": assignment._asdict()}, separators=(",", ":"))
        with whole_or_nothing(self._file), self._file.open("ab") as opened:
            opened.write(line.encode() + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
        self._remember(event)

    def _knows(self, event: Event) -> bool:
        trial = _trial(event.assignment)
        if event.kind == "reported":
            return int(event.body["epoch"]) <= self._epochs.get(trial, 0)
        return event.kind == "finished" and trial in self._ended

    def _remember(self, event: Event) -> None:
        trial = _trial(event.assignment)
        if event.kind == "reported":
            self._epochs[trial] = event.body["epoch"]
        if event.kind == "finished":
            self._ended.add(trial)
            self._epochs.pop(trial, None)


def _trial(assignment: Assignment) -> tuple[str, str, int]:
    return assignment.phase, assignment.arm, assignment.number


def read_events(file: Path, position: int, *, most: int) -> tuple[list[Event], int]:
    """At most so many whole events from byte `position` on, and the position after them."""
    found = list(islice(_read(file, position), most))
    return [event for event, _ in found], found[-1][1] if found else position


def _read(file: Path, position: int) -> Iterator[tuple[Event, int]]:
    for line in _whole_lines(file, position):
        position += len(line)
        fields = json.loads(line)
        yield Event(**fields | {"assignment": Assignment(**fields["assignment"])}), position


def count_events(file: Path, position: int) -> int:
    """How many there are from byte `position` on."""
    return sum(1 for _ in _whole_lines(file, position))


def _whole_lines(file: Path, position: int) -> Iterator[bytes]:
    if not file.exists():
        return
    with file.open("rb") as opened:
        opened.seek(position)
        for line in opened:
            if line.endswith(b"\n"):  # otherwise it is still being written
                yield line
