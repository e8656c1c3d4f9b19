"""Who leads a study at each condition, with the baseline and the floor beside: from its result once it is finished,
before that from the complete trials of its search, which is weaker evidence and is said.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from gapwise.data.store import open_dataset
from gapwise.errors import DataError
from gapwise.evaluation.metrics import floor
from gapwise.evaluation.objective import as_cost
from gapwise.spec.search import BASELINE
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.assignment import Finished
from gapwise.tuning.front import Candidate, candidates, pareto_front
from gapwise.tuning.reading import Study
from gapwise.tuning.result import Best, FrontMember, Spread
from gapwise.tuning.selection import Standing, first_of, standings


class Leaders(NamedTuple):
    """The best by condition, and the Pareto fronts of several objectives. `floor` is None where the data are not at
    hand.
    """

    source: Literal["second phase", "search"]
    best: dict[str, Best]
    baseline: dict[str, Best]
    floor: float | None
    front: list[FrontMember]
    baseline_front: list[FrontMember]


def leaders(study: Study) -> Leaders:
    """A search trial is one seed under one mask seed; a result's figures are means over seeds."""
    if study.result is not None:
        result = study.result
        floor_ = result.floor[study.metric]
        return Leaders("second phase", result.best, result.baseline, floor_, result.front, result.baseline_front)
    searched = [Finished(one.assignment, one.outcome) for one in study.of("search")]
    table = standings(searched, study.metric, seeds=1)
    best, baseline = (best_by_condition(table, study.metric, baseline=which) for which in (False, True))
    objectives = study.space.objectives
    fronts = (front_members(searched, objectives), front_members(searched, objectives, only=BASELINE))
    return Leaders("search", best, baseline, _floor(study), *fronts)


def front_members(
    runs: Sequence[Finished], objectives: Mapping[str, ObjectiveSpec], *, only: str | None = None
) -> list[FrontMember]:
    """The Pareto front of all runs, or `only` of an arm's, with figures in the direction of each metric."""
    if not objectives:
        return []
    among = [run for run in runs if only in (None, run.assignment.arm)]
    return [_member(one, objectives) for one in pareto_front(candidates(among, objectives))]


def _member(one: Candidate, objectives: Mapping[str, ObjectiveSpec]) -> FrontMember:
    spreads = {
        name: Spread(mean=as_cost(objective.metric, one.mean[name]), sd=one.sd[name])
        for name, objective in objectives.items()
    }
    return FrontMember(
        trial=f"{one.arm}-{one.source}", arm=one.arm, values=one.values, seeds=one.seeds, objectives=spreads
    )


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
