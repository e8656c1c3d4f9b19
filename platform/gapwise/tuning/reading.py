"""Studies as they lie on disk, read without touching them: a driver may be writing one at this very moment.

The journal is read once, up to its last whole line, and replayed in memory; nothing is repaired or created. What a
trial's records mean is said in one place (`arm.read_back`), here as for the book.
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
from gapwise.errors import GapwiseError, StudyError, nearest
from gapwise.spec.home import STUDY_FILE, refuse_unusable_name, study_names
from gapwise.spec.search import SearchSpec
from gapwise.tuning.arm import read_back, tried_again
from gapwise.tuning.assignment import PHASES, Assignment, Outcome, Phase, count_states
from gapwise.tuning.journal import JOURNAL_FILE
from gapwise.tuning.record import recorded_study, shelf_prefix
from gapwise.tuning.result import RESULT_FILE, StudyResult, load_result
from gapwise.tuning.storage import JOURNAL, open_storage


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
    command: list[str]
    """What `gapwise tune` was last given; empty in older studies."""
    warm_start: list[dict[str, Any]]
    """What came from each earlier study (`warm_start.Source`)."""
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
        known = study_names(studies)
        raise StudyError(
            f"no study {name!r}{nearest(name, known)}", where=str(studies), allowed=known or "none exists yet"
        )
    return studies / name


def read_study(studies: Path, name: str) -> Study:
    """A study by name. Raises StudyError or SpecError where it is unknown, damaged or of another format."""
    folder = study_folder(studies, name)
    asked = recorded_study(folder)
    space = SearchSpec.model_validate(asked["space"])
    driver = driver_of(folder)  # before the journal: a study that ends meanwhile still counts as running
    trials, waiting = _read(folder, space, asked["storage"])
    return Study(
        name=name,
        folder=folder,
        space=space,
        data_fingerprint=asked["data_fingerprint"],
        dataset=asked.get("dataset"),
        data=asked.get("data"),
        command=asked.get("command", []),
        warm_start=asked.get("warm_start", []),
        trials=trials,
        waiting=waiting,
        result=_result(studies, name, trials, waiting),
        driver=driver,
        changed=max(file.stat().st_mtime for file in folder.glob("*.*") if file.suffix in (".log", ".json")),
    )


def trials_so_far(folder: Path, space: SearchSpec, storage: str) -> list[TrialRecord]:
    """What drivers before this one left on record; nothing where there is none yet."""
    if storage == JOURNAL and not (folder / JOURNAL_FILE).exists():
        return []
    return _read(folder, space, storage)[0]


def _read(folder: Path, space: SearchSpec, storage: str) -> tuple[list[TrialRecord], int]:
    """Everything that was handed out, in the order of phases, arms and numbers, and how many repeats wait."""
    if storage == JOURNAL:
        return _read_journal(folder / JOURNAL_FILE, space)
    return _trials(open_storage(storage), shelf_prefix(folder), space)


class _Replay(BaseJournalBackend):
    """Records that were read before."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise AssertionError(f"a reader never writes, got {logs}")


def _read_journal(journal: Path, space: SearchSpec) -> tuple[list[TrialRecord], int]:
    try:
        content = journal.read_bytes()
    except FileNotFoundError as error:
        raise StudyError("there is no journal: no trial was started", where=str(journal)) from error
    records = [_record(journal, line, text) for line, text in enumerate(content.split(b"\n")[:-1], start=1)]
    try:
        return _trials(JournalStorage(_Replay(records)), "", space)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise StudyError("the journal's records do not fit together", where=str(journal)) from error


def _record(journal: Path, line: int, text: bytes) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise StudyError(f"the journal is damaged in line {line}", where=str(journal), allowed="whole lines") from error
    return record


def _trials(storage: BaseStorage, prefix: str, space: SearchSpec) -> tuple[list[TrialRecord], int]:
    begun = {study.study_name for study in storage.get_all_studies()}
    records, waiting = [], 0
    for phase, arm in product(PHASES, space.arm_names()):
        name = f"{prefix}{phase}/{arm}"
        trials = storage.get_all_trials(storage.get_study_id_from_name(name)) if name in begun else []
        again = tried_again(trials)
        for trial in trials:
            if trial.state is TrialState.WAITING:
                waiting += phase == "seeds"
            elif trial.number not in again:
                records.append(TrialRecord(*read_back(phase, arm, trial, space.seed), trial.intermediate_values))
    return records, waiting


def _result(studies: Path, name: str, trials: list[TrialRecord], waiting: int) -> StudyResult | None:
    """The result, if it is there and of just these trials: a study may grow, or try failures again."""
    if not (studies / name / RESULT_FILE).exists():
        return None
    result = load_result(studies, name)
    searched = [one for one in trials if one.assignment.phase == "search"]
    counted = count_states(one.outcome for one in searched)
    open_still = waiting or any(one.outcome.state == "running" for one in trials)
    return None if open_still or counted != result.trials else result
