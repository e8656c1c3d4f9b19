"""Counting a study from its book's events: a real book, a clock of our own, and threads that tell at once."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gapwise.spec.search import SearchSpec
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Outcome, failure
from gapwise.tuning.book import StudyBook
from gapwise.tuning.events import Event, read_events
from gapwise.tuning.reading import trials_so_far
from gapwise.tuning.tally import Counter, Tally

MakeSpace = Callable[..., SearchSpec]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def space(make_space: MakeSpace) -> SearchSpec:
    train = {"epochs": 10, "objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.5]}}
    return make_space(trials=4, baseline_share=0.25, train=train, pruner={"name": "none"})


@pytest.fixture
def book(space: SearchSpec, tmp_path: Path) -> StudyBook:
    return StudyBook(space, tmp_path / "journal.log")


def outcome(cost: float, half: float, state: str = "complete") -> Outcome:
    return Outcome(state, cost, 1, {"mae": {"0.0": cost, "0.5": half}}, 1.0)  # type: ignore[arg-type]


def noted(book: StudyBook) -> list[Event]:
    return read_events(book._events._file, 0, most=10_000)[0]


def tell(counter: Counter, book: StudyBook, heard: int = 0) -> int:
    events = noted(book)[heard:]
    for event in events:
        counter.note(event)
    return heard + len(events)


def search(book: StudyBook) -> None:
    """prlf-0 and late_fusion-0 complete, prlf-1 pruned after 3 of 10 epochs, prlf-2 failed, prlf-3 runs, after 4."""
    endings = {
        "prlf-0": outcome(1.0, 1.6),
        "prlf-1": outcome(2.0, 2.0, "pruned"),
        "prlf-2": failure("NaN: the loss is nan"),
        "late_fusion-0": outcome(1.3, 1.5),
    }
    while (one := book.next_search()) is not None:
        for epoch in range(1, {"prlf-1": 4, "prlf-3": 5}.get(one.key, 11)):
            book.report(one, epoch, 1.0, {"epochs": 10})
        if one.key in endings:
            book.finish(one, endings[one.key])


def counted(tally: Tally) -> dict[str, tuple[int, ...]]:
    return {arm: tuple(one.counts.values()) for arm, one in tally.arms.items()}


def test_trials_are_counted_by_model_and_state_with_the_best_of_each(space: SearchSpec, book: StudyBook) -> None:
    counter = Counter(space)
    counter.stage("search", 5)
    search(book)
    tell(counter, book)
    tally = counter.now()
    assert counted(tally) == {"prlf": (1, 1, 1, 1), "late_fusion": (1, 0, 0, 0)}
    assert tally.arms["prlf"].best == ("prlf-0", 1.0)
    assert (tally.stage, tally.finished, tally.total) == ("search", 4, 5)


def test_a_pruned_trial_saves_the_epochs_that_it_was_not_trained_for(space: SearchSpec, book: StudyBook) -> None:
    counter = Counter(space)
    search(book)
    tell(counter, book)
    assert counter.now().epochs_saved == 7


def test_each_rate_has_its_best_so_far_and_the_baseline_beside(space: SearchSpec, book: StudyBook) -> None:
    counter = Counter(space)
    counter.stage("search", 5)
    search(book)
    tell(counter, book)
    leaders = counter.now().leaders
    assert list(leaders) == ["0.0", "0.5"]
    best, baseline = leaders["0.5"]
    assert best is not None and (best.arm, best.source, best.mean) == ("prlf", 0, 1.6)
    assert baseline is not None and (baseline.arm, baseline.mean) == ("late_fusion", 1.5)


def test_the_second_phase_is_counted_by_itself_and_ranked_by_the_mean_over_seeds(
    space: SearchSpec, book: StudyBook
) -> None:
    counter = Counter(space)
    search(book)
    heard = tell(counter, book)
    values = book.finished("search")[0].assignment.values
    book.plan_repeats([Repeat("prlf", 0, values, seed) for seed in (1, 2, 3)])
    counter.stage("second phase", 3)
    for cost in (1.0, 2.0):
        repeat = book.next_repeat()
        assert repeat is not None
        book.finish(repeat, outcome(cost, cost))
    tell(counter, book, heard)
    tally = counter.now()
    assert counted(tally) == {"prlf": (2, 0, 0, 0), "late_fusion": (0, 0, 0, 0)}
    best, baseline = tally.leaders["0.0"]
    assert best is not None and (best.mean, best.seeds) == (1.5, 2)
    assert baseline is None
    assert tally.epochs_saved == 7, "the search's are not forgotten"


def test_a_resumed_study_counts_what_earlier_drivers_finished_once(
    space: SearchSpec, book: StudyBook, tmp_path: Path
) -> None:
    search(book)
    counter = Counter(space, trials_so_far(tmp_path, space, "journal"))
    counter.stage("search", 1)
    assert counted(counter.now()) == {"prlf": (1, 1, 1, 0), "late_fusion": (1, 0, 0, 0)}
    again = StudyBook(space, tmp_path / "journal.log")
    heard = len(noted(again))  # an observer begins at the end of what earlier drivers noted
    adopted = again.next_search()
    assert adopted is not None and adopted.key == "prlf-3"
    tell(counter, again, heard)
    tally = counter.now()
    assert counted(tally)["prlf"] == (1, 1, 1, 1)
    assert (tally.finished, tally.epochs_saved) == (0, 7)


def test_time_left_follows_the_pace_so_far_and_counts_half_a_run_as_half(
    space: SearchSpec, book: StudyBook, clock: Clock
) -> None:
    counter = Counter(space, clock=clock)
    clock.now = 100.0
    counter.stage("search", 4)
    assert counter.now().seconds_left is None
    first, second = book.next_search(), book.next_search()
    assert first is not None and second is not None
    book.finish(first, outcome(1.0, 1.0))
    book.report(second, 5, 1.0, {"epochs": 10})
    tell(counter, book)
    clock.now = 130.0
    tally = counter.now()
    assert (tally.seconds, tally.seconds_left) == (30.0, pytest.approx(50.0)), "1.5 runs in 30 s, 2.5 to go"


def test_a_time_budget_bounds_the_time_left_of_the_search_only(
    space: SearchSpec, book: StudyBook, clock: Clock
) -> None:
    counter = Counter(space, search_budget_seconds=40.0, clock=clock)
    for stage, expected in (("search", 10.0), ("refit", 30.0)):
        counter.stage(stage, 2)
        counter.done()
        clock.now += 30.0
        assert counter.now().seconds_left == expected


def test_a_stage_without_runs_takes_no_time(space: SearchSpec) -> None:
    counter = Counter(space)
    counter.stage("refit", 0)
    assert counter.now().seconds_left is None


def test_several_threads_may_tell_while_another_looks(space: SearchSpec, book: StudyBook) -> None:
    search(book)
    finished = [event for event in noted(book) if event.kind == "finished"]
    counter = Counter(space)
    counter.stage("search", 4000)
    looks: list[Tally] = []

    def telling() -> None:
        for number in range(200):
            event = finished[number % len(finished)]
            own = event.assignment._replace(number=number, source=10 * number + threading.get_ident())
            counter.note(Event("finished", own, event.body, 0.0))
            counter.done()

    threads = [threading.Thread(target=telling) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        looks.append(counter.now())
    assert counter.now().finished == 1600
    assert [one.finished for one in looks] == sorted(one.finished for one in looks)
