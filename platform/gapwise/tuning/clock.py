"""How long a study has been searched, over all its sessions; a killed driver loses two seconds of it at most."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gapwise.distributed.progress import every
from gapwise.tuning.files import write_whole

_log = logging.getLogger(__name__)

CLOCK_FILE = "clock.json"
_EVERY_SECONDS = 2.0


class SearchClock:
    """Seconds of searching, kept in the study's folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CLOCK_FILE
        self._before = self._read()
        self._began: float | None = None

    def _read(self) -> float:
        try:
            return float(json.loads(self._file.read_text())["search_seconds"])
        except FileNotFoundError:
            return 0.0
        except (ValueError, KeyError, TypeError):  # emptied by a power cut
            _log.warning("%s cannot be read: the budget of wall time begins anew", self._file)
            return 0.0

    @property
    def seconds(self) -> float:
        return self._before + (0.0 if self._began is None else time.monotonic() - self._began)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count until the context is left."""
        self._began = time.monotonic()
        try:
            with every(_EVERY_SECONDS, self._save, name="gapwise-clock"):
                yield
        finally:
            self._before, self._began = self.seconds, None
            self._save()

    def _save(self) -> None:
        write_whole(self._file, json.dumps({"search_seconds": self.seconds}))
