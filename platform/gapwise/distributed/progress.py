"""Progress from workers to the driver through a file in the run's folder: one JSON line an event.

It needs no channel of Ray's, survives the driver, and works wherever the folder is shared.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def append_line(file: Path, event: dict[str, Any]) -> None:
    """Add one event; a single short write, so that lines of several workers do not mix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(json.dumps(event) + "\n")


@contextmanager
def every(seconds: float, call: Callable[[], None], *, name: str) -> Iterator[None]:
    """Call again and again on a background thread until the context is left."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            call()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def tail(file: Path, each: Callable[[dict[str, Any]], None], *, every_seconds: float = 0.3) -> Iterator[None]:
    """Follow such a file from its present end, calling back for each new event, until the context is left."""
    reader = _Reader(file, each, position=file.stat().st_size if file.exists() else 0)
    with every(every_seconds, reader.read, name="gapwise-tail"):
        yield
    reader.read()


def told(file: Path) -> list[dict[str, Any]]:
    """Every event so far; none where nothing was told yet."""
    found: list[dict[str, Any]] = []
    _Reader(file, found.append, position=0).read()
    return found


class _Reader:
    def __init__(self, file: Path, each: Callable[[dict[str, Any]], None], *, position: int) -> None:
        self._file, self._each, self._position = file, each, position

    def read(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as opened:
            opened.seek(self._position)
            fresh = opened.read()
        whole = fresh.rfind(b"\n") + 1
        self._position += whole
        for line in fresh[:whole].splitlines():
            self._each(json.loads(line))
