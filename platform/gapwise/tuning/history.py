"""What a study was given by earlier ones, in a file of its folder: it stays what it is when they go on or are deleted.

`warm_start` decides what is taken; here is how it is kept, and how Optuna reads it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import BaseModel, ConfigDict

from gapwise.errors import StudyError
from gapwise.tuning.assignment import Values
from gapwise.tuning.files import write_whole

HISTORY_FILE = "warm_start.json"
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
_NO_NUMBER = -1
"""Before every trial of the study: samplers that weigh trials by age take these for the oldest."""


class Past(BaseModel):
    """A search trial of an earlier study, in terms of this one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    trial: str
    values: dict[str, Any]
    state: Literal["complete", "pruned"]
    costs: tuple[float, ...] = ()
    """Of a complete trial: this study's objectives."""
    last: tuple[int, float] | None = None
    """Of a pruned trial: its last epoch, and `train.objective` there."""
    excess: dict[str, float] = {}
    """By constraint of this study: by which share it is above the limit; 0 or less is within."""


class Earlier(NamedTuple):
    """What one arm is given."""

    first: tuple[Values, ...] = ()
    """Configurations to try after the default."""
    history: tuple[Past, ...] = ()
    """Trials that the sampler knows."""


class WarmStart(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    use: Literal["best", "history"]
    arms: dict[str, list[Past]]

    def of(self, arm: str) -> Earlier:
        found = self.arms.get(arm, [])
        if self.use == "history":
            return Earlier(history=tuple(found))
        return Earlier(first=tuple(one.values for one in found))


def save_history(folder: Path, taken: WarmStart) -> None:
    write_whole(folder / HISTORY_FILE, taken.model_dump_json(indent=1))


def load_history(folder: Path) -> WarmStart:
    """Raises StudyError where it is missing or cannot be read: without it no suggestion would be what it was."""
    file = folder / HISTORY_FILE
    try:
        return WarmStart.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        allowed = "what this version of gapwise wrote when the study was created"
        raise StudyError("what earlier studies gave cannot be read", where=str(file), allowed=allowed) from error


def as_optuna(past: Past, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    trial = create_trial(
        state=_STATES[past.state],
        values=list(past.costs) or None,
        params=past.values,
        distributions=dict(distributions),
        intermediate_values=dict([past.last]) if past.last else {},
        constraints=past.excess,
    )
    trial.number = _NO_NUMBER
    return trial
