"""A driver's side of sharing a cluster: it asks the cluster's book before each trial, and says that it lives.

Where the book does not answer, nothing new starts until it does; what runs goes on. A study that shares says why it
waits: to the person, and in a file of its folder for `gapwise study show`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Protocol

from gapwise.distributed.cluster_book import RENEW_SECONDS, Answer, Call, Silent, Want, reach
from gapwise.distributed.progress import every
from gapwise.distributed.sharing import Device

_log = logging.getLogger(__name__)

SECONDS_BETWEEN_ASKS = 1.0
"""While it waits."""
_SILENT = Answer(False, "waiting: the cluster's book does not answer")


class Watcher(Protocol):
    """Who wants to know how the study stands on the cluster; called on several threads, and answers at once."""

    def stands(self, wanted: int, held: int, waits: str) -> None:
        """Slots, and why it does not have all of them."""


class Turns:
    """One study's place among those of a cluster. Methods are called by the driver's thread and by the renewing one."""

    def __init__(self, study: str, name: str, priority: int, connect: Callable[[], Call] = reach) -> None:
        self._study, self._name, self.priority, self._connect = study, name, priority, connect
        self.watchers: list[Watcher] = []
        self._book: Call | None = None
        self._known = False
        self._turn = threading.RLock()
        self._size = Fraction(1)
        self._device: Device = "CPU"
        self._wanted, self._held, self._reserved = 0, 0, 0
        self._refused_at = float("-inf")

    @contextmanager
    def taking(self) -> Iterator[None]:
        """While the context lasts the study is on the cluster's book."""
        try:
            with every(RENEW_SECONDS, self._renew, name="gapwise-turns"):
                yield
        finally:
            if self._known:
                self._call("leave", self._study)

    def of(self, size: Fraction, device: Device) -> None:
        """What a trial takes from now on."""
        with self._turn:
            self._size, self._device = size, device

    def due(self) -> bool:
        """Whether it is time to ask again, or something has ended since it was refused."""
        return bool(self._reserved) or time.monotonic() - self._refused_at >= SECONDS_BETWEEN_ASKS

    def reserve(self, held: int, wanted: int) -> bool:
        """Whether one more trial than the `held` may start; a yes stands until it is `used`."""
        with self._turn:
            if not self._reserved:
                self._held, self._wanted = held, wanted
                self._reserved = int(self._say("ask").starts)
                self._refused_at = float("-inf") if self._reserved else time.monotonic()
            return bool(self._reserved)

    def used(self) -> None:
        """The trial that a slot was reserved for has begun."""
        with self._turn:
            self._held, self._reserved = self._held + self._reserved, 0

    def hold(self, held: int, wanted: int | None = None) -> None:
        """So many trials run now, and nothing is reserved; as many are wanted as before, where nothing is said."""
        with self._turn:
            self._held, self._reserved = held, 0
            self._wanted = self._wanted if wanted is None else wanted
            self._refused_at = float("-inf")
            self._say("tell")

    @contextmanager
    def held(self, most: int, size: Fraction, device: Device) -> Iterator[int]:
        """As many slots at once as there are, up to `most`; waits for at least one, and gives all back at the end.

        For work that cannot grow or shrink once it has begun.
        """
        self.of(size, device)
        got = 0
        while not got:
            while got < most and self.reserve(got, most):
                self.used()
                got += 1
            if not got:
                time.sleep(SECONDS_BETWEEN_ASKS)
        self.hold(got, got)
        try:
            yield got
        finally:
            self.hold(0, 0)

    def _renew(self) -> None:
        with self._turn:
            if self._known:
                self._say("tell")

    def _say(self, method: str) -> Answer:
        self._known = True
        held = self._held + self._reserved
        want = Want(self._study, self._name, self.priority, self._wanted, held, self._size, self._device)
        answer: Answer = self._call(method, want) or _SILENT
        held += answer.starts
        for watcher in self.watchers:
            watcher.stands(max(self._wanted, held), held, answer.waits)
        return answer

    def _call(self, method: str, given: object) -> Any:
        """What the book answers; None where it does not, and the next call looks for it anew."""
        try:
            if self._book is None:
                self._book = self._connect()
            return self._book(method, given)
        except Silent as error:
            _log.debug("the cluster's book does not answer: %s", error)
            self._book = None
            return None
