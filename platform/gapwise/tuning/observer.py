"""One background thread that shows a study's events, as they come, to watchers that answer at once: the display.

What may have to wait for a server goes through `gapwise.tuning.delivery`, on a thread of its own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from gapwise.distributed.progress import every
from gapwise.tuning.events import Event, read_events

_EVENTS_AT_ONCE = 1000


class Watcher(Protocol):
    def see(self, events: list[Event]) -> None:
        """Take note of events, in order, without delay."""


@contextmanager
def observing(events: Path, watchers: list[Watcher], *, every_seconds: float = 1.0) -> Iterator["Observer"]:
    """Show what comes from now on; leaving the context in peace shows what is left."""
    observer = Observer(events, watchers)
    with every(every_seconds, observer.show, name="gapwise-observer"):
        yield observer
    observer.show()


class Observer:
    """Knows how far the watchers have come."""

    def __init__(self, events: Path, watchers: list[Watcher]) -> None:
        self._events, self._watchers = events, watchers
        self._position = events.stat().st_size if events.exists() else 0
        self._turn = threading.Lock()

    def show(self) -> None:
        """Show what is new, now; the driver asks for it where one stage ends and the next begins."""
        with self._turn:
            while True:
                events, after = read_events(self._events, self._position, most=_EVENTS_AT_ONCE)
                if not events:
                    return
                for watcher in self._watchers:
                    watcher.see(events)
                self._position = after
