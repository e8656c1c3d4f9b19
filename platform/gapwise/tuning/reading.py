"""Studies as they lie on disk, read without touching them: a driver may be writing one at this very moment.

The journal is read once, up to its last whole line, and replayed in memory; nothing is repaired or created. What a
trial's records mean is the book's business (`book.read_back`), here as there.
"""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from gapwise.distributed.lock import driver_of
from gapwise.errors import GapwiseError, StudyError
from gapwise.spec.home import refuse_unusable_name
from gapwise.spec.loader import validate
from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Outcome, Phase
from gapwise.tuning.book import read_back
from gapwise.tuning.result import RESULT_FILE, StudyResult, load_result

FORMAT_VERSION = 1
STUDY_FILE = "study.json"
JOURNAL_FILE = "journal.log"
_OTHER_VERSION = "a study of this version of gapwise"


class TrialRecord(NamedTuple):
    """A trial that was handed out, ended or not."""

    assignment: Assignment
    outcome: Outcome
    costs: dict[int, float]
    """The objective by epoch; empty in the second phase, whose epochs are not journalled."""

    @property
    def epochs(self) -> int | None:
        return max(self.costs, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One study at the moment it was read."""

    name: str
    folder: Path
    space: SearchSpec
    data_fingerprint: str
    dataset: str | None
    """Name of the dataset, and the folder it was read from; None in a study older than these notes."""
    data: str | None
    trials: list[TrialRecord]
    waiting: int
    """Runs of the second phase that were queued and not handed out yet."""
    result: StudyResult | None
    """None unless it is the result of just these trials."""
    driver: str | None
    changed: float
    """Seconds since the epoch."""

    @property
    def state(self) -> Literal["running", "resumable", "finished"]:
        if self.driver is not None:
            return "running"
        return "resumable" if self.result is None else "finished"

    @property
    def metric(self) -> str:
        return self.space.train.objective.metric

    def of(self, phase: Phase) -> list[TrialRecord]:
        return [one for one in self.trials if one.assignment.phase == phase]


def study_names(studies: Path) -> list[str]:
    return sorted(file.parent.name for file in studies.glob(f"*/{STUDY_FILE}"))


def read_studies(studies: Path) -> dict[str, Study | GapwiseError]:
    """Every study by name; of one that cannot be read, why not."""
    found: dict[str, Study | GapwiseError] = {}
    for name in study_names(studies):
        try:
            found[name] = read_study(studies, name)
        except GapwiseError as error:
            found[name] = error
    return found


def study_folder(studies: Path, name: str) -> Path:
    """Where a study lies. Raises StudyError, naming those that exist, where there is none of this name."""
    refuse_unusable_name(name, where="STUDY")
    if not (studies / name / STUDY_FILE).exists():
        raise StudyError(f"no study {name!r}", where=str(studies), allowed=study_names(studies) or "none exists yet")
    return studies / name


def read_study(studies: Path, name: str) -> Study:
    """A study by name. Raises StudyError or SpecError where it is unknown, damaged or of another format."""
    folder = study_folder(studies, name)
    asked = _asked(folder / STUDY_FILE)
    driver = driver_of(folder)  # before the journal: a study that ends meanwhile still counts as running
    trials, waiting = _read_journal(folder / JOURNAL_FILE, asked["space"])
    return Study(
        name=name,
        folder=folder,
        space=asked["space"],
        data_fingerprint=asked["data_fingerprint"],
        dataset=asked.get("dataset"),
        data=asked.get("data"),
        trials=trials,
        waiting=waiting,
        result=_result(studies, name, trials, waiting),
        driver=driver,
        changed=max(file.stat().st_mtime for file in folder.glob("*.*") if file.suffix in (".log", ".json")),
    )


def trials_so_far(folder: Path, space: SearchSpec) -> list[TrialRecord]:
    """What drivers before this one left in a study's journal; nothing where there is none yet."""
    return _read_journal(folder / JOURNAL_FILE, space)[0] if (folder / JOURNAL_FILE).exists() else []


def _asked(file: Path) -> dict[str, Any]:
    """What the study was opened for, its space validated; how many trials were asked for is not in it."""
    try:
        fields: dict[str, Any] = json.loads(file.read_text())
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise StudyError(f"study format {version!r}", where=str(file), allowed=str(FORMAT_VERSION))
        del fields["space"]["train"]["model"]  # a default that a space may not name
        return {"data_fingerprint": ""} | fields | {"space": validate(SearchSpec, fields["space"], where=str(file))}
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError("cannot be read", where=str(file), allowed=_OTHER_VERSION) from error


class _Replay(BaseJournalBackend):
    """Records that were read before."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise AssertionError(f"a reader never writes, got {logs}")


def _read_journal(journal: Path, space: SearchSpec) -> tuple[list[TrialRecord], int]:
    """Everything that was handed out, in the order of phases, arms and numbers, and how many repeats wait."""
    try:
        content = journal.read_bytes()
    except FileNotFoundError as error:
        raise StudyError("there is no journal: no trial was started", where=str(journal)) from error
    records = [_record(journal, line, text) for line, text in enumerate(content.split(b"\n")[:-1], start=1)]
    try:
        return _trials(JournalStorage(_Replay(records)), space)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise StudyError("the journal's records do not fit together", where=str(journal)) from error


def _record(journal: Path, line: int, text: bytes) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise StudyError(f"the journal is damaged in line {line}", where=str(journal), allowed="whole lines") from error
    return record


def _trials(storage: BaseStorage, space: SearchSpec) -> tuple[list[TrialRecord], int]:
    begun = {study.study_name for study in storage.get_all_studies()}
    phases: tuple[Phase, ...] = ("search", "seeds")
    records, waiting = [], 0
    for phase, arm in product(phases, space.arm_names()):
        name = f"{phase}/{arm}"
        for trial in storage.get_all_trials(storage.get_study_id_from_name(name)) if name in begun else []:
            if trial.state is not TrialState.WAITING:
                records.append(TrialRecord(*read_back(phase, arm, trial, space.seed), trial.intermediate_values))
            elif phase == "seeds":
                waiting += 1
    return records, waiting


def _result(studies: Path, name: str, trials: list[TrialRecord], waiting: int) -> StudyResult | None:
    """The result, if it is there and the study did not grow since."""
    if not (studies / name / RESULT_FILE).exists():
        return None
    result = load_result(studies, name)
    searched = [one for one in trials if one.assignment.phase == "search"]
    open_still = waiting or any(one.outcome.state == "running" for one in trials)
    return None if open_still or len(searched) != sum(result.trials.values()) else result
