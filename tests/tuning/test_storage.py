"""Where trials are recorded: what is refused, and one study in each kind of storage.

PostgreSQL is a real server in a temporary folder, where the machine has its binaries; SQLite is a file.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage

from gapwise.errors import SpecError, StudyError
from gapwise.spec.search import SearchSpec
from gapwise.testing.postgres import binaries, free_port, running_postgres
from gapwise.tuning import database
from gapwise.tuning.assignment import Assignment, Outcome
from gapwise.tuning.book import StudyBook
from gapwise.tuning.storage import checked_storage, delete_records, open_storage

MakeSpace = Callable[..., SearchSpec]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("s3://bucket/studies", "object storage cannot hold a journal, got s3://bucket/studies"),
        ("gs://bucket", "keep the study in PostgreSQL"),
        ("somewhere", "not a storage, got 'somewhere'"),
        ("mysql://me@host/db", "no storage of kind 'mysql'"),
        ("postgresql://me:secret@host/db", "a password in the URL"),
        ("postgresql://me@host/db?password=secret", "a password in the URL"),
        ("sqlite://", "a study must outlive its process"),
        ("sqlite:///:memory:", "a study must outlive its process"),
    ],
)
def test_a_storage_that_cannot_be_is_refused_saying_what_can(where: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        checked_storage(where)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "(allowed: " in str(refused.value)


@pytest.mark.parametrize("where", ["journal", "sqlite:////tmp/here.db", "postgresql://me@host:5433/db"])
def test_the_kinds_that_there_are(where: str) -> None:
    assert checked_storage(where) == where


def test_a_relative_file_is_the_same_database_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_storage("sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"


def test_a_database_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(StudyError, match=r"the database does not answer: connection .*refused") as refused:
        open_storage(f"postgresql://me@127.0.0.1:{free_port()}/none")
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a database on a fresh server, which finds its password where a person's would be found."""
    try:
        binaries()
    except SpecError as none:
        pytest.skip(str(none))
    with running_postgres() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", str(server.passfile))
        yield server.url("postgres")


@pytest.fixture(autouse=True)
def connections_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Books here are dropped as a death would; their connections, which the system would close then, are closed."""
    made: list[RDBStorage] = []

    class Kept(RDBStorage):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(database, "RDBStorage", Kept)
    yield
    for one in made:
        one.remove_session()
        one.engine.dispose()


def outcome(assignment: Assignment) -> Outcome:
    cost = assignment.values["optimiser.lr"]
    return Outcome("complete", cost, 2, {"mae": {"0.0": cost}}, 0.5)


def search(book: StudyBook, *, at_most: int = 99) -> list[Assignment]:
    handed: list[Assignment] = []
    while len(handed) < at_most and (one := book.next_search()) is not None:
        handed.append(one)
        for epoch in (1, 2):
            book.report(one, epoch, one.values["optimiser.lr"], {})
        book.finish(one, outcome(one))
    return handed


def test_every_storage_holds_the_same_study_through_a_death(
    make_space: MakeSpace, tmp_path: Path, postgres: str
) -> None:
    space = make_space(trials=4, pruner={"name": "none"})
    expected = search(StudyBook(space, tmp_path / "journal.log"))
    for where in (f"sqlite:///{tmp_path / 'studies.db'}", postgres):
        (tmp_path / "events").unlink(missing_ok=True)
        first = search(StudyBook(space, where, events=tmp_path / "events", prefix="one/"), at_most=2)
        left = StudyBook(space, where, events=tmp_path / "events", prefix="one/").next_search()
        book = StudyBook(space, where, events=tmp_path / "events", prefix="one/")
        rest = search(book)
        assert rest[0] == left
        assert [*first, *rest] == expected
        found = book.finished("search")
        assert sorted(one.assignment for one in found) == sorted(expected)
        assert all(one.outcome == outcome(one.assignment) for one in found)


def test_studies_of_one_database_do_not_see_each_other(make_space: MakeSpace, tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path / 'studies.db'}"
    search(StudyBook(make_space(trials=2), where, events=tmp_path / "events", prefix="one/"))
    other = StudyBook(make_space(trials=2), where, events=tmp_path / "other", prefix="two/")
    assert other.finished("search") == []
    assert other.unfinished() == 3


def test_deleting_records_leaves_other_studies_of_the_database(make_space: MakeSpace, tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path / 'studies.db'}"
    for prefix in ("one/", "one-2/"):
        search(StudyBook(make_space(trials=2), where, events=tmp_path / prefix.strip("/"), prefix=prefix))
    delete_records(where, "one/")
    left = {study.study_name.split("/")[0] for study in open_storage(where).get_all_studies()}
    assert left == {"one-2"}
