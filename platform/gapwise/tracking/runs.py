"""Runs as a tree: a parent for a study, a child for each trial, found again by tags when a study is resumed.

Everything goes in as few requests as MLflow's limits allow (1000 metrics, 100 parameters or tags a batch): one request
a key, as Ray Tune's own callback does, costs 751 ms a report through a server.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from gapwise.tracking.client import Tracking, TrackingDown, first_line

PARENT_TAG, KEY_TAG = "mlflow.parentRunId", "gapwise.key"
_METRICS_A_BATCH, _PARAMS_A_BATCH, _LONGEST_PARAM = 1000, 100, 6000


class Point(NamedTuple):
    """One value of one metric at one step."""

    metric: str
    value: float
    step: int


class DataInput(NamedTuple):
    """A dataset as MLflow lists it among a run's inputs."""

    name: str
    digest: str
    """Shown by MLflow; the first characters of the fingerprint."""
    source: str
    profile: dict[str, Any]


def start_run(
    tracking: Tracking, experiment: str, name: str, *, tags: dict[str, str], parent: str | None = None
) -> str:
    """A new run's id."""
    lineage = {PARENT_TAG: parent} if parent else {}
    run = tracking.client.create_run(experiment, run_name=name, tags=tags | lineage)
    return str(run.info.run_id)


def find_run(tracking: Tracking, experiment: str, tags: dict[str, str]) -> str | None:
    """The newest run that has all these tags, or None."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    runs = tracking.client.search_runs([experiment], filter_string=wanted, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def curve_points(group: str, curves: Mapping[str, Mapping[str, float]]) -> list[Point]:
    """`group/NAME` for curves {name: {condition: value}}, with the missing rate in percent as MLflow's step, so that
    its charts draw them; subsets of modalities count up."""
    return [
        Point(f"{group}/{name}", value, _step(condition, index))
        for name, curve in curves.items()
        for index, (condition, value) in enumerate(curve.items())
    ]


def _step(condition: str, index: int) -> int:
    try:
        return round(float(condition) * 100)
    except ValueError:
        return index


def log_points(tracking: Tracking, run_id: str, points: list[Point]) -> None:
    now = int(time.time() * 1000)
    metrics = [Metric(point.metric, point.value, now, point.step) for point in points]
    for start in range(0, len(metrics), _METRICS_A_BATCH):
        tracking.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_BATCH])


def log_facts(tracking: Tracking, run_id: str, *, params: dict[str, Any], tags: dict[str, str]) -> None:
    """Parameters and tags; a parameter longer than MLflow takes is cut."""
    listed = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in params.items()]
    if tags:
        tracking.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    for start in range(0, len(listed), _PARAMS_A_BATCH):
        tracking.client.log_batch(run_id, params=listed[start : start + _PARAMS_A_BATCH])


def log_input(tracking: Tracking, run_id: str, data: DataInput) -> None:
    dataset = Dataset(
        name=data.name,
        digest=data.digest,
        source_type="local",
        source=json.dumps({"uri": data.source}),
        profile=json.dumps(data.profile),
    )
    context = InputTag("mlflow.data.context", "training")
    tracking.client.log_inputs(run_id, [DatasetInput(dataset, [context])])


def log_file(tracking: Tracking, run_id: str, file: Path, folder: str | None = None) -> None:
    tracking.client.log_artifact(run_id, str(file), folder)


def end_run(tracking: Tracking, run_id: str, status: str = "FINISHED") -> None:
    """FINISHED, FAILED or KILLED."""
    tracking.client.set_terminated(run_id, status)


def reopen_run(tracking: Tracking, run_id: str) -> None:
    """A run that ended goes on."""
    tracking.client.update_run(run_id, status="RUNNING")


class TrialRuns:
    """The child runs of one study, each created at its first event and remembered."""

    def __init__(self, tracking: Tracking, experiment: str, parent: str) -> None:
        self._tracking, self._experiment, self._parent = tracking, experiment, parent
        self._ids: dict[str, str] = {}

    def run_of(self, key: str, *, params: dict[str, Any], tags: dict[str, str]) -> str:
        """The child run of a trial. Raises TrackingDown where the server does not answer."""
        if key not in self._ids:
            try:
                self._ids[key] = self._attach(key, params, tags)
            except MlflowException as error:
                raise TrackingDown(first_line(error)) from error
        return self._ids[key]

    def _attach(self, key: str, params: dict[str, Any], tags: dict[str, str]) -> str:
        known = find_run(self._tracking, self._experiment, {PARENT_TAG: self._parent, KEY_TAG: key})
        if known:
            return known
        identity = {KEY_TAG: key, **tags}
        run_id = start_run(self._tracking, self._experiment, key, tags=identity, parent=self._parent)
        log_facts(self._tracking, run_id, params=params, tags={})
        return run_id

    def log(self, run_id: str, points: list[Point]) -> None:
        try:
            log_points(self._tracking, run_id, points)
        except MlflowException as error:
            raise TrackingDown(first_line(error)) from error

    def close(self, run_id: str, *, failed: bool, tags: dict[str, str]) -> None:
        try:
            log_facts(self._tracking, run_id, params={}, tags=tags)
            end_run(self._tracking, run_id, "FAILED" if failed else "FINISHED")
        except MlflowException as error:
            raise TrackingDown(first_line(error)) from error
