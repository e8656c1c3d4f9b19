"""Who is set side by side: from the words that a person typed to trained models, and on what ground they stand.

A study is its result: at each condition the refitted model that won there. A run, a model folder or a registered
version is one model at every condition. Only what ships is looked at: a study's several training seeds are not. Those
of other data, task, metric or protocol are refused, for a difference between them would say nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapwise.data.manifest import MANIFEST_FILE
from gapwise.data.protocols import build_protocol
from gapwise.data.store import Dataset, open_dataset
from gapwise.errors import CheckpointError, DataError, SpecError, StudyError, nearest
from gapwise.models.saved import DESCRIPTION, ModelFolder, load_model_folder
from gapwise.promotion.judge import refuse_other_shape
from gapwise.spec.home import Home, study_names
from gapwise.spec.protocol import ProtocolSpec
from gapwise.tracking.client import Tracking
from gapwise.tracking.locate import locate, origin_of, run_id_in
from gapwise.tuning.result import StudyResult, load_result

FORMS = "a study, STUDY/TRIAL, a run id, a model folder or models:/NAME@ALIAS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """Somebody who is compared."""

    name: str
    """As it was typed."""
    study: str
    """Whose result it is, or one model of; empty for a model from elsewhere."""
    models: dict[str, ModelFolder]
    """By a name that is nobody else's."""
    at: dict[str, str]
    """{condition: name in `models`}; empty for one model at every condition."""
    task: str
    metric: str
    protocol: ProtocolSpec
    valid: str
    """Fingerprint of the validation split that it was chosen on."""
    data: Path | None
    """Where its record says that the data lay; None where it says nothing."""

    def model_at(self, condition: str) -> str:
        """Its model there, by name. Raises SpecError where the study has no winner."""
        if not self.at:
            return next(iter(self.models))
        if condition not in self.at:
            raise SpecError(f"study {self.study} has no winner at {condition}", where=self.name, allowed=self.at)
        return self.at[condition]


def lineup(tracking: Tracking, here: Home, words: Sequence[str]) -> list[Contender]:
    """Raises SpecError, StudyError, CheckpointError or RegistryError where somebody is not to be found."""
    if len(words) < 2:
        raise SpecError("there is nothing to set it beside", where=" ".join(words), allowed=f"two or more of: {FORMS}")
    twice = [word for index, word in enumerate(words) if word in words[:index]]
    if twice:
        raise SpecError(f"{twice[0]!r} is named twice", where="compare", allowed="each contender once")
    return [_contender(tracking, here, word) for word in words]


def _contender(tracking: Tracking, here: Home, word: str) -> Contender:
    run_id = run_id_in(word)
    if run_id is not None:
        found = origin_of(tracking, word)
        if found.study:
            result = load_result(here.studies, found.study)
            if result.parent_run_id != run_id:
                raise StudyError(f"is not what run {run_id} tells of", where=f"study {found.study}", allowed=FORMS)
            return _of_study(here, result, "", word)
        return _of_model(tracking, word)
    if word.startswith("models:/") or (Path(word) / DESCRIPTION).exists():
        return _of_model(tracking, word)
    name, _, trial = word.partition("/")
    known = study_names(here.studies)
    if name not in known:
        raise StudyError(f"nothing is called {word!r}{nearest(name, known)}", where="compare", allowed=FORMS)
    return _of_study(here, load_result(here.studies, name), trial, word)


def _of_study(here: Home, result: StudyResult, trial: str, word: str) -> Contender:
    known = [one.trial for one in result.models]
    if trial and trial not in known:
        where = f"study {result.study}"
        raise StudyError(f"ships no model {trial!r}{nearest(trial, known)}", where=where, allowed=known)
    winners = {condition: one.trial for condition, one in (result.best or result.baseline).items()}
    wanted = [trial] if trial else list(dict.fromkeys(winners.values()))
    prefix = f"{result.study}/"
    return Contender(
        name=word,
        study=result.study,
        models={f"{prefix}{one}": _shipped(here, result, one) for one in wanted},
        at={} if trial else {condition: f"{prefix}{one}" for condition, one in winners.items()},
        task=result.task,
        metric=result.objective.metric,
        protocol=result.protocol,
        valid=result.fingerprints["valid"],
        data=Path(result.data),
    )


def _shipped(here: Home, result: StudyResult, trial: str) -> ModelFolder:
    folder = here.studies / result.study / result.model(trial).folder
    try:
        return load_model_folder(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"study {result.study} cannot be judged again: the model of {trial} is not there ({error.what})",
            where=str(folder),
            allowed="a study whose refitted models were kept",
        ) from error


def _of_model(tracking: Tracking, word: str) -> Contender:
    model = locate(tracking, word)
    return Contender(
        name=word,
        study="",
        models={word: model},
        at={},
        task=model.shape.task,
        metric=model.spec.objective.metric,
        protocol=model.spec.protocol,
        valid=model.fingerprints["valid"],
        data=origin_of(tracking, word).data,
    )


def refuse_other_ground(contenders: Sequence[Contender], *, metric: str | None, split: str) -> None:
    """Raises SpecError for contenders of another task or protocol than the first, of another metric where none is
    named, and, on validation, of other validation data: one of them would be judged on what it was not chosen on.
    """
    first = contenders[0]
    for other in contenders[1:]:
        pairs = {
            "task": (first.task, other.task),
            "protocol": (_kind(first.protocol), _kind(other.protocol)),
            **({"metric": (first.metric, other.metric)} if metric is None else {}),
            **({"validation data": (first.valid[:12], other.valid[:12])} if split == "valid" else {}),
        }
        for what, (ours, theirs) in pairs.items():
            if ours != theirs:
                raise SpecError(
                    f"another {what} than {first.name}: {_difference(ours, theirs)}",
                    where=other.name,
                    allowed=_MEND.get(what, f"contenders of one {what}"),
                )


_MEND = {"metric": "one metric for all, or --metric", "validation data": "the same validation data, or --split test"}


def _kind(protocol: ProtocolSpec) -> dict[str, Any]:
    """What masks of evaluation depend on."""
    left_out = {"incomplete_share"} if protocol.has_rates else {"incomplete_share", "rates"}
    return protocol.model_dump(mode="json", exclude=left_out)


def _difference(ours: Any, theirs: Any) -> str:
    if not isinstance(ours, dict):
        return f"{theirs}, not {ours}"
    return "; ".join(f"{key} {theirs.get(key)}, not {value}" for key, value in ours.items() if theirs.get(key) != value)


def dataset_for(contenders: Sequence[Contender], data: Path | None, *, split: str) -> Dataset:
    """The dataset in `data`, or where the first record says that still has one, its content verified.

    Raises DataError where it is not at hand, has other validation data than the contenders were chosen on (`split` is
    valid), or is not of a model's kind; SpecError where a study has no winner at a condition.
    """
    recorded = list(dict.fromkeys(one.data for one in contenders if one.data is not None))
    folder = data or next((one for one in recorded if (one / MANIFEST_FILE).exists()), None)
    if folder is None:
        where = ", ".join(map(str, recorded)) or contenders[0].name
        gone = "the data are not there any more" if recorded else "no record says where the data lie"
        raise DataError(f"{gone}, so nothing can be judged again", where=where, allowed="--data DIR")
    dataset = open_dataset(folder, verify=True)
    if split == "valid" and dataset.fingerprints()["valid"] != contenders[0].valid:
        raise DataError(
            f"its validation split is not the one that {contenders[0].name} was chosen on",
            where=str(folder),
            allowed="those data with --data, or --split test",
        )
    for contender in contenders:
        for model in contender.models.values():
            refuse_other_shape(model, dataset)
    for condition in build_protocol(contenders[0].protocol).conditions(dataset.manifest.modalities):
        for contender in contenders:
            contender.model_at(condition)
    return dataset
