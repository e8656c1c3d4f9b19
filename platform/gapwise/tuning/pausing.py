"""Ctrl-C, twice: the first asks runs to keep a checkpoint and leave, the second leaves at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray

from gapwise.distributed.progress import every

_SAID = "pausing: runs finish their epoch and keep a checkpoint; Ctrl-C again leaves at once; --resume continues"


class Pause:
    """Whether the person at the terminal has asked for it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self.asked = say, False
        self._told = False

    @contextmanager
    def heeded(self, book: Any) -> Iterator[None]:
        """While the context lasts, the first Ctrl-C pauses the book and the second is a KeyboardInterrupt.

        Raises KeyboardInterrupt at its end where the book was paused. Only in a process's main thread.
        """

        def carry() -> None:
            if self.asked and not self._told:
                self._told = True
                ray.get(book.pause.remote())

        before = signal.signal(signal.SIGINT, self._heard)
        try:
            with every(0.2, carry, name="gapwise-pause"):
                yield
        finally:
            signal.signal(signal.SIGINT, before)
        if self.asked:
            raise KeyboardInterrupt

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._say(_SAID)
