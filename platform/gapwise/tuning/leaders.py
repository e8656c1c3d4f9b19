"""Who leads a study at each condition, with the baseline and the floor beside: from its result once it is finished,
before that from the complete trials of its search, which is weaker evidence and is said.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from gapwise.data.store import open_dataset
from gapwise.errors import DataError
from gapwise.evaluation.metrics import floor
from gapwise.tuning.assignment import Finished
from gapwise.tuning.reading import Study
from gapwise.tuning.result import Best
from gapwise.tuning.selection import Standing, first_of, standings


class Leaders(NamedTuple):
    """The best by condition. `floor` is None where the data are not at hand."""

    source: Literal["second phase", "search"]
    best: dict[str, Best]
    baseline: dict[str, Best]
    floor: float | None


def leaders(study: Study) -> Leaders:
    """A search trial is one seed under one mask seed; a result's figures are means over seeds."""
    if study.result is not None:
        result = study.result
        return Leaders("second phase", result.best, result.baseline, result.floor[study.metric])
    searched = [Finished(one.assignment, one.outcome) for one in study.of("search")]
    table = standings(searched, study.metric, seeds=1)
    best, baseline = (best_by_condition(table, study.metric, baseline=which) for which in (False, True))
    return Leaders("search", best, baseline, _floor(study))


def best_by_condition(table: dict[str, list[Standing]], metric: str, *, baseline: bool) -> dict[str, Best]:
    """Who is first at each condition of a table of standings, among the searched arms or of the baseline."""
    rows = {condition: first_of(rows, baseline=baseline) for condition, rows in table.items()}
    return {
        condition: Best(
            trial=f"{row.arm}-{row.source}",
            metric=metric,
            mean=row.mean,
            sd=row.sd,
            seeds=row.seeds,
            probability_best=row.probability_best,
        )
        for condition, row in rows.items()
        if row is not None
    }


def _floor(study: Study) -> float | None:
    if study.data is None:
        return None
    try:
        dataset = open_dataset(Path(study.data))
    except DataError:
        return None
    if dataset.manifest.fingerprint != study.data_fingerprint:
        return None
    return float(floor(dataset.train.labels, dataset.valid.labels, dataset.manifest.shape())[study.metric])
