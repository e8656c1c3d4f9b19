"""All journals of a home as one storage that cannot write. The studies are written by hand; the storage is Optuna's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from gapwise.errors import StudyError
from gapwise.tuning.merged_journals import MergedJournals

WriteStudy = Callable[..., Path]
NAMES = {"search/prlf", "search/late_fusion", "seeds/prlf", "seeds/late_fusion"}


@pytest.fixture
def studies(write_study: WriteStudy, tmp_path: Path) -> Path:
    write_study(tmp_path / "studies", "one")
    write_study(tmp_path / "studies", "two", until="search", shift=0.5)
    return tmp_path / "studies"


def trials(storage: BaseStorage) -> dict[str, list[Any]]:
    """All that a dashboard shows of trials, by study."""
    return {
        study.study_name: [
            (one.number, one.state, one.values, one.params, one.intermediate_values, one.user_attrs)
            for one in storage.get_all_trials(study._study_id)
        ]
        for study in storage.get_all_studies()
    }


def test_every_study_of_every_journal_has_the_trials_that_its_own_journal_has(studies: Path) -> None:
    merged = trials(JournalStorage(MergedJournals(studies)))
    own = {
        f"{folder.name}: {name}": found
        for folder in studies.iterdir()
        for name, found in trials(JournalStorage(JournalFileBackend(str(folder / "journal.log")))).items()
    }
    assert merged == own
    assert {name.removeprefix("one: ") for name in merged if name.startswith("one: ")} == NAMES
    assert sum(map(len, own.values())) > 10


def test_nothing_can_be_written_and_the_files_stay_as_they_are(studies: Path) -> None:
    before = {file: file.read_bytes() for file in studies.rglob("*") if file.is_file()}
    storage = JournalStorage(MergedJournals(studies))
    study = storage.get_all_studies()[0]._study_id
    for change in (
        lambda: storage.delete_study(study),
        lambda: storage.set_study_user_attr(study, "note", "mine"),
        lambda: storage.create_new_trial(study),
    ):
        with pytest.raises(StudyError, match="only shown"):
            change()
    assert {file: file.read_bytes() for file in studies.rglob("*") if file.is_file()} == before
    assert len(trials(storage)) > 4, "and what is shown stays"


def test_what_comes_later_is_seen_and_ids_stay(studies: Path, write_study: WriteStudy) -> None:
    storage = JournalStorage(MergedJournals(studies))
    before = {study.study_name: study._study_id for study in storage.get_all_studies()}
    write_study(studies, "a-first-one")
    after = {study.study_name: study._study_id for study in storage.get_all_studies()}
    assert after.items() >= before.items()
    assert {f"a-first-one: {name}" for name in NAMES} == after.keys() - before.keys()
    assert len({*after.values()}) == len(after)


def test_a_line_that_is_being_written_is_read_when_it_is_whole(studies: Path) -> None:
    journal = studies / "two" / "journal.log"
    content = journal.read_bytes()
    cut = content.rstrip(b"\n").rfind(b"\n") + 10
    journal.write_bytes(content[:cut])
    storage = JournalStorage(MergedJournals(studies))
    trials(storage)
    journal.write_bytes(content)
    assert trials(storage) == trials(JournalStorage(MergedJournals(studies)))


def test_a_damaged_journal_shows_what_stands_before_and_hides_no_other(studies: Path) -> None:
    with (studies / "one" / "journal.log").open("ab") as opened:
        opened.write(b'not JSON\n{"op_code": 0, "worker_id": "x", "study_name": "late", "directions": [1]}\n')
    found = trials(JournalStorage(MergedJournals(studies)))
    assert "one: late" not in found and "one: search/prlf" in found and "two: search/prlf" in found


def test_a_home_without_studies_is_empty(tmp_path: Path) -> None:
    assert JournalStorage(MergedJournals(tmp_path / "none")).get_all_studies() == []
