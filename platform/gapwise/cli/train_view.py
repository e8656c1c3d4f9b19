"""What a person sees of a training run: the newest epoch beside the best one, by missing rate, and the time left.

It is told of epochs by the reader of the run's progress file, in the driver; the loop in the workers knows nothing of
it and is not slowed down.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from gapwise.cli.live import Clock, Screen, Sparse, span
from gapwise.cli.output import figure, heading, stderr, table
from gapwise.spec.train import TrainSpec

Epoch = dict[str, Any]
"""An `EpochReport` as a dict."""


class TrainView:
    """`spec` is settled, so that its objective has a metric; `earlier` are epochs from before a resume."""

    def __init__(
        self,
        title: str,
        spec: TrainSpec,
        earlier: Iterable[Epoch] = (),
        console: Console = stderr,
        clock: Clock = time.monotonic,
    ) -> None:
        self._title, self._spec, self._clock, self._sparse = title, spec, clock, Sparse(clock)
        self._lock = threading.Lock()
        self._last: Epoch | None = None
        self._best: Epoch | None = None
        self._heard = clock()
        for epoch in earlier:
            self._take(epoch)
        self._screen = Screen(self._draw, console)

    def __enter__(self) -> "TrainView":
        self._screen.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.__exit__()

    @property
    def samples_per_second(self) -> float | None:
        """Of the last epoch; None before one ended."""
        return None if self._last is None else float(self._last["samples_per_second"])

    def note(self, epoch: Epoch) -> None:
        with self._lock:
            self._take(epoch)
        if epoch["epoch"] in (1, epoch["epochs"]) or self._sparse.due(epoch["epoch"] / epoch["epochs"]):
            self._screen.say(self._line(epoch))

    def _take(self, epoch: Epoch) -> None:
        self._last, self._heard = epoch, self._clock()
        if self._best is None or epoch["cost"] < self._best["cost"]:
            self._best = epoch

    def _line(self, epoch: Epoch) -> str:
        best = "" if self._best is None else f"  best {self._best['cost']:.4f} (epoch {self._best['epoch']})"
        return (
            f"epoch {epoch['epoch']:>3}/{epoch['epochs']}  objective {epoch['cost']:.4f}{best}  "
            f"loss {epoch['losses']['total']:.4f}  {epoch['samples_per_second']:.0f} samples/s{self._left(epoch)}"
        )

    def _left(self, epoch: Epoch) -> str:
        """At the pace of all epochs so far; patience may end it sooner."""
        still = epoch["epochs"] - epoch["epoch"]
        if not still:
            return ""
        seconds = still * epoch["train_seconds"] / epoch["epoch"] - (self._clock() - self._heard)
        return f"  at most {span(max(0.0, seconds))} left"

    def _draw(self) -> RenderableType:
        with self._lock:
            last, best = self._last, self._best
        if last is None or best is None:
            return Text(f"{self._title}: starting, {span(self._clock() - self._heard)}", style="bold")
        metric = self._spec.objective.metric
        shown = {f"epoch {last['epoch']}": last, f"best, epoch {best['epoch']}": best}
        conditions = list(last["metrics"][metric])
        rows = [[name, *(figure(one["metrics"][metric][key]) for key in conditions)] for name, one in shown.items()]
        first = f"{metric}, {heading(self._spec.protocol.name)}"
        lines = Text(f"{self._title}\n{self._line(last)}")
        lines.stylize("bold", 0, len(self._title))
        return Group(lines, table([first, *conditions], rows))
