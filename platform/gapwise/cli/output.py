"""How commands answer: a table for people, or one JSON object on stdout with `--json`; logs always on stderr."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from gapwise.cli.tables import Fitted
from gapwise.spec.base import without_nan

_ROOMY = 60
_WIDE = 140
"""Columns of a table that goes to a file or a pipe; a terminal has its own width."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width, height = _size(stream)
    return Console(stderr=stderr, highlight=False, width=width, height=height)


def _size(stream: TextIO) -> tuple[int | None, int | None]:
    """None: rich asks the terminal, now and when it changes; of a dumb one it would say 80 x 25 without asking."""
    if not stream.isatty():
        return _WIDE, None
    return shutil.get_terminal_size() if os.environ.get("TERM") in ("dumb", "unknown") else (None, None)


def roomy() -> bool:
    """Whether the panels of a rich help have room; plain lines take less."""
    return stdout.width >= _ROOMY


stdout = _console(stderr=False)
stderr = _console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]


def say(line: str) -> None:
    """One line to the person, beside the log."""
    stderr.print(line, soft_wrap=True, markup=False)


_answer: ContextVar[TextIO | None] = ContextVar("_answer", default=None)


@contextmanager
def answer_alone() -> Iterator[None]:
    """Keep stdout for `print_json`: whatever else is printed, as Ray does of its dead workers, goes to stderr."""
    kept = _answer.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _answer.reset(kept)


def print_json(body: dict[str, Any]) -> None:
    """An undefined figure (NaN: a two-class metric where no sample counts) is null, for NaN is not JSON."""
    line = json.dumps(without_nan(body), sort_keys=False, allow_nan=False)
    typer.echo(line, file=_answer.get() or sys.stdout)  # with no file it would write UTF-8 to an ASCII stream


def table(columns: list[str], rows: list[list[str]], *, words: Sequence[str] = ()) -> Fitted:
    """A plain table; numbers are right-aligned and whole, the first column and those named in `words` are not."""
    return Fitted(columns, rows, words)


def print_table(
    title: str, columns: list[str], rows: list[list[str]], *, caption: str | None = None, words: Sequence[str] = ()
) -> None:
    """A `table` with its title above and a caption below."""
    stdout.print(title, style="bold", soft_wrap=True, markup=False)
    stdout.print(table(columns, rows, words=words))
    if caption is not None:
        stdout.print(caption, style="dim", soft_wrap=True, markup=False)


def heading(protocol: str) -> str:
    """What the rows of a robustness table are: missing rates, or the modalities that are there."""
    return "present" if protocol == "modalities" else "missing"


def figure(mean: float, sd: float | None = None) -> str:
    """ "1.234" or "1.234 ± 0.021"."""
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def in_bytes(count: int) -> str:
    """ "12 B", "3.4 kB" or "2.0 GB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
