"""Runs that do not fit the memory: what the book makes of them, and how many trials may share a GPU.

Faked: training, and the GPU, whose bytes are given. The journal is Optuna's own, in this process.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import open_dataset
from gapwise.errors import SpecError
from gapwise.spec.search import SearchSpec
from gapwise.testing.runs import job_on, tiny_spec
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Assignment, Outcome, failure
from gapwise.tuning.book import StudyBook
from gapwise.tuning.events import events_beside, read_events
from gapwise.tuning.executor import killed_for_memory
from gapwise.tuning.memory import refuse_overfull, rehearse
from gapwise.tuning.pruning import Pruning
from gapwise.tuning.selection import chosen_again, standings

MakeSpace = Callable[..., SearchSpec]
TOLD_APART = {"prlf": True, "late_fusion": False}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def complete(cost: float) -> Outcome:
    return Outcome("complete", cost, 3, {"mae": {"0.0": cost}}, 1.0)


def first_of(book: StudyBook, arm: str) -> Assignment:
    while (one := book.next_search()) is not None:
        if one.arm == arm:
            return one
        book.finish(one, complete(1.0))
    raise AssertionError(arm)


def shrunk(book: StudyBook, one: Assignment) -> Assignment:
    again = book.out_of_memory(one)
    assert again is not None
    return again


@pytest.mark.parametrize(("arm", "changed"), TOLD_APART.items())
def test_a_run_that_did_not_fit_keeps_its_number_and_its_micro_batch_after_the_driver_died(
    make_space: MakeSpace, journal: Path, arm: str, changed: bool
) -> None:
    space = make_space()
    one = first_of(StudyBook(space, journal), arm)
    again = shrunk(StudyBook(space, journal), one)
    assert again == one._replace(micro_batch=space.train.batch_size // 4)
    book = StudyBook(space, journal)
    assert first_of(book, arm) == again
    assert book.begin(one) == again, "whatever its worker was told at first"
    book.finish(again, complete(1.0))
    (found,) = (run for run in StudyBook(space, journal).finished("search") if run.assignment.key == one.key)
    assert found.assignment == again
    assert found.outcome == complete(1.0)._replace(objective_changed=changed)
    ending = read_events(events_beside(journal), 0, most=1000)[0][-1]
    assert (ending.assignment, ending.body["objective_changed"]) == (again, changed)


def test_there_is_one_retry_whoever_of_its_workers_asks(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(), journal)
    one = first_of(book, "prlf")
    again = shrunk(book, one)
    assert book.out_of_memory(one) == again, "a second worker of the same attempt"
    assert book.out_of_memory(again) is None
    book.finish(one, failure("crash: its sibling went away"))
    assert book.begin(again) == again, "nobody listens to an attempt that was given up"
    book.give_up(one, failure("OOM: the worker died 3 times"))
    assert book.begin(again) is None
    assert book.out_of_memory(again) is None


def test_a_single_sample_that_does_not_fit_cannot_be_cut(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(train={"micro_batch": 1}), journal)
    assert book.out_of_memory(first_of(book, "prlf")) is None


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_sampler_learns_from_a_changed_objective_as_from_a_failure(
    make_space: MakeSpace, tmp_path: Path, sampler: str
) -> None:
    space = make_space(trials=7, sampler={"name": sampler, "startup": 2}, pruner={"name": "none"})

    def suggested(name: str, end: Callable[[StudyBook, Assignment], None]) -> list[Any]:
        book, values = StudyBook(space, tmp_path / name), []
        while (one := book.next_search()) is not None:
            values.append(one.values)
            if one.key == "prlf-3":
                end(book, one)
            else:
                book.finish(one, complete(one.values["optimiser.lr"]))
        return values

    failed = suggested("failed", lambda book, one: book.finish(one, failure("OOM")))
    cut = suggested("cut", lambda book, one: book.finish(shrunk(book, one), complete(-99.0)))
    assert cut == failed


def test_selection_does_not_see_it_and_a_duplicate_of_it_neither(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(arms={"prlf": {}}, trials=2, baseline_share=0.5, pruner={"name": "none"})
    book = StudyBook(space, journal)
    book.finish(shrunk(book, first_of(book, "prlf")), complete(0.1))
    while (one := book.next_search()) is not None:
        book.finish(one, complete(2.0))
    searched = StudyBook(space, journal).finished("search")
    assert [run.outcome.objective_changed for run in searched] == [True, True, False]
    assert searched[1].outcome.duplicate_of == 0
    prlf = [run for run in searched if run.assignment.arm == "prlf"]
    assert chosen_again(prlf, "mae", top_k=5, cap=5) == []
    assert [row.arm for row in standings(searched, "mae", seeds=1)["0.0"]] == ["late_fusion"]
    assert StudyBook(space, journal, retry_failed=True).unfinished() == 0


def test_others_are_not_compared_with_it_though_it_is_with_them() -> None:
    def rule() -> Pruning:
        return Pruning(SearchSpec.model_validate({"question": "?", "arms": {"prlf": {}}}).pruner, 30)

    def tell(pruning: Pruning, number: int, cost: float) -> bool:
        for epoch in (1, 2, 3):
            pruning.tell(number, epoch, cost)
        return pruning.stops(number)

    live, reopened = rule(), rule()
    tell(live, 0, 0.1)
    live.set_apart(0)
    reopened.set_apart(0)
    tell(reopened, 0, 0.1)
    for pruning in (live, reopened):
        assert not tell(pruning, 1, 1.0)
        pruning.set_apart(2)
        assert tell(pruning, 2, 2.0)


def test_seeds_of_a_configuration_that_was_cut_begin_as_it_fitted(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(), journal)
    book.plan_repeats([Repeat("late_fusion", 0, {"optimiser.lr": 0.001}, 1, micro_batch=16)])
    one = book.next_repeat()
    assert one is not None and one.micro_batch == 16
    assert shrunk(book, one).micro_batch == 4
    book.finish(shrunk(book, one), complete(1.0))
    (found,) = book.finished("seeds")
    assert found.outcome.eligible


@pytest.mark.parametrize(
    ("error", "for_memory"),
    [
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", True),
        ("ActorDiedError: ... Worker exit type: NODE_OUT_OF_MEMORY", True),
        ("ActorDiedError: Worker exit type: SYSTEM_ERROR", False),
    ],
)
def test_what_ray_says_of_its_memory_monitor_is_understood(error: str, for_memory: bool) -> None:
    assert killed_for_memory(error) == for_memory


GB = 10**9


@pytest.mark.parametrize(("trials", "free"), [(1, 8 * GB), (2, 16 * GB), (4, 40 * GB)])
def test_trials_that_fit_a_gpu_are_let_through(trials: int, free: int) -> None:
    refuse_overfull(trials, free, {"prlf": 7 * GB, "late_fusion": 2 * GB})


@pytest.mark.parametrize(
    ("trials", "free", "said"),
    [
        (3, 16 * GB, "3 trials a GPU need 3 x 7.0 GB (prlf), and 16.0 GB are free (allowed: at most 2)"),
        (2, 6 * GB, "2 trials a GPU need 2 x 7.0 GB (prlf), and 6.0 GB are free (allowed: no trial fits: set"),
    ],
)
def test_trials_that_do_not_fit_a_gpu_are_refused_saying_what_does(trials: int, free: int, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        refuse_overfull(trials, free, {"prlf": 7 * GB, "late_fusion": 2 * GB})
    assert str(refused.value).startswith(f"trials_per_device: {said}")


def test_a_rehearsal_takes_a_few_steps_of_any_run(small: Path) -> None:
    """On the CPU: that it needs memory like a run can only be seen on a GPU."""
    for batch_size in (64, 1000):
        rehearse(job_on(open_dataset(small), tiny_spec("promise", batch_size=batch_size, epochs=1000)))
