"""Runs as a tree: a parent for a study, a child for each trial, found again by tags when a study is resumed.

Everything goes in as few requests as MLflow's limits allow (1000 metrics, 100 parameters or tags a batch): one request
a key, as Ray Tune's own callback does, costs 751 ms a report through a server.

A request that nobody answered may have been carried out, or may yet be, so every one here can be made again. A point
carries the time at which it was measured: run, metric, step, time and value are the primary key of MLflow's table, so
a second telling adds nothing. A run that was created twice is found by its tags, and the empty one deleted.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from gapwise.spec.home import who
from gapwise.tracking.client import Tracking, asking

PARENT_TAG, KEY_TAG = "mlflow.parentRunId", "gapwise.key"
NOTE_TAG = "mlflow.note.content"
"""What the UI shows as a run's description, as Markdown."""
_METRICS_A_BATCH, _PARAMS_A_BATCH, _LONGEST_PARAM = 1000, 100, 6000
_RUNS_A_PAGE = 1000
_TAKEN = ("duplicate key", "unique constraint", "duplicate entry")
"""What PostgreSQL, SQLite and MySQL say of a key that somebody else was quicker to take."""


class Point(NamedTuple):
    """One value of one metric at one step."""

    metric: str
    value: float
    step: int
    time: float
    """When it was measured, in seconds since the epoch; the same whenever it is told again."""


class DataInput(NamedTuple):
    """A dataset as MLflow lists it among a run's inputs."""

    name: str
    digest: str
    """Shown by MLflow; the first characters of the fingerprint."""
    source: str
    profile: dict[str, Any]


def start_run(
    tracking: Tracking, experiment: str, name: str, *, tags: dict[str, str], began: float | None = None
) -> str:
    """A new run's id. It began now unless told otherwise, in seconds since the epoch."""
    start = None if began is None else _milliseconds(began)
    run = tracking.client.create_run(experiment, run_name=name, tags={**_by(), **tags}, start_time=start)
    return str(run.info.run_id)


def _by() -> dict[str, str]:
    """What the UI shows as a run's creator and source; MLflow's own client would say so of itself."""
    return {"mlflow.user": who(), "mlflow.source.name": "gapwise", "mlflow.source.type": "LOCAL"}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def find_run(tracking: Tracking, experiment: str, tags: dict[str, str]) -> str | None:
    """The newest run that has all these tags, or None."""
    runs = tracking.client.search_runs([experiment], filter_string=_with_tags(tags), max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _with_tags(tags: dict[str, str]) -> str:
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


def _all_runs(tracking: Tracking, experiment: str, tags: dict[str, str]) -> list[Run]:
    runs: list[Run] = []
    token: str | None = ""
    while token is not None:
        page = tracking.client.search_runs(
            [experiment], filter_string=_with_tags(tags), max_results=_RUNS_A_PAGE, page_token=token or None
        )
        runs += page
        token = page.token or None
    return runs


def curve_points(group: str, curves: Mapping[str, Mapping[str, float]], *, time: float) -> list[Point]:
    """`group/NAME` for curves {name: {condition: value}}, with the missing rate in percent as MLflow's step, so that
    its charts draw them; subsets of modalities count up."""
    return [
        Point(f"{group}/{name}", value, _step(condition, index), time)
        for name, curve in curves.items()
        for index, (condition, value) in enumerate(curve.items())
    ]


def _step(condition: str, index: int) -> int:
    try:
        return round(float(condition) * 100)
    except ValueError:
        return index


def log_points(tracking: Tracking, run_id: str, points: list[Point]) -> None:
    metrics = [Metric(point.metric, point.value, _milliseconds(point.time), point.step) for point in points]
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
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    try:
        tracking.client.log_inputs(run_id, inputs)
    except MlflowException as error:  # another study of this dataset began at the same moment: now MLflow finds its row
        if not any(words in str(error).lower() for words in _TAKEN):
            raise
        tracking.client.log_inputs(run_id, inputs)


def log_file(tracking: Tracking, run_id: str, file: Path, folder: str | None = None) -> None:
    """Raises TrackingDown or TrackingRefused."""
    with asking():
        tracking.client.log_artifact(run_id, str(file), folder)


def log_folder(tracking: Tracking, run_id: str, folder: Path, name: str) -> None:
    """Every file of it, below `name`. Raises TrackingDown or TrackingRefused."""
    with asking():
        tracking.client.log_artifacts(run_id, str(folder), name)


def end_run(tracking: Tracking, run_id: str, status: str, *, ended: float | None = None) -> None:
    """FINISHED, FAILED or KILLED; now unless told otherwise, in seconds since the epoch."""
    tracking.client.set_terminated(run_id, status, None if ended is None else _milliseconds(ended))


def reopen_run(tracking: Tracking, run_id: str) -> None:
    """A run that ended goes on."""
    tracking.client.update_run(run_id, status="RUNNING")


class TrialRuns:
    """The child runs of one study, by the trial's key; each is created at its first event.

    Every method raises TrackingDown where the server does not answer, TrackingRefused where it will not take this.
    """

    def __init__(self, tracking: Tracking, experiment: str, parent: str) -> None:
        self._tracking, self._experiment, self._parent = tracking, experiment, parent
        self._ids: dict[str, str] = {}
        self._children: dict[str, str] | None = None
        """{key: run id} on the server, our own included; None before it is asked, and after a creation that it did not
        answer."""

    def run_of(self, key: str, *, began: float, params: dict[str, Any], tags: dict[str, str]) -> str:
        """The child run of a trial, which began at `began` (seconds since the epoch)."""
        if key not in self._ids:
            with asking():
                self._children = self._existing() if self._children is None else self._children
                if key not in self._children:
                    self._children[key] = self._create(key, began, tags)
                run_id = self._children[key]
                # Also where it exists: whoever created it, and that may be this very call, may not have come this far.
                log_facts(self._tracking, run_id, params=params, tags={})
            self._ids[key] = run_id
        return self._ids[key]

    def _create(self, key: str, began: float, tags: dict[str, str]) -> str:
        identity = {PARENT_TAG: self._parent, KEY_TAG: key}
        try:
            return start_run(self._tracking, self._experiment, key, tags=identity | tags, began=began)
        except MlflowException:
            self._children = None
            raise

    def _existing(self) -> dict[str, str]:
        by_key: dict[str, list[Run]] = {}
        for run in _all_runs(self._tracking, self._experiment, {PARENT_TAG: self._parent}):
            if KEY_TAG in run.data.tags:
                by_key.setdefault(run.data.tags[KEY_TAG], []).append(run)
        return {key: self._only(key, runs) for key, runs in by_key.items()}

    def _only(self, key: str, runs: list[Run]) -> str:
        """The one that we write to, or that was written to; empty ones beside it are deleted."""
        kept, *others = sorted(runs, key=lambda run: (run.info.run_id != self._ids.get(key), _is_empty(run)))
        for run in others:
            if _is_empty(run):
                self._tracking.client.delete_run(run.info.run_id)
        return str(kept.info.run_id)

    def log(self, run_id: str, points: list[Point]) -> None:
        with asking():
            log_points(self._tracking, run_id, points)

    def close(self, run_id: str, *, failed: bool, tags: dict[str, str], ended: float) -> None:
        with asking():
            log_facts(self._tracking, run_id, params={}, tags=tags)
            end_run(self._tracking, run_id, "FAILED" if failed else "FINISHED", ended=ended)

    def settle(self) -> None:
        """One child a trial, also where a creation was carried out that nobody heard an answer to.

        It may have been an earlier driver's, or one that MLflow's client repeated by itself without a word.
        """
        with asking():
            self._children = self._existing()


def _is_empty(run: Run) -> bool:
    return not run.data.params and not run.data.metrics
