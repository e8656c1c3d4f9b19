"""A study's parent run in MLflow, begun or found again by the study's name."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlflow.exceptions import MlflowException
from pydantic import BaseModel

import gapwise
from gapwise.data.store import Dataset
from gapwise.errors import RegistryError
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.home import Home
from gapwise.spec.search import SearchSpec
from gapwise.tracking.client import Tracking, asking, experiment_id, first_line
from gapwise.tracking.inputs import data_input
from gapwise.tracking.runs import (
    NOTE_TAG,
    TrialRuns,
    curve_points,
    end_run,
    find_run,
    log_facts,
    log_input,
    log_points,
    reopen_run,
    start_run,
)

_NOTE = (
    "**{question}**\n\nNot finished: the winners will stand here. `gapwise study show {name}` says how far it is; one"
    " that was stopped goes on with the same `gapwise tune` and `--resume`."
)
_LONGEST_NOTE = 8000
"""Characters; MLflow takes no longer tag."""
_GOALS = ("objectives", "constraints", "warm_start")
"""Parts of a space that become parameters of the run where it has them."""


class StudyName(NamedTuple):
    """Which study a parent run is of."""

    name: str
    own: str | None
    """Told apart by it from studies of the same name, on a server that several homes share; None in older studies."""


class StudyRun:
    """The parent run, and the children below it. All but `begin` raise TrackingDown or TrackingRefused."""

    def __init__(self, tracking: Tracking, experiment: str, run_id: str) -> None:
        self._tracking, self.run_id = tracking, run_id
        self.trials = TrialRuns(tracking, experiment, run_id)

    @classmethod
    def begin(
        cls, tracking: Tracking, home: Home, study: StudyName, space: SearchSpec, dataset: Dataset, *, resume: bool
    ) -> "StudyRun":
        """A new run, or with `resume` the newest of this study and data.

        Raises RegistryError where the server does not answer.
        """
        try:
            return cls._begin(tracking, home, study, space, dataset, resume)
        except MlflowException as error:
            raise RegistryError(
                f"the tracking server does not answer: {first_line(error)}", where=tracking.uri
            ) from error

    @classmethod
    def _begin(
        cls, tracking: Tracking, home: Home, study: StudyName, space: SearchSpec, dataset: Dataset, resume: bool
    ) -> "StudyRun":
        experiment = experiment_id(tracking, home, dataset.manifest.name)
        identity = {
            "gapwise.kind": "study",
            "gapwise.study": study.name,
            "gapwise.data_fingerprint": dataset.manifest.fingerprint,
        }
        if study.own is not None:
            identity["gapwise.study_id"] = study.own
        known = find_run(tracking, experiment, identity) if resume else None
        if known is not None:
            reopen_run(tracking, known)
            return cls(tracking, experiment, known)
        tags = identity | {
            "gapwise.version": gapwise.__version__,
            "gapwise.spec_fingerprint": fingerprint(space),
            NOTE_TAG: _NOTE.format(question=space.question, name=study.name),
        }
        run_id = start_run(tracking, experiment, study.name, tags=tags)
        params = {
            "arms": ", ".join(space.arm_names()),
            "trials": space.trials,
            "executor": space.executor,
            "objective": json.dumps(space.train.objective.model_dump(mode="json")),
            "protocol": json.dumps(space.train.protocol.model_dump(mode="json")),
            **{
                name: json.dumps(value)
                for name, value in space.model_dump(mode="json", include=set(_GOALS)).items()
                if value and any(value.values())
            },
        }
        log_facts(tracking, run_id, params=params, tags={})
        log_input(tracking, run_id, data_input(dataset))
        return cls(tracking, experiment, run_id)

    def end(self, status: str) -> None:
        """FINISHED, or KILLED where the study can be continued."""
        with asking():
            end_run(self._tracking, self.run_id, status)

    def log_result(self, best: Mapping[str, BaseModel], baseline: Mapping[str, BaseModel]) -> None:
        """The winners by rate, as files that the UI shows."""
        tables = {"best.json": best, "baseline.json": baseline}
        for name, rows in tables.items():
            plain = {rate: row.model_dump() for rate, row in rows.items()}
            with asking():
                self._tracking.client.log_dict(self.run_id, plain, name)

    def log_curves(self, group: str, curves: Mapping[str, Mapping[str, float]]) -> None:
        """`group/NAME` of {name: {condition: value}} on the parent run; what it says already is not said again."""
        with asking():
            known = {f"{group}/{name}": self._recorded(f"{group}/{name}") for name in curves}
            points = curve_points(group, curves, time=time.time())
            new = [point for point in points if known[point.metric].get(point.step) != point.value]
            log_points(self._tracking, self.run_id, new)

    def _recorded(self, metric: str) -> dict[int, float]:
        """{step: newest value}."""
        history = self._tracking.client.get_metric_history(self.run_id, metric)
        return {one.step: one.value for one in sorted(history, key=lambda one: one.timestamp)}

    def note(self, text: str) -> None:
        """What the UI says of the run, in Markdown."""
        with asking():
            self._tracking.client.set_tag(self.run_id, NOTE_TAG, text[:_LONGEST_NOTE])

    def log_front(self, fronts: Mapping[str, Sequence[BaseModel]]) -> None:
        """The Pareto fronts by name, as a file that the UI shows; the trials of the first one as a tag too."""
        tables = {name: [one.model_dump() for one in members] for name, members in fronts.items()}
        first = next(iter(tables.values()))
        with asking():
            self._tracking.client.log_dict(self.run_id, tables, "pareto_front.json")
            self._tracking.client.set_tag(self.run_id, "gapwise.front", ", ".join(one["trial"] for one in first)[:5000])

    def log_diagnostics(self, found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """{trial: {name: {condition: value}}} of the refitted winners, as a file; none where no model has any."""
        said = {trial: dict(curves) for trial, curves in found.items() if curves}
        if said:
            with asking():
                self._tracking.client.log_dict(self.run_id, said, "diagnostics.json")
