"""What a person sees of an evaluation, a prediction or a list of runs: how much of it is done, and the time left."""

import threading
import time
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from gapwise.cli.live import Clock, Screen, Sparse, span
from gapwise.cli.output import stderr

_BAR = 40


class Stand(NamedTuple):
    """A stage at one moment. Every number counts steps of the stage; its `total` is 0 where nobody knows it."""

    stage: str
    done: int
    total: int
    seconds: float
    """Since the stage began."""

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        return self.seconds * (1 - self.share) / self.share if self.share else None

    def line(self) -> str:
        """ "champion: 43 % after 12 s, about 15 s left"."""
        if not self.total:
            counted = f" {self.done:,} done" if self.done else ""
            return f"{self.stage}:{counted} after {span(self.seconds)}"
        left = f", about {span(self.seconds_left)} left" if self.seconds_left else ""
        return f"{self.stage}: {100 * self.share:.0f} % after {span(self.seconds)}{left}"


class WorkView:
    """Told of stages and of steps in them, on any thread (`evaluation.hearing.Listener`)."""

    def __init__(self, title: str, console: Console = stderr, clock: Clock = time.monotonic) -> None:
        self._title, self._clock, self._sparse = title, clock, Sparse(clock)
        self._lock = threading.Lock()
        self._stage, self._total, self._done, self._began = "", 0, 0, clock()
        self._screen = Screen(self._draw, console, stays=False)

    def __enter__(self) -> "WorkView":
        self._screen.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.__exit__()

    def stage(self, name: str, total: int) -> None:
        """A new one begins, of so many steps; 0 where that is not known."""
        with self._lock:
            self._stage, self._total, self._done, self._began = name, total, 0, self._clock()
        if self._sparse.long():  # a short command says nothing but its answer
            self._screen.say(f"{self._title}, {name}")

    def step(self, count: int) -> None:
        with self._lock:
            self._done += count
        now = self.now()
        if self._sparse.due(now.share):
            self._screen.say(f"{self._title}, {now.line()}")

    def ended(self, what: str) -> None:
        """One step that has a name, such as a run: always worth a line."""
        with self._lock:
            self._done += 1
        self._screen.say(f"{self._done}/{self._total} {what}")

    def now(self) -> Stand:
        with self._lock:
            return Stand(self._stage, self._done, self._total, self._clock() - self._began)

    def _draw(self) -> RenderableType:
        now = self.now()
        if not now.stage:
            return Text(self._title, style="bold")
        parts: list[RenderableType] = [Text(self._title, style="bold"), Text(now.line())]
        if now.total:
            parts.append(ProgressBar(total=now.total, completed=min(now.done, now.total), width=_BAR))
        return Group(*parts)
