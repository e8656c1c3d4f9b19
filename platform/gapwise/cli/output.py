"""How commands answer: a table for people, or one JSON object on stdout with `--json`; logs always on stderr."""

import json
import math
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

_WIDE = 140
"""Columns of a table that goes to a file or a pipe; a terminal has its own width."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _WIDE)


stdout = _console(stderr=False)
stderr = _console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]


def say(line: str) -> None:
    """One line to the person, beside the log."""
    stderr.print(line, soft_wrap=True, markup=False)


def print_json(body: dict[str, Any]) -> None:
    """An undefined figure (NaN: a two-class metric where no sample counts) is null, for NaN is not JSON."""
    typer.echo(json.dumps(_without_nan(body), sort_keys=False, allow_nan=False))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: list[str], rows: list[list[str]], *, caption: str | None = None) -> None:
    """A plain table; numbers are right-aligned, the first column is not."""
    made = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        made.add_row(*row)
    stdout.print(title, style="bold", soft_wrap=True, markup=False)
    stdout.print(made)
    if caption is not None:
        stdout.print(caption, style="dim", soft_wrap=True, markup=False)


def heading(protocol: str) -> str:
    """What the rows of a robustness table are: missing rates, or the modalities that are there."""
    return "present" if protocol == "modalities" else "missing"


def figure(mean: float, sd: float | None = None) -> str:
    """ "1.234" or "1.234 ± 0.021"."""
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"
