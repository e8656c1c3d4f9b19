"""One background thread that carries the book's events to whoever watches: the progress display and MLflow.

Workers never wait for it. A watcher that fails is told again from where it stopped; what it has not taken when the
study ends is reported as a warning, for the journal has everything anyway.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import ray

from gapwise.distributed.progress import every
from gapwise.tracking.client import TrackingDown
from gapwise.tuning.book import Event

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    def see(self, events: list[Event]) -> None:
        """Take note of events, in order. Raises TrackingDown to be given the same events again later."""


@contextmanager
def observing(book: Any, watchers: list[Watcher], *, every_seconds: float = 1.0) -> Iterator["Observer"]:
    """Carry events while the study runs; leaving the context in peace delivers what is left."""
    observer = Observer(book, watchers)
    with every(every_seconds, observer.deliver, name="gapwise-observer"):
        yield observer
    observer.deliver()
    observer.warn_about_the_rest()


class Observer:
    """Knows how far each watcher has come."""

    def __init__(self, book: Any, watchers: list[Watcher]) -> None:
        self._book, self._watchers = book, watchers
        self._positions = {id(watcher): 0 for watcher in watchers}
        self._turn = threading.Lock()

    def deliver(self) -> None:
        """Hand over what is new, now; the driver asks for it where one stage ends and the next begins."""
        with self._turn:
            self._hand_over()

    def _hand_over(self) -> None:
        oldest = min(self._positions.values(), default=0)
        events: list[Event] = ray.get(self._book.events.remote(oldest))
        for watcher in self._watchers:
            fresh = events[self._positions[id(watcher)] - oldest :]
            if not fresh:
                continue
            try:
                watcher.see(fresh)
            except TrackingDown:
                continue
            self._positions[id(watcher)] += len(fresh)

    def warn_about_the_rest(self) -> None:
        total = len(ray.get(self._book.events.remote(0)))
        missing = total - min(self._positions.values(), default=total)
        if missing:
            _log.warning("%d events did not reach the tracking server; the study's journal has them", missing)
