"""Taking studies, or what they no longer need, off the disk; a study that a driver has is never touched."""

import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from gapwise.distributed.lock import DriverLock
from gapwise.errors import StudyError
from gapwise.spec.home import Home
from gapwise.tuning.reading import Study, study_folder
from gapwise.tuning.record import recorded_study, shelf_prefix
from gapwise.tuning.retention import Item, Kind, Model, free_paths
from gapwise.tuning.storage import JOURNAL, delete_records


def delete_study(home: Home, name: str) -> None:
    """Remove a study; its MLflow runs and registered versions stay.

    Its records in a database go first; then its folder leaves its name in one step, so that no half of a study is ever
    found. Raises StudyError for an unknown name, where a driver has it, and where the database does not answer.
    """
    folder = study_folder(home.studies, name)
    grave = home.trash / f"{name}.{time.time_ns()}"
    with DriverLock(folder):
        _delete_records(folder)
        grave.parent.mkdir(exist_ok=True)
        folder.rename(grave)
    shutil.rmtree(grave)


def _delete_records(folder: Path) -> None:
    try:
        storage = str(recorded_study(folder)["storage"])
    except StudyError:  # a record that says nothing any more must not keep its folder for ever
        return
    if storage != JOURNAL:
        delete_records(storage, shelf_prefix(folder))


def removable(home: Home, studies: Iterable[Study], kept: Collection[Model]) -> list[Item]:
    """Everything that may go, and what deletions that were cut short left."""
    items = [_item(study.name, kind, path) for study in studies for kind, path in free_paths(study, kept)]
    return items + [_item(grave.stem, "deleted study", grave) for grave in home.trash.glob("*")]


def _item(study: str, kind: Kind, path: Path) -> Item:
    found = list(_files(path))
    return Item(study, kind, path, sum(one.st_size for one in found), max((one.st_mtime for one in found), default=0.0))


def used_bytes(folder: Path) -> int:
    """Size of all files below a folder, some of which may be coming and going."""
    return sum(one.st_size for one in _files(folder))


def _files(place: Path) -> Iterator[os.stat_result]:
    inside = (Path(root) / name for root, _, names in os.walk(place) for name in names)
    for file in [place] if place.is_file() else inside:
        try:
            yield file.lstat()
        except FileNotFoundError:
            continue


def remove(home: Home, items: Iterable[Item]) -> tuple[list[Item], dict[str, str]]:
    """Remove under each study's lock; returns what went, and why a study was left alone after all."""
    gone: list[Item] = []
    left: dict[str, str] = {}
    for study, group in groupby(sorted(items, key=lambda one: one.study), key=lambda one: one.study):
        if not (home.studies / study).is_dir():
            gone += _removed(group)
            continue
        try:
            with DriverLock(home.studies / study):
                gone += _removed(group)
        except StudyError as error:
            left[study] = error.what
    return gone, left


def _removed(items: Iterable[Item]) -> list[Item]:
    removed = list(items)
    for item in removed:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)
    return removed
