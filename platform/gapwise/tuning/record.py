"""What a study was asked, in a file of its folder: the same name never means two things.

The number of trials may grow, and budgets may change; another space, dataset or storage is another study.
"""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapwise.errors import StudyError
from gapwise.spec.home import STUDY_FILE
from gapwise.spec.loader import validate
from gapwise.spec.search import SearchSpec
from gapwise.tuning.storage import JOURNAL

FORMAT_VERSION = 1
_MAY_CHANGE = [
    *("trials", "baseline_share", "trials_per_device", "pack", "compile"),
    *("budget", "trial_seconds", "worker_deaths"),
]
"""Keys that are no part of what a study is."""


def plain_space(space: SearchSpec) -> dict[str, Any]:
    left_out: dict[str, Any] = {**dict.fromkeys(_MAY_CHANGE, True), "train": {"model"}}
    return space.model_dump(mode="json", exclude=left_out)


def shelf_prefix(folder: Path) -> str:
    """Before the names of a study's Optuna studies in a database, where studies of other homes may have its name."""
    own = recorded_study(folder).get("id")  # None in studies of older versions
    return f"{folder.name}/" if own is None else f"{folder.name}-{own}/"


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
            recorded["space"] = plain_space(validate(SearchSpec, recorded["space"], where=str(file)))
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
