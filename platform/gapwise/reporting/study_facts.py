"""Everything that a study's report speaks of, read once: the study itself, the data's optimum and its test's wear, how
much each parameter mattered, and who serves the study's registered name.

Only what reads is here; what the page says of it is decided by functions of these facts. The data and the registry may
be out of reach: then the facts say that they are, and the report is written all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gapwise.data.store import Dataset, Split, open_dataset
from gapwise.data.synth import read_task
from gapwise.errors import CheckpointError, DataError
from gapwise.evaluation.grid import Grid
from gapwise.evaluation.metrics import score
from gapwise.evaluation.optimum import exact_form, optimal_grid
from gapwise.reporting.serving import Serving
from gapwise.tuning.importance import Importance, importance
from gapwise.tuning.leaders import Leaders, leaders
from gapwise.tuning.predictions import load_predictions, predictions_file
from gapwise.tuning.reading import Study

_MASKS = 5
"""Mask seeds behind the optimum: the first ones of those that models are judged on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a report is made of."""

    study: Study
    leaders: Leaders
    importance: Mapping[str, Importance]
    """By arm, where there are trials enough."""
    optimum: Mapping[str, float]
    """The best possible expected score by condition, on synthetic data; empty on others."""
    mask_sd: Mapping[str, Mapping[str, float]]
    """{trial: {condition: sd between mask seeds}} of second-phase runs, mean over training seeds."""
    test_reads: int | None
    """None where the data are not at hand."""
    serving: Serving | None
    away: tuple[str, ...] = ()
    """What could not be asked, in words."""


def gather(study: Study, serving: Serving | None = None, unanswered: tuple[str, ...] = ()) -> Facts:
    """Read all of it but the registry, which `serving_of` asks, and which may have left something unanswered."""
    away = list(unanswered)
    dataset = _dataset(study, away)
    arms = {arm: importance(study.space, arm, study.of("search")) for arm in study.space.arm_names()}
    return Facts(
        study=study,
        leaders=leaders(study),
        importance={arm: found for arm, found in arms.items() if found is not None},
        optimum={} if dataset is None else _optimum(dataset, study),
        mask_sd={} if dataset is None else _mask_sds(dataset.valid, study),
        test_reads=None if dataset is None else dataset.exposures(),
        serving=serving,
        away=tuple(away),
    )


def _dataset(study: Study, away: list[str]) -> Dataset | None:
    """The study's data, if they still lie where they were and still are what they were."""
    if study.data is None:
        away.append("where the data lie is not recorded")
        return None
    try:
        found = open_dataset(Path(study.data))
    except DataError as error:
        away.append(f"the data: {error}")
        return None
    if found.manifest.fingerprint == study.data_fingerprint:
        return found
    away.append(f"the data in {study.data} have changed since")
    return None


def _optimum(dataset: Dataset, study: Study) -> dict[str, float]:
    task = read_task(dataset)
    if task is None:
        return {}
    grid = optimal_grid(exact_form(task), dataset.valid, study.space.train.protocol, range(1, _MASKS + 1))
    return _by_condition(grid, study.metric)


def _by_condition(grid: Grid, metric: str) -> dict[str, float]:
    return {condition: row[metric]["mean"] for condition, row in grid.table().items()}


def _mask_sds(valid: Split, study: Study) -> dict[str, dict[str, float]]:
    """From the answers that second-phase runs left; a run without them is passed over."""
    by_trial: dict[str, list[dict[str, float]]] = {}
    for one in study.of("seeds"):
        if one.outcome.eligible:
            found = _mask_sd(predictions_file(study.folder, one.assignment), valid, study.metric)
            if found:
                by_trial.setdefault(f"{one.assignment.arm}-{one.assignment.source}", []).append(found)
    return {
        trial: {condition: sum(run[condition] for run in runs) / len(runs) for condition in runs[0]}
        for trial, runs in by_trial.items()
    }


def _mask_sd(file: Path, valid: Split, metric: str) -> dict[str, float]:
    try:
        outputs = load_predictions(file)
    except CheckpointError:
        return {}
    if outputs is None or outputs.values.shape[1] < 2:
        return {}
    shape = valid.manifest.shape()
    return {
        condition: float(score(values, valid.labels, shape)[metric].std(ddof=1))
        for condition, values in zip(outputs.conditions, outputs.values, strict=True)
    }
