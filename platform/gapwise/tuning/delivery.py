"""A thread of its own that brings a study's events to MLflow, at MLflow's pace: nobody else ever waits for the server.

Events wait on disk. A bookmark says how far they have come into which parent run; it moves after the server has taken
them, so what was under way when a driver died is delivered again, which changes nothing (see `gapwise.tracking.runs`).
When the study ends, the result follows, and the parent run's state last. A server that takes nothing for a while by
then is left alone: one line says what waits, and the same command with --resume delivers it.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol

from gapwise.tracking.client import TrackingDown, TrackingRefused
from gapwise.tuning.events import Event, count_events, read_events
from gapwise.tuning.files import write_whole

_log = logging.getLogger(__name__)
_EVENTS_AT_ONCE = 100
_FORMAT_VERSION = 1


class Recipient(Protocol):
    """What stands for the server. Each call raises TrackingDown to be made again later, with the same."""

    run_id: str
    """The parent run."""

    def see(self, events: list[Event]) -> None:
        """Take events of one trial, in order; some may have been given before."""

    def end(self, status: Literal["FINISHED", "KILLED"]) -> None:
        """Nothing more comes from this driver."""


class Patience(NamedTuple):
    """How long the end waits for a server that takes nothing."""

    in_peace_seconds: float
    after_error_seconds: float
    """Ctrl-C included: somebody is waiting."""


PATIENCE = Patience(in_peace_seconds=30.0, after_error_seconds=5.0)


class Bookmark:
    """How far the events have come into a parent run. Another run, on another server, begins with the first event."""

    def __init__(self, file: Path, run_id: str) -> None:
        self._file = file
        self._head = {"format_version": _FORMAT_VERSION, "run_id": run_id}
        self.position = self._read()

    def _read(self) -> int:
        try:
            kept = json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):  # torn: delivering again does no harm
            return 0
        position = kept.pop("position", 0)
        return int(position) if kept == self._head else 0

    def move(self, position: int) -> None:
        write_whole(self._file, json.dumps(self._head | {"position": position}))
        self.position = position


class Delivery:
    """A context: delivers while it lasts; leaving it ends the parent run, as FINISHED or after an error as KILLED."""

    def __init__(
        self, events: Path, recipient: Recipient, *, patience: Patience = PATIENCE, every_seconds: float = 1.0
    ) -> None:
        self._events, self._recipient, self._patience = events, recipient, patience
        self._bookmark = Bookmark(events.with_suffix(".delivered.json"), recipient.run_id)
        self._every_seconds = every_seconds
        self._last: deque[Callable[[], None]] = deque()
        self._taken, self._why = 0, ""
        self._closing, self._left_alone = False, False
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gapwise-delivery", daemon=True)

    def __enter__(self) -> "Delivery":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._last.append(lambda: self._recipient.end("FINISHED" if kind is None else "KILLED"))
        self._closing = True
        self._bell.set()
        try:
            self._wait(self._patience.in_peace_seconds if kind is None else self._patience.after_error_seconds)
        finally:
            self._warn_about_the_rest()

    def afterwards(self, deed: Callable[[], None]) -> None:
        """Do this on the delivery's thread when every event is delivered; again where it raises TrackingDown."""
        self._last.append(deed)

    @property
    def all_taken(self) -> bool:
        """Whether nothing is left over; known after the end."""
        return not self._last

    def _wait(self, seconds: float) -> None:
        """Until all is delivered, or nothing was taken for so long."""
        before = -1
        while self._thread.is_alive() and self._taken != before:
            before = self._taken
            self._thread.join(seconds)
        self._left_alone = True

    def _run(self) -> None:
        while not self._left_alone:
            try:
                if self._one_step():
                    continue
                if self._closing and not self._last:
                    return
            except TrackingDown as down:
                self._why = str(down)
            self._bell.wait(self._every_seconds)
            self._bell.clear()

    def _one_step(self) -> bool:
        """A few events or, when none are left and the study has ended, one of the last deeds; False if neither."""
        closing = self._closing  # asked first: what is on disk by then goes before the deeds
        events, after = read_events(self._events, self._bookmark.position, most=_EVENTS_AT_ONCE)
        if events:
            for group in _by_trial(events):
                self._recipient.see(group)
                self._taken += 1
            self._bookmark.move(after)
        elif closing and self._last:
            self._do(self._last[0])
            self._last.popleft()
        else:
            return False
        return True

    def _do(self, deed: Callable[[], None]) -> None:
        try:
            deed()
        except TrackingRefused as refused:
            _log.warning("the tracking server refused a part of the study's result: %s", refused)
        self._taken += 1

    def _warn_about_the_rest(self) -> None:
        if self._last:
            left = count_events(self._events, self._bookmark.position)
            why = self._why or "no answer"
            rest = f"{left} events, which wait in {self._events}, and the study's end"
            _log.warning("MLflow has not taken %s: %s; the same command with --resume delivers them", rest, why)


def _by_trial(events: list[Event]) -> list[list[Event]]:
    """So that several epochs of a fast trial cost one request."""
    groups: dict[str, list[Event]] = {}
    for event in events:
        groups.setdefault(event.assignment.key, []).append(event)
    return list(groups.values())
