"""A limit on the time that a run may take in one go, for training that hangs where nobody can interrupt it."""

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STACKS_FILE = "stacks.txt"
_GRACE_SECONDS = 30.0
"""For the thread that tells; code that never lets it run is ended by the interpreter's own timer after that."""


@contextmanager
def watched(seconds: float | None, tell: Callable[[str], None], folder: Path) -> Iterator[None]:
    """End this process when the context is not left in time, after writing every thread's stack and telling why."""
    if seconds is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    left = threading.Event()

    def watch() -> None:
        if left.wait(seconds):
            return
        with (folder / STACKS_FILE).open("w") as stacks:
            faulthandler.dump_traceback(stacks)
        if left.is_set():  # just in time after all; this process may have its next run already
            return
        try:
            tell(f"timeout: ran longer than {seconds:g} s (stacks: {folder / STACKS_FILE})")
        finally:
            os._exit(1)

    threading.Thread(target=watch, name="gapwise-watchdog", daemon=True).start()
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)
    try:
        yield
    finally:
        left.set()
        faulthandler.cancel_dump_traceback_later()
