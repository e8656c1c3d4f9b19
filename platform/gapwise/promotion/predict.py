"""Answers of the champions for whole datasets and files of rows, block by block, so that neither need fit in memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.predictions import BLOCK, IDS, RATES, read_rows, writing
from gapwise.data.store import Split
from gapwise.errors import DataError
from gapwise.promotion.judge import refuse_other_manifest
from gapwise.tracking.router import Answered, Router

Blocks = Iterator[tuple[list[str], Answered]]
"""(ids, answers) of one block after the other."""


class Predicted(NamedTuple):
    """What was written."""

    rows: int
    versions: dict[str, int]
    """How many rows each version answered."""
    missing_rate: float
    """Mean of the estimated or told rates; NaN without rows."""


def of_split(router: Router, split: Split, rate: float | None) -> Blocks:
    """Every sample of a split. `rate` is told for all; None lets the router estimate it.

    Raises DataError for a split that the champions do not read.
    """
    model = router.model(next(iter(router.champions().values()))).folder
    refuse_other_manifest(model, split.manifest, split.folder)
    reading, ids = split.reading(model.shape), split.ids
    for first in range(0, len(split), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(split)))
        told = None if rate is None else np.full(len(rows), rate)
        yield ids[first : first + len(rows)], router.answer(reading.batch(rows), told)


def of_rows(router: Router, file: Path, rate: float | None) -> Blocks:
    """Every row of a Parquet file; its own `missing_rate` column, where it has one, goes before `rate`."""
    for block in read_rows(file, router.shape()):
        told = None if rate is None else np.full(len(block.ids), rate)
        if block.told is not None:
            own = _numbers(block.told, f"{file}, from row {block.first}")
            told = own if told is None else np.where(np.isnan(own), told, own)
        try:
            yield block.ids, router.answer_rows(block.columns, told)
        except DataError as error:
            where = f"{file}, from row {block.first}: {error.where}"
            raise DataError(error.what, where=where, allowed=error.allowed) from error


def _numbers(told: list[Any], where: str) -> NDArray[np.float64]:
    try:
        return np.array(told, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("missing_rate is no number", where=where, allowed="0 to 1, or null") from error


def write_predictions(blocks: Blocks, out: Path, seen: Callable[[int], Any]) -> Predicted:
    """Columns id, prediction, missing_rate and version; `seen` is told of each block how many rows it had."""
    rows, versions, rates = 0, Counter[str](), 0.0
    with writing(out) as write:
        for ids, found in blocks:
            answers = {"prediction": found.predictions, RATES: found.rates.round(4), "version": found.versions}
            write({IDS: ids, **answers})
            rows += len(ids)
            versions.update(found.versions.tolist())
            rates += float(found.rates.sum())
            seen(len(ids))
    return Predicted(
        rows, dict(sorted(versions.items(), key=lambda item: int(item[0]))), rates / rows if rows else np.nan
    )
