"""Progress from workers to the driver through a file in the run's folder: one JSON line an event.

It needs no channel of Ray's, survives the driver, and works wherever the folder is shared.
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


def append_line(file: Path, event: dict[str, Any]) -> None:
    """Add one event; a single short write, so that lines of several workers do not mix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(json.dumps(event) + "\n")


class Tail:
    """Follows such a file from its present end, calling back for each new event, until the context is left."""

    def __init__(self, file: Path, each: Callable[[dict[str, Any]], None], *, every_seconds: float = 0.3) -> None:
        self._file, self._each, self._every = file, each, every_seconds
        self._position = file.stat().st_size if file.exists() else 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gapwise-tail", daemon=True)

    def __enter__(self) -> "Tail":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._read()

    def _read(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as opened:
            opened.seek(self._position)
            fresh = opened.read()
        whole = fresh.rfind(b"\n") + 1
        self._position += whole
        for line in fresh[:whole].splitlines():
            self._each(json.loads(line))
