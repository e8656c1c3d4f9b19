"""Who hears how far a long evaluation is.

A listener stands around the call (`heard_by`) instead of in every signature between the command and the forward pass;
where nobody listens, and that is nearly everywhere, the words are dropped. It hears and decides nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    def stage(self, name: str, total: int) -> None:
        """What begins now, and how many samples (rows x masks) it will answer; 0 where that is not known."""

    def step(self, count: int) -> None:
        """So many more were answered."""


_listener: ContextVar[Listener | None] = ContextVar("_listener", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Within it, in this thread, the listener hears of every evaluation."""
    kept = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(kept)


def tell_stage(name: str, total: int) -> None:
    listener = _listener.get()
    if listener is not None:
        listener.stage(name, total)


def tell_step(count: int) -> None:
    listener = _listener.get()
    if listener is not None:
        listener.step(count)
