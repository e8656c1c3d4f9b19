"""What a command shows while it works: one live picture on a terminal, few log lines elsewhere; always on stderr."""

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from gapwise.cli.output import stderr

Clock = Callable[[], float]
_BETWEEN_SECONDS, _SILENCE_SECONDS = 5.0, 30.0
_TENTHS = 10


class Screen:
    """A context in which `draw` is shown twice a second; `say` writes a line where there is no such picture."""

    def __init__(self, draw: Callable[[], RenderableType], console: Console = stderr, *, stays: bool = True) -> None:
        """`stays`: the last picture is left on the terminal."""
        self._console, self._began = console, time.perf_counter()
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = (
            Live(get_renderable=draw, console=console, refresh_per_second=2, transient=not stays) if live else None
        )

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        if self._live is None:
            seconds = time.perf_counter() - self._began
            self._console.print(f"[{seconds:7.1f} s] {line}", soft_wrap=True, markup=False)


class Sparse:
    """Which of many steps are worth a log line: one in each tenth of the way, not too close, and after long silence."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self._tenth, self._said = clock, 0, clock()

    def long(self) -> bool:
        """Whether the last line, or the beginning, is a while ago."""
        return self._clock() - self._said >= _BETWEEN_SECONDS

    def due(self, share: float) -> bool:
        """`share` of the way is done."""
        tenth, silent = int(share * _TENTHS + 1e-9), self._clock() - self._said
        if silent < (_BETWEEN_SECONDS if tenth != self._tenth else _SILENCE_SECONDS):
            return False
        self._tenth, self._said = tenth, self._clock()
        return True


def span(seconds: float) -> str:
    """ "40 s", "12 min" or "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
