"""What the study's book gives to workers that train many at once, and what becomes of it when they die. Ray is faked,
by a book that is called directly; training by endings that are told.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from gapwise.distributed.placement import Share
from gapwise.spec.search import SearchSpec
from gapwise.testing.handle import Handle
from gapwise.tuning.assignment import Assignment, Outcome, failure
from gapwise.tuning.book import StudyBook
from gapwise.tuning.executor import BookSearcher, PhaseRun
from gapwise.tuning.trial import Place

MakeSpace = Callable[..., SearchSpec]
DONE = Outcome("complete", 1.0, 1, {"mae": {"0.0": 1.0}}, 0.5)


@pytest.fixture
def book(make_space: MakeSpace, tmp_path: Path) -> StudyBook:
    return StudyBook(make_space(pack=4, pruner={"name": "none"}), tmp_path / "journal.log")


def taken(book: StudyBook, pack: str, count: int, arm: str | None = None) -> list[Assignment]:
    found = [book.take(pack, "search", arm=arm, most=4) for _ in range(count)]
    return [one for one in found if one is not None]


def test_an_arm_gets_ahead_of_the_others_by_a_pack_at_most(book: StudyBook) -> None:
    first = taken(book, "a", 1) + taken(book, "a", 3, arm="prlf")
    assert [one.key for one in first] == ["prlf-0", "prlf-1", "prlf-2", "prlf-3"]
    assert taken(book, "a", 1, arm="prlf") == [], "late_fusion has had none yet"
    assert [one.key for one in taken(book, "b", 1)] == ["late_fusion-0"]
    assert [one.key for one in taken(book, "a", 3, arm="prlf")] == ["prlf-4", "prlf-5"]


def test_all_trials_of_all_arms_are_handed_out_once(book: StudyBook) -> None:
    handed: list[str] = []
    while batch := taken(book, "a", 1):
        batch += taken(book, "a", 3, arm=batch[0].arm)
        for one in batch:
            book.finish(one, DONE)
        handed += [one.key for one in batch]
    assert sorted(handed) == [f"late_fusion-{n}" for n in range(3)] + [f"prlf-{n}" for n in range(6)]
    assert book.unfinished() == 0


def test_a_worker_that_starts_again_hears_what_it_still_has(book: StudyBook) -> None:
    assert book.start_pack("a") == ([], 0)
    given = taken(book, "a", 3, arm="prlf")
    book.finish(given[1], DONE)
    assert book.start_pack("a") == ([given[0], given[2]], 1)
    assert book.start_pack("b") == ([], 0)


def test_of_a_worker_that_is_given_up_only_what_it_had_begun_fails(book: StudyBook) -> None:
    given = taken(book, "a", 3, arm="prlf")
    book.start_pack("a")
    for one in given:
        book.begin(one)
    book.start_pack("a")
    book.begin(given[0])
    book.give_up_pack("a", failure("crash: again"))
    assert [(one.assignment.key, one.outcome.reason) for one in book.finished("search")] == [("prlf-0", "crash: again")]
    assert [one.key for one in taken(book, "b", 2)] == ["prlf-1", "prlf-2"], "under their own numbers, and first"


def test_repeats_are_taken_too(book: StudyBook) -> None:
    from gapwise.tuning.arm import Repeat

    values = {"optimiser.lr": 0.001}
    book.plan_repeats([Repeat("late_fusion", 0, values, seed) for seed in (1, 2)])
    assert [one.seed for one in (book.take("a", "seeds"), book.take("a", "seeds", arm="late_fusion")) if one] == [1, 2]
    assert book.take("a", "seeds", arm="prlf") is None


def test_to_tune_a_pack_is_a_trial_and_its_death_halves_it(
    book: StudyBook, make_space: MakeSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get", lambda answer: answer)
    place = Place(make_space(pack=4), "data", str(tmp_path))
    searcher = BookSearcher(Handle(book), PhaseRun("search", "book", place, concurrency=1), Share(1, 0.0))
    config = searcher.suggest("t1")
    assert config["pack"] == {"name": "t1", "phase": "search", "until": None, "refill": True}
    assert searcher.suggest("t2") is None, "one worker at a time"
    (given,), deaths = book.start_pack("t1")
    assert (given.key, deaths) == ("prlf-0", 0)
    searcher.starts_again("t1", "OutOfMemoryError")
    assert book.start_pack("t1") == ([given], 1)
    assert book.begin(given) == given, "with its whole batch: a smaller pack comes first"
    searcher.given_up("t1", "ActorDiedError: gone")
    (ended,) = book.finished("search")
    assert ended.outcome.reason == "crash: the worker died 3 times, the last time of: ActorDiedError: gone"
