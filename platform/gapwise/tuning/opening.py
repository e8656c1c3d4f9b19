"""Creating a study's folder, or accepting the one that exists; the refusal of another study says what differs."""

import json
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from gapwise.data.store import Dataset
from gapwise.errors import StudyError
from gapwise.evaluation.objective import settled, settled_objective
from gapwise.models.reading import read_shape
from gapwise.spec.home import STUDY_FILE, refuse_unusable_name
from gapwise.spec.search import SearchSpec
from gapwise.tuning.files import write_whole
from gapwise.tuning.history import save_history
from gapwise.tuning.record import FORMAT_VERSION, differences, plain_space, recorded_study
from gapwise.tuning.space import check_space, default_spec
from gapwise.tuning.storage import JOURNAL
from gapwise.tuning.warm_start import Taken, take_over


def settled_space(space: SearchSpec, dataset: Dataset) -> SearchSpec:
    """The space on this dataset: metric `auto` decided, metrics and missing rates held against the data (SpecError)."""
    shape, labels = dataset.manifest.shape(), dataset.valid.labels
    objectives = {
        name: settled_objective(one, shape, labels, f"objectives.{name}") for name, one in space.objectives.items()
    }
    return space.model_copy(update={"train": settled(space.train, shape, labels), "objectives": objectives})


class Asked(NamedTuple):
    """What a study is asked to be; a study that exists must have been asked the same."""

    name: str
    space: SearchSpec
    dataset: Dataset
    storage: str = JOURNAL
    command: tuple[str, ...] = ()
    """What `gapwise tune` was given, for the line that says how to go on."""

    def record(self) -> dict[str, Any]:
        """What stands in the study's folder; what may change from session to session is left out."""
        return {
            "format_version": FORMAT_VERSION,
            "space": plain_space(settled_space(self.space, self.dataset)),
            "data_fingerprint": self.dataset.manifest.fingerprint,
            "storage": self.storage,
        }


def open_study(folder: Path, asked: Asked, *, resume: bool) -> None:
    """Create the study's folder, or accept the one that exists. Raises what `check_study` raises."""
    taken = check_study(folder, asked, resume=resume)
    if resume:
        _write(folder, json.loads((folder / STUDY_FILE).read_text()) | {"command": asked.command})
        return
    folder.mkdir(parents=True, exist_ok=True)
    where: dict[str, Any] = {"dataset": asked.dataset.manifest.name, "data": str(asked.dataset.folder)}
    where |= {"id": secrets.token_hex(4), "command": asked.command}
    if taken is not None:
        save_history(folder, taken.warm_start)
        where["warm_start"] = [source._asdict() for source in taken.sources]
    _write(folder, asked.record() | where)


def _write(folder: Path, fields: dict[str, Any]) -> None:
    write_whole(folder / STUDY_FILE, json.dumps(fields, indent=1))


def check_study(folder: Path, asked: Asked, *, resume: bool) -> Taken | None:
    """Whether `open_study` would succeed; writes nothing. Returns what a new study takes over from earlier ones.

    Raises SpecError for a name that cannot be a folder's or a space that does not fit its models, StudyError for a name
    in use without `resume`, for nothing to resume, for another space, dataset or storage (saying what differs) and for
    a study of a newer format, SpecError or DataError for a text encoder that is not there or does not fit the dataset,
    and what `take_over` raises.
    """
    refuse_unusable_name(asked.name, where="--study")
    check_space(asked.space)
    space = settled_space(asked.space, asked.dataset)
    for arm in space.arm_names():
        read_shape(default_spec(space, arm).model, asked.dataset)
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
        return None
    return take_over(space, asked.dataset.manifest.fingerprint, folder.parent)


def _elsewise(folder: Path, asked: Asked) -> str:
    different = differences(recorded_study(folder), asked.record())
    return f" with another {', '.join(different)}" if different else ""
