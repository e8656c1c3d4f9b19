"""What a person sees of a running study: a live line on a terminal, a log line a finished run elsewhere."""

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gapwise.cli.output import stderr


class StudyDisplay:
    """Told of stages by the driver and of trials by the observer's thread."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:>12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=stderr,
            disable=not stderr.is_terminal,
        )
        self._task: TaskID | None = None
        self._name, self._total, self._finished = "", 0, 0
        self._best: dict[str, float] = {}
        self._began = time.perf_counter()

    def __enter__(self) -> "StudyDisplay":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, name: str, total: int) -> None:
        self._name, self._total, self._finished = name, total, 0
        self._best = {}
        self._task = self._bar.add_task(name, total=total, note="")
        self._say(f"{name}: {total} runs")

    def done(self, what: str) -> None:
        self._finished += 1
        self._advance(what)

    def see(self, events: list[Any]) -> None:
        """The observer's side: events of the study's book."""
        for event in events:
            if event.kind == "finished":
                self._finish(event)

    def _finish(self, event: Any) -> None:
        self._finished += 1
        arm, body = event.assignment.arm, event.body
        if body["cost"] is not None and body["state"] == "complete":
            self._best[arm] = min(body["cost"], self._best.get(arm, body["cost"]))
        value = f"objective {body['cost']:.4f}" if body["cost"] is not None else body["reason"]
        spent = f"epoch {body['best_epoch']}, {body['train_seconds']:.1f} s"
        self._advance(f"{event.assignment.key} {body['state']}, {value}, {spent}")

    def _advance(self, what: str) -> None:
        best = "  ".join(f"{arm} {cost:.4f}" for arm, cost in sorted(self._best.items()))
        if self._task is not None:
            self._bar.update(self._task, completed=self._finished, note=f"best: {best}" if best else what)
        self._say(f"{self._name} {self._finished}/{self._total}: {what}")

    def _say(self, line: str) -> None:
        if not stderr.is_terminal:
            stderr.print(f"[{time.perf_counter() - self._began:7.1f} s] {line}", soft_wrap=True, markup=False)
