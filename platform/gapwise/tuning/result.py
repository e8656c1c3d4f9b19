"""What a finished study leaves for people, for `promote` and for reports: one JSON file, versioned."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gapwise.errors import StudyError, nearest
from gapwise.spec.home import study_names
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.files import write_whole

FORMAT_VERSION = 1
RESULT_FILE = "result.json"


class _Value(BaseModel):
    # An undefined figure stays NaN in the file: null would not come back as a number.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Spread(_Value):
    """A figure over training seeds."""

    mean: float
    sd: float


class Best(_Value):
    """The configuration with the best second-phase mean at a condition."""

    trial: str
    """Its name, such as "prlf-7"."""
    metric: str
    mean: float
    sd: float
    seeds: int
    probability_best: float | None = None
    """How often it has the best mean when validation groups, mask seeds and training seeds are resampled, among all
    configurations of the second phase, the baseline's too. None in results of older versions, and where predictions of
    a run are missing or validation is one group."""


class FrontMember(_Value):
    """A configuration of a Pareto front."""

    trial: str
    arm: str
    values: dict[str, Any]
    seeds: int
    objectives: dict[str, Spread]
    """By name, in the direction of the objective's metric; sd between seeds."""


class RefitModel(_Value):
    """A winner after its refit: figures over its seeds, and the one that ships."""

    trial: str
    arm: str
    values: dict[str, Any]
    spec_fingerprint: str
    epochs: int
    seeds: list[int]
    shipped_seed: int
    folder: str
    """Model folder of the shipped seed, relative to the study's folder."""
    over_seeds: dict[str, dict[str, Spread]]
    """{metric: {condition: figure}} on validation, over the refit's fresh seeds."""
    shipped: dict[str, dict[str, float]]
    """{metric: {condition: value}} of the shipped seed on validation."""
    diagnostics: dict[str, dict[str, float]] = {}
    """{name: {condition: value}} of the shipped seed on validation; empty for a model without any."""


class StudyResult(_Value):
    """A study, finished."""

    format_version: int = FORMAT_VERSION
    study: str
    question: str
    task: str
    dataset: str
    """Name of the dataset."""
    data: str
    """Folder it was read from; where, not what."""
    fingerprints: dict[str, str]
    """`dataset`, `train`, `valid` and `test`."""
    spec_fingerprint: str
    protocol: ProtocolSpec
    objective: ObjectiveSpec
    mask_seeds: int
    trials: dict[str, int]
    arms: dict[str, dict[str, int]]
    """Trials by arm and state: whether the comparison had equal budgets."""
    wall_seconds: float
    search_seconds: float
    train_seconds: float
    best: dict[str, Best]
    """By condition, over the searched arms."""
    baseline: dict[str, Best]
    """The same for `late_fusion`."""
    floor: dict[str, float]
    """{metric: value} of the best constant answer on validation."""
    models: list[RefitModel]
    objectives: dict[str, ObjectiveSpec] = {}
    """By name, where the study has several: what the fronts are of."""
    front: list[FrontMember] = []
    """The Pareto front of the second phase, over all arms, the baseline's configurations too."""
    baseline_front: list[FrontMember] = []
    """`late_fusion`'s own."""
    search_front: list[FrontMember] = []
    """Of the search's complete trials over all arms: one seed and one mask each, so weaker evidence."""
    dropped: dict[str, dict[str, int]] = {}
    """{configuration: {condition: seeds}}: where it fell behind the leader beyond doubt, after how many seeds."""
    runs_saved: int = 0
    """Runs of the second phase that were not started, because their configuration was dropped everywhere."""
    parent_run_id: str

    def model(self, trial: str) -> RefitModel:
        return next(model for model in self.models if model.trial == trial)


def save_result(folder: Path, result: StudyResult) -> None:
    write_whole(folder / RESULT_FILE, result.model_dump_json(indent=1))


def load_result(studies: Path, name: str) -> StudyResult:
    """A finished study by name. Raises StudyError, naming those that exist, where it is missing or not finished."""
    file = studies / name / RESULT_FILE
    if not (studies / name).is_dir():
        known = study_names(studies)
        raise StudyError(
            f"no study {name!r}{nearest(name, known)}", where=str(studies), allowed=known or "none exists yet"
        )
    if not file.exists():
        raise StudyError(
            f"study {name!r} is not finished; continue it with `gapwise tune ... --resume`", where=str(file)
        )
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise StudyError(f"result format {version!r}", where=str(file), allowed=str(FORMAT_VERSION))
        return StudyResult.model_validate(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError("cannot be read", where=str(file), allowed="a result of this version of gapwise") from error
