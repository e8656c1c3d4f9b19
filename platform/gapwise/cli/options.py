"""Options that several verbs share, and reading them."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from gapwise.cli import completion
from gapwise.errors import SpecError

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="GAPWISE_DATA", help="Dataset folder (see `gapwise data`)."),
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of the YAML file; repeatable.")
]
WarmStartOption = Annotated[
    list[str],
    typer.Option(
        "--warm-start",
        metavar="STUDY",
        autocompletion=completion.studies,
        help="An earlier study to start from (warm_start); repeatable.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="ADDRESS", envvar="RAY_ADDRESS", help="Ray cluster to use; by default a local one."
    ),
]


_WORKERS = "N, or MIN:MAX with 1 <= MIN <= MAX"
_MOST_RATES = 100
"""Rates have two decimals, so a finer step than this is refused later; it must not fill the memory before."""


def search_settings(settings: list[str], trials: int | None, warm_start: list[str]) -> tuple[str, ...]:
    """Options that are another way of writing a value of the search space, behind `--set`."""
    also = [f"trials={trials}"] if trials else []
    if warm_start:
        also.append(f"warm_start.studies={json.dumps(warm_start)}")
    return (*settings, *also)


def needed(data: Path | None) -> Path:
    """The dataset folder, absolute. Raises SpecError where none was named."""
    if data is None:
        raise SpecError("no dataset was named", where="--data", allowed="--data DIR, or GAPWISE_DATA")
    return data.absolute()


def rates(text: str) -> tuple[float, ...]:
    """ "0:0.9:0.1" (first:last:step, both ends included) or "0,0.3,0.7". Raises SpecError for anything else."""
    allowed = "FIRST:LAST:STEP or a comma-separated list, each rate within [0, 1]"
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            count = round((last - first) / step) if step > 0 else -1
            found = tuple(round(first + index * step, 6) for index in range(min(count, _MOST_RATES) + 1))
        else:
            found = tuple(float(part) for part in text.split(","))
    except (ValueError, OverflowError) as error:
        raise SpecError(f"{text!r} is not a list of rates", where="--rates", allowed=allowed) from error
    if not found or any(not 0.0 <= rate <= 1.0 for rate in found):
        raise SpecError(f"{text!r} has a rate outside [0, 1], or none", where="--rates", allowed=allowed)
    return found


def worker_count(text: str) -> int | tuple[int, int]:
    """ "2", or "1:4" for at least one and as many as there is room for up to four. Raises SpecError for the rest."""
    numbers = text.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() and number.isascii() for number in numbers):
        raise SpecError(f"{text!r} is no number of workers", where="--workers", allowed=_WORKERS)
    fewest, most = int(numbers[0]), int(numbers[-1])
    if not 1 <= fewest <= most:
        raise SpecError(f"{text!r} is no range of workers", where="--workers", allowed=_WORKERS)
    return fewest if len(numbers) == 1 else (fewest, most)


def rate_or(word: str, text: str) -> float | None:
    """A missing rate for `--rate`; None for the word in place of one. Raises SpecError for anything else."""
    if text == word:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0.0 <= rate <= 1.0:
        raise SpecError(f"not a missing rate: {text!r}", where="--rate", allowed=f"{word}, or a number from 0 to 1")
    return rate


def seconds(text: str) -> float:
    """ "90", "90s", "30m" or "2h". Raises SpecError for anything else."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        value = float(number) * units[unit]
    except ValueError as error:
        raise SpecError(f"{text!r} is not a duration", where="--time-budget", allowed="90s, 30m, 2h") from error
    if not 0 < value < math.inf:
        raise SpecError(f"{text!r} is not a positive duration", where="--time-budget", allowed="90s, 30m, 2h")
    return value


_SIZES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def size(text: str, *, where: str = "--quota") -> int:
    """ "500MB" or "20GB" in bytes. Raises SpecError for anything else."""
    try:
        value = float(text[:-2]) * _SIZES[text[-2:]]
    except (KeyError, ValueError) as error:
        raise SpecError(f"{text!r} is not a size", where=where, allowed="500MB, 20GB, 1.5TB") from error
    if not 0 <= value < math.inf:
        raise SpecError(f"{text!r} is not a size", where=where, allowed="500MB, 20GB, 1.5TB")
    return round(value)
