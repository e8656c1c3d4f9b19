"""Champions that answer in this process: rows in, predictions with the version that gave them out.

It is the router that `gapwise predict` and a served model use, so a promotion is followed within ten seconds.

Shape legend: B samples, T steps, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gapwise.data.store import Split
from gapwise.promotion.predict import of_split
from gapwise.tracking.router import Answered, Router
from gapwise.tracking.served import columns_of

Rows = pd.DataFrame | Mapping[str, Sequence[Any] | NDArray[np.floating]]
TOLD = "missing_rate"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Champion:
    """The champion of one missing rate of a registered name, or of every row's own."""

    rate: float | None
    """The rate that all rows are taken to have; None: estimated for each row from what it lacks."""
    router: Router

    @property
    def name(self) -> str:
        return self.router.name

    @property
    def versions(self) -> dict[str, str]:
        """{missing rate: registered version}, as the registry says now."""
        return self.router.champions()

    @property
    def modalities(self) -> dict[str, tuple[int, int]]:
        """{modality: (T, D)}: the most frames of a sample, and the features of each."""
        return {name: (one.max_length, one.dim) for name, one in self.router.shape().modalities.items()}

    def __repr__(self) -> str:
        at = "each row's own missing rate" if self.rate is None else f"missing rate {self.rate:g}"
        serving = ", ".join(f"{rate}: v{version}" for rate, version in self.versions.items())
        return f"Champion({self.name!r} at {at}; {serving})"

    def predict(self, rows: Rows | Split) -> pd.DataFrame:
        """`prediction` (a score, or a class), `missing_rate` and `version` of each row.

        Rows are a frame, or a dict, with a column a modality. A cell is a (T, D) array or a list of frames, (D,) where
        there is a single one; a column of a dict may be one (B, T, D) array, or (B, D). None is a missing modality, as
        is a column that is not there; None or NaN in place of a frame is a missing frame. A column `missing_rate`
        (0 to 1, or NaN) goes before `rate`. A split of a dataset is answered as it is, indexed by sample id.

        Raises DataError for an unknown modality, another number of features or a number that is not finite.
        """
        if isinstance(rows, Split):
            return self._of_split(rows)
        columns = columns_of(rows) if isinstance(rows, pd.DataFrame) else {name: _cells(rows[name]) for name in rows}
        told = self._told(columns.pop(TOLD, None), len(next(iter(columns.values()), ())))
        index = rows.index if isinstance(rows, pd.DataFrame) else None
        return _frame(self.router.answer_rows(columns, told), index)

    def _told(self, own: Sequence[Any] | None, count: int) -> Any:
        told = np.full(count, np.nan if self.rate is None else self.rate)
        if own is None:
            return told
        said = np.array(own, np.float64)
        return np.where(np.isnan(said), told, said)

    def _of_split(self, split: Split) -> pd.DataFrame:
        frames = [_frame(found, pd.Index(ids, name="id")) for ids, found in of_split(self.router, split, self.rate)]
        return pd.concat(frames)


def _cells(column: Any) -> list[Any]:
    """A sample of an array that is NaN throughout has no such modality."""
    if isinstance(column, np.ndarray) and column.ndim > 1:
        return [None if np.isnan(sample).all() else sample for sample in column]
    return list(column)


def _frame(found: Answered, index: Any) -> pd.DataFrame:
    answers = {"prediction": found.predictions, TOLD: found.rates, "version": found.versions.astype(object)}
    return pd.DataFrame(answers, index=index)
