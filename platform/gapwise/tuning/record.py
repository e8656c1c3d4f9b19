"""What a study was asked, in a file of its folder: the same name never means two things.

The number of trials may grow, and budgets may change; another space, dataset or storage is another study, and the
refusal says what differs.
"""

import json
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.data.store import Dataset
from gapwise.errors import StudyError
from gapwise.evaluation.objective import settled
from gapwise.models.reading import read_shape
from gapwise.spec.home import refuse_unusable_name
from gapwise.spec.search import SearchSpec
from gapwise.tuning.space import check_space, default_values, trial_spec
from gapwise.tuning.storage import JOURNAL

FORMAT_VERSION = 1
STUDY_FILE = "study.json"


def settled_space(space: SearchSpec, dataset: Dataset) -> SearchSpec:
    """The space on this dataset: metric `auto` decided, metric and missing rates held against the data (SpecError)."""
    train = settled(space.train, dataset.manifest.shape(), dataset.valid.labels)
    return space.model_copy(update={"train": train})


class Asked(NamedTuple):
    """What a study is asked to be; a study that exists must have been asked the same."""

    name: str
    space: SearchSpec
    dataset: Dataset
    storage: str = JOURNAL

    def record(self) -> dict[str, Any]:
        """What stands in the study's folder; what may change from session to session is left out."""
        return {
            "format_version": FORMAT_VERSION,
            "space": _plain(settled_space(self.space, self.dataset)),
            "data_fingerprint": self.dataset.manifest.fingerprint,
            "storage": self.storage,
        }


def _plain(space: SearchSpec) -> dict[str, Any]:
    may_change = dict.fromkeys(("trials", "baseline_share", "budget", "trial_seconds", "worker_deaths"), True)
    left_out: dict[str, Any] = {**may_change, "train": {"model"}}
    return space.model_dump(mode="json", exclude=left_out)


def open_study(folder: Path, asked: Asked, *, resume: bool) -> None:
    """Create the study's folder, or accept the one that exists. Raises what `check_study` raises."""
    check_study(folder, asked, resume=resume)
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{STUDY_FILE}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(asked.record(), indent=1))
        temporary.replace(folder / STUDY_FILE)


def check_study(folder: Path, asked: Asked, *, resume: bool) -> None:
    """Whether `open_study` would succeed; writes nothing.

    Raises SpecError for a name that cannot be a folder's or a space that does not fit its models, StudyError for a name
    in use without `resume`, for nothing to resume, for another space, dataset or storage (saying what differs) and for
    a study of a newer format, SpecError or DataError for a text encoder that is not there or does not fit the dataset.
    """
    refuse_unusable_name(asked.name, where="--study")
    check_space(asked.space)
    space = settled_space(asked.space, asked.dataset)
    for arm in space.arm_names():
        read_shape(trial_spec(space, arm, default_values(space, arm), seed=space.seed).model, asked.dataset)
    exists = (folder / STUDY_FILE).exists()
    if resume and not exists:
        raise StudyError(f"nothing to resume: no study {asked.name!r}", where=str(folder))
    if exists and not resume:
        advice = "continue it with --resume, or choose another --study"
        raise StudyError(f"study {asked.name!r} exists{_elsewise(folder, asked)}; {advice}", where=str(folder))
    if exists:
        different = differences(recorded_study(folder), asked.record())
        if different:
            raise StudyError(
                f"study {asked.name!r} was started with another {', '.join(different)}", where=str(folder / STUDY_FILE)
            )


def _elsewise(folder: Path, asked: Asked) -> str:
    different = differences(recorded_study(folder), asked.record())
    return f" with another {', '.join(different)}" if different else ""


def recorded_study(folder: Path) -> dict[str, Any]:
    """What the study in this folder was asked; older records are completed by today's defaults.

    Raises StudyError where it cannot be read or was written by a newer gapwise.
    """
    file = folder / STUDY_FILE
    try:
        recorded: dict[str, Any] = json.loads(file.read_text())
        version = recorded["format_version"]
        if version <= FORMAT_VERSION:
            recorded["space"]["train"].pop("model", None)
            recorded["space"] = _plain(SearchSpec.model_validate(recorded["space"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError("cannot be read as a study's record", where=str(file)) from error
    if version > FORMAT_VERSION:
        raise StudyError(
            f"study format {version}, written by a newer gapwise", where=str(file), allowed=f"up to {FORMAT_VERSION}"
        )
    return {"storage": JOURNAL} | recorded


def differences(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What differs, by path: `space.train.epochs (5, now 6)`; of data it is said only that they do."""
    found = []
    for key, value in asked.items():
        if key == "data_fingerprint" and recorded.get(key) != value:
            found.append("dataset (its fingerprint differs)")
        elif key != "format_version":
            found += _differences(key, recorded.get(key), value)
    return found


def _differences(path: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [one for key in keys for one in _differences(f"{path}.{key}", old.get(key), new.get(key))]
    return [] if old == new else [f"{path} ({_short(old)}, now {_short(new)})"]


def _short(value: Any) -> str:
    return "nothing" if value is None else textwrap.shorten(json.dumps(value), 60, placeholder="...")
