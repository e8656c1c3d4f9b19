"""A single training run in MLflow: begun or continued, fed with epochs, and closed truthfully."""

import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from mlflow.exceptions import MlflowException

import gapwise
from gapwise.data.store import Dataset
from gapwise.errors import CheckpointError
from gapwise.models.saved import ModelFolder
from gapwise.spec.base import flat
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.tracking.client import Tracking, experiment_id, first_line
from gapwise.tracking.inputs import data_input
from gapwise.tracking.locate import FOLDER_TAG
from gapwise.tracking.runs import NOTE_TAG, Point, curve_points, end_run, log_facts, log_input, log_points, start_run

_log = logging.getLogger(__name__)


class TrainRun:
    """A context that ends its run as FINISHED, KILLED when it was interrupted, FAILED when anything else leaves it."""

    def __init__(self, tracking: Tracking, run_id: str, metric: str) -> None:
        self._tracking, self.run_id, self._metric = tracking, run_id, metric
        self._waiting: list[Point] = []

    @classmethod
    def begin(
        cls, tracking: Tracking, home: Home, spec: TrainSpec, dataset: Dataset, *, resume: str | None
    ) -> "TrainRun":
        """A new run, or the one to resume. Raises CheckpointError for a run that does not exist."""
        metric = spec.objective.metric
        if resume is not None:
            return cls(tracking, _existing(tracking, resume), metric)
        experiment = experiment_id(tracking, home, dataset.manifest.name)
        tags = {
            "gapwise.kind": "train",
            "gapwise.version": gapwise.__version__,
            "gapwise.spec_fingerprint": fingerprint(spec),
            "gapwise.data_fingerprint": dataset.manifest.fingerprint,
        }
        run_id = start_run(tracking, experiment, f"train {spec.model.name}", tags=tags)
        log_facts(tracking, run_id, params=flat(spec.model_dump(mode="json")), tags={})
        log_input(tracking, run_id, data_input(dataset))
        return cls(tracking, run_id, metric)

    def __enter__(self) -> "TrainRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "KILLED" if kind is KeyboardInterrupt else "FAILED"
        end_run(self._tracking, self.run_id, "FINISHED" if kind is None else status)

    def log_epoch(self, epoch: dict[str, Any]) -> None:
        """One request an epoch; what the server does not take now goes with the next."""
        step = epoch["epoch"]
        curve = {f"valid/{self._metric}/{key}": value for key, value in epoch["metrics"][self._metric].items()}
        losses = {f"train/{name}": value for name, value in epoch["losses"].items()}
        values = {"valid/objective": epoch["cost"]} | curve | losses
        now = time.time()
        self._waiting += [Point(name, value, step, now) for name, value in values.items()]
        try:
            log_points(self._tracking, self.run_id, self._waiting)
        except MlflowException as error:
            _log.warning("the tracking server did not take epoch %d: %s", step, first_line(error))
            return
        self._waiting = []

    def log_model(self, model: ModelFolder, folder: Path) -> None:
        """The kept weights' curves and diagnostics, and where they are."""
        now = time.time()
        curves = curve_points("curve", model.validation, time=now)
        diagnostics = curve_points("diagnostics", model.diagnostics, time=now)
        log_points(self._tracking, self.run_id, self._waiting + curves + diagnostics)
        tags = {FOLDER_TAG: str(folder), NOTE_TAG: _note(model, self._metric, self.run_id)}
        log_facts(self._tracking, self.run_id, params={}, tags=tags)
        self._tracking.client.log_artifacts(self.run_id, str(folder), "model")


def _note(model: ModelFolder, metric: str, run_id: str) -> str:
    """What the UI says of the run, in Markdown."""
    curve, spec = model.validation[metric], model.spec
    kept = f"kept epoch {model.trained['kept_epoch']} of {model.trained['epochs']}"
    mean = f"{sum(curve.values()) / len(curve):.4f}"
    return (
        f"**{spec.model.name}**, seed {spec.seed}, {kept}. Validation {metric}, mean over conditions: {mean}"
        f" (one mask seed; metric `curve/{metric}`, the step is the missing rate in percent).\n\n"
        f"- `gapwise evaluate {run_id} --data DIR`"
    )


def _existing(tracking: Tracking, run_id: str) -> str:
    try:
        tracking.client.get_run(run_id)
    except MlflowException as error:
        raise CheckpointError(f"no run {run_id!r} to resume", where=tracking.uri) from error
    return run_id
