"""Everything that a study's report speaks of, read once: the study itself, the data's optimum and its test's wear, how
much each parameter mattered, and who serves the study's registered name.

Only what reads is here; what the page says of it is decided by functions of these facts. The data and the registry may
be out of reach: then the facts say that they are, and the report is written all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gapwise.data.store import Dataset, Split, open_dataset
from gapwise.data.synth import read_task
from gapwise.errors import CheckpointError, DataError, RegistryError
from gapwise.evaluation.grid import Grid
from gapwise.evaluation.metrics import score
from gapwise.evaluation.optimum import exact_form, optimal_grid
from gapwise.promotion.champions import champions
from gapwise.promotion.in_use import in_use
from gapwise.spec.home import Home
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking, connect
from gapwise.tuning.importance import Importance, importance
from gapwise.tuning.leaders import Leaders, leaders
from gapwise.tuning.predictions import load_predictions, predictions_file
from gapwise.tuning.reading import Study

_MASKS = 5
"""Mask seeds behind the optimum: the first ones of those that models are judged on."""


class Served(NamedTuple):
    """A version that serves, or served, a missing rate."""

    version: str
    trial: str
    study: str
    value: float | None
    """The metric it was registered with, on the validation split of its own study."""
    alias: str
    """champion, or previous where the champion is from this very study."""


class Serving(NamedTuple):
    """Who answered before this study did."""

    name: str
    before: dict[str, Served]
    """By missing rate."""
    here: dict[str, str]
    """{rate: version} where a model of this study is champion now."""


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


def gather(study: Study, home: Home, name: str = "") -> Facts:
    """Read all of it. `name` is a registered model to set beside; by default the one that the study serves."""
    away: list[str] = []
    dataset = _dataset(study, away)
    arms = {arm: importance(study.space, arm, study.of("search")) for arm in study.space.arm_names()}
    return Facts(
        study=study,
        leaders=leaders(study),
        importance={arm: found for arm, found in arms.items() if found is not None},
        optimum={} if dataset is None else _optimum(dataset, study),
        mask_sd={} if dataset is None else _mask_sds(dataset.valid, study),
        test_reads=None if dataset is None else dataset.exposures(),
        serving=_serving(study, home, name, away),
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


def _serving(study: Study, home: Home, name: str, away: list[str]) -> Serving | None:
    """Nothing is made where there is no registry yet."""
    if home.tracking_uri == home.embedded_uri and not home.database.exists():
        return None
    try:
        tracking = connect(home)
        called = name or _called(tracking, study)
        return _asked(tracking, called, study) if called else None
    except RegistryError as error:
        if name:
            raise
        away.append(f"the registry: {error}")
        return None


def _called(tracking: Tracking, study: Study) -> str:
    """The name that a model of the study serves, else the one that is called like its data; empty for neither."""
    serves = [one.name for one in in_use(tracking) if one.study == study.name]
    known = registry.names(tracking)
    return serves[0] if serves else study.dataset if study.dataset in known else ""


def _asked(tracking: Tracking, name: str, study: Study) -> Serving:
    body = champions(tracking, name)
    before, here = {}, {}
    for rate, one in body["champions"].items():
        version, alias = one["version"], "champion"
        if one["study"] == study.name:
            here[rate] = version
            if rate not in body["previous"]:
                continue
            version, alias = body["previous"][rate]["version"], "previous"
        before[rate] = _served(tracking, name, version, rate, alias)
    return Serving(name, before, here)


def _served(tracking: Tracking, name: str, version: str, rate: str, alias: str) -> Served:
    facts = registry.version_of(tracking, name, version).facts
    figure = facts.get("over_seeds", {}).get(facts.get("metric"), {}).get(rate, {})
    return Served(version, facts.get("trial", ""), facts.get("study", ""), figure.get("mean"), alias)
