"""The study's book on a real Optuna journal, in this process: no Ray actor around it.

Faked: training. A worker here answers each epoch with a cost computed from the sampled values, so that a killed driver
is a book that is dropped, or a journal cut after any of its lines.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from gapwise.spec.search import SearchSpec
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Assignment, Outcome, failure
from gapwise.tuning.book import StudyBook
from gapwise.tuning.events import Event, events_beside, read_events
from gapwise.tuning.space import default_values

MakeSpace = Callable[..., SearchSpec]
EPOCHS = 4


def cost_of(assignment: Assignment, epoch: int) -> float:
    """Better near lr 0.002, and with epochs."""
    return abs(math.log(assignment.values["optimiser.lr"] / 0.002)) + 1.0 / epoch


def ending(assignment: Assignment, epoch: int, state: Any = "complete") -> Outcome:
    cost = cost_of(assignment, epoch)
    return Outcome(state, cost, epoch, {"mae": {"0.0": cost}}, 0.5)


def work(book: StudyBook, assignment: Assignment) -> None:
    for epoch in range(1, EPOCHS + 1):
        if book.report(assignment, epoch, cost_of(assignment, epoch), {}) == "stop":
            book.finish(assignment, ending(assignment, epoch, "pruned"))
            return
    book.finish(assignment, ending(assignment, EPOCHS))


def search(book: StudyBook) -> list[Assignment]:
    handed = []
    while (assignment := book.next_search()) is not None:
        handed.append(assignment)
        work(book, assignment)
    return handed


def told(book: StudyBook) -> list[tuple[Any, ...]]:
    found = book.finished("search")
    return [(one.assignment.key, one.assignment.values, one.outcome.state, one.outcome.best_epoch) for one in found]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def test_the_default_configuration_comes_first_in_every_arm(make_space: MakeSpace, journal: Path) -> None:
    space = make_space()
    handed = search(StudyBook(space, journal))
    for arm in ("prlf", "late_fusion"):
        first = next(one for one in handed if one.arm == arm)
        assert (first.number, first.source, first.seed) == (0, 0, space.seed)
        assert first.values == default_values(space, arm)


def test_arms_take_turns_by_their_share_and_stop_at_their_number(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(trials=6, baseline_share=0.5), journal)
    assert book.unfinished() == 9
    arms = [one.arm for one in search(book)]
    assert arms == ["prlf", "late_fusion", "prlf"] * 3
    assert book.next_search() is None
    assert book.unfinished() == 0


def test_trials_may_grow_and_the_old_ones_are_kept(make_space: MakeSpace, journal: Path) -> None:
    before = search(StudyBook(make_space(trials=2), journal))
    book = StudyBook(make_space(trials=4), journal)
    more = search(book)
    assert [one.number for one in more if one.arm == "prlf"] == [2, 3]
    assert len(told(book)) == len(before) + len(more) == 6


def test_a_question_looks_for_waiting_trials_only_where_some_wait(
    make_space: MakeSpace, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[Any, ...]] = []
    all_trials = JournalStorage.get_all_trials

    def counted(self: JournalStorage, study_id: int, deepcopy: bool = True, states: Any = None) -> Any:
        looked.extend([states] if states == (TrialState.WAITING,) else [])
        return all_trials(self, study_id, deepcopy=deepcopy, states=states)

    monkeypatch.setattr(JournalStorage, "get_all_trials", counted)
    search(StudyBook(make_space(), journal))
    assert len(looked) == 2  # the default configuration of each arm


def noted(journal: Path) -> list[Event]:
    return read_events(events_beside(journal), 0, most=1000)[0]


def start(book: StudyBook, count: int) -> list[Assignment]:
    taken = [book.next_search() for _ in range(count)]
    return [one for one in taken if one is not None]


def test_a_hopeless_trial_is_stopped_at_a_rung_and_never_between(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(arms={"prlf": {}}, baseline_share=1.0, trials=3), journal)
    good, _, other, _, hopeless, _ = start(book, 6)
    assert {good.arm, other.arm, hopeless.arm} == {"prlf"}
    for one, cost in ((good, 1.0), (other, 2.0), (hopeless, 9.0)):
        assert book.report(one, 1, cost, {}) == "go on"
        verdict = book.report(one, 2, cost, {})
    assert verdict == "stop"
    assert book.report(good, 3, 1.0, {}) == "go on"


def test_a_stopped_trial_whose_driver_died_before_it_ended_is_stopped_again(
    make_space: MakeSpace, journal: Path
) -> None:
    space = make_space(arms={"prlf": {}}, baseline_share=1.0, trials=2)
    book = StudyBook(space, journal)
    good, _, hopeless, _ = start(book, 4)
    for one, cost in ((good, 1.0), (hopeless, 9.0)):
        verdicts = [book.report(one, epoch, cost, {}) for epoch in (1, 2)]
    assert verdicts == ["go on", "stop"]
    again = StudyBook(space, journal)
    assert [again.report(hopeless, epoch, 9.0, {}) for epoch in (1, 2)] == ["go on", "stop"]


def test_without_a_pruner_nothing_is_stopped(make_space: MakeSpace, journal: Path) -> None:
    handed = search(book := StudyBook(make_space(pruner={"name": "none"}), journal))
    assert {one[2] for one in told(book)} == {"complete"}
    assert len(handed) == 9


def test_the_second_phase_is_never_stopped(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(), journal)
    source = search(book)[0]
    book.plan_repeats([Repeat(source.arm, source.number, source.values, seed) for seed in (1, 2, 3)])
    for cost in (1.0, 2.0, 99.0):
        one = book.next_repeat()
        assert one is not None
        assert {book.report(one, epoch, cost, {}) for epoch in range(1, 9)} == {"go on"}
        book.finish(one, ending(one, 1))


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_an_ending_is_read_back_with_its_curve_or_its_reason(make_space: MakeSpace, journal: Path, state: str) -> None:
    space = make_space()
    book = StudyBook(space, journal)
    (one,) = start(book, 1)
    book.report(one, 1, 1.5, {})
    outcome = failure("NaN: not finite after epoch 2") if state == "failed" else ending(one, 1, state)
    book.finish(one, outcome)
    (found,) = StudyBook(space, journal).finished("search")
    assert found == (one, outcome)


def test_an_ending_told_twice_is_recorded_once_and_the_first_one_counts(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(), journal)
    (one,) = start(book, 1)
    book.finish(one, ending(one, 3))
    size = journal.stat().st_size
    book.finish(one, failure("crash"))
    assert journal.stat().st_size == size
    assert [event.kind for event in noted(journal)] == ["started", "finished"]
    assert book.finished("search")[0].outcome.best_epoch == 3


def test_running_trials_of_a_dead_driver_are_handed_out_again_under_their_numbers(
    make_space: MakeSpace, journal: Path
) -> None:
    space = make_space(trials=4)
    left = start(StudyBook(space, journal), 3)
    book = StudyBook(space, journal)
    assert book.unfinished() == 6
    assert sorted(start(book, 3)) == sorted(left)
    for one in left:
        work(book, one)
    search(book)
    keys = [one[0] for one in told(book)]
    assert keys == ["prlf-0", "prlf-1", "prlf-2", "prlf-3", "late_fusion-0", "late_fusion-1"]


def journalled(journal: Path, what: str) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, journal.read_text().splitlines()) if what in record]


def test_an_epoch_told_twice_is_journalled_once(make_space: MakeSpace, journal: Path) -> None:
    space = make_space()
    book = StudyBook(space, journal)
    (one,) = start(book, 1)
    book.report(one, 1, 1.5, {})
    again = StudyBook(space, journal)
    assert again.next_search() == one
    for epoch in (1, 2):
        again.report(one, epoch, 1.5, {})
    assert [record["step"] for record in journalled(journal, "intermediate_value")] == [1, 2]


def test_repeats_are_queued_once_with_their_seed_and_source(make_space: MakeSpace, journal: Path) -> None:
    space = make_space()
    book = StudyBook(space, journal)
    source = search(book)[1]
    repeats = [Repeat(source.arm, source.number, source.values, seed) for seed in (11, 12)]
    assert book.plan_repeats(repeats) == 2
    assert book.plan_repeats(repeats) == 2
    one = book.next_repeat()
    assert one is not None
    assert (one.phase, one.arm, one.source, one.seed, one.values) == (
        "seeds",
        source.arm,
        source.number,
        11,
        source.values,
    )
    assert one.key == f"{source.arm}-{source.number}-seed11"
    again = StudyBook(space, journal)
    assert again.plan_repeats(repeats) == 2  # one left RUNNING by the dead driver, one waiting
    assert again.next_repeat() == one
    again.finish(one, ending(one, 1))
    other = again.next_repeat()
    assert other is not None
    again.finish(other, ending(other, 1))
    assert again.plan_repeats(repeats) == 0
    assert again.next_repeat() is None
    assert [one.assignment.seed for one in again.finished("seeds")] == [11, 12]


def test_the_second_phase_does_not_feed_the_search(make_space: MakeSpace, tmp_path: Path) -> None:
    plain, mixed = (StudyBook(make_space(trials=5), tmp_path / name) for name in ("plain", "mixed"))
    expected = search(plain)
    (first,) = start(mixed, 1)
    work(mixed, first)
    mixed.plan_repeats([Repeat(first.arm, first.number, first.values, 1)])
    repeat = mixed.next_repeat()
    assert repeat is not None
    mixed.finish(repeat, ending(repeat, 1))
    assert [first, *search(mixed)] == expected


def test_an_epoch_is_noted_for_watchers_once_with_all_that_was_told(make_space: MakeSpace, journal: Path) -> None:
    space = make_space()
    book = StudyBook(space, journal)
    (one,) = start(book, 1)
    book.report(one, 1, 1.5, {"losses": {"total": 2.0}})
    again = StudyBook(space, journal)
    assert again.next_search() == one
    for epoch in (1, 2):
        again.report(one, epoch, 1.5, {})
    reported = [event for event in noted(journal) if event.kind == "reported"]
    assert [event.body["epoch"] for event in reported] == [1, 2]
    assert reported[0].assignment == one
    assert reported[0].body == {"losses": {"total": 2.0}, "epoch": 1, "cost": 1.5}


def test_an_ending_that_a_dying_driver_did_not_note_is_noted_when_the_book_is_opened_again(
    make_space: MakeSpace, journal: Path
) -> None:
    space = make_space()
    book = StudyBook(space, journal)
    (one,) = start(book, 1)
    book.finish(one, ending(one, 3))
    whole = events_beside(journal).read_bytes().splitlines(keepends=True)
    events_beside(journal).write_bytes(whole[0])
    for _ in range(2):
        StudyBook(space, journal)
        started, finished = noted(journal)
        assert (started.kind, finished.kind) == ("started", "finished")
        assert Outcome(**finished.body) == ending(one, 3)


@pytest.mark.parametrize("sampler", [{"name": "random"}, {"name": "tpe", "startup": 2}], ids=["random", "tpe"])
def test_the_same_seed_asks_the_same_questions_and_another_seed_others(
    make_space: MakeSpace, tmp_path: Path, sampler: dict[str, Any]
) -> None:
    runs = [
        search(StudyBook(make_space(sampler=sampler, seed=seed), tmp_path / f"{n}")) for n, seed in enumerate("001")
    ]
    assert runs[0] == runs[1]
    assert [one.values for one in runs[0]][2:] != [one.values for one in runs[2]][2:]


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ({"name": "random"}, {"name": "none"}),
        ({"name": "tpe", "startup": 2}, {"name": "none"}),
        ({"name": "tpe", "startup": 2}, {"name": "asha", "min_epochs": 1, "reduction": 2}),
        ({"name": "tpe", "startup": 2, "group": True}, {"name": "hyperband", "min_epochs": 1, "reduction": 2}),
        ({"name": "gp", "startup": 2}, {"name": "median", "min_epochs": 2}),
        ({"name": "auto", "startup": 2}, {"name": "asha", "min_epochs": 1, "reduction": 2}),
        ({"name": "cmaes", "startup": 2}, {"name": "none"}),
        ({"name": "qmc"}, {"name": "none"}),
        ({"name": "grid", "points": 2}, {"name": "none"}),
    ],
    ids=[
        "random",
        "tpe",
        "tpe and asha",
        "group and hyperband",
        "gp and median",
        "auto and asha",
        "cmaes",
        "qmc",
        "grid",
    ],
)
def test_a_study_cut_after_any_line_of_its_journal_continues_as_if_never_cut(
    make_space: MakeSpace, tmp_path: Path, sampler: dict[str, Any], pruner: dict[str, Any]
) -> None:
    space = make_space(sampler=sampler, pruner=pruner, trials=5, baseline_share=0.2)
    whole = StudyBook(space, tmp_path / "whole")
    search(whole)
    expected, lines = told(whole), (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    different = []
    for count in range(1, len(lines)):
        cut = tmp_path / f"cut-{count}"
        cut.write_bytes(b"".join(lines[:count]))
        book = StudyBook(space, cut)
        search(book)
        if told(book) != expected:
            different.append((count, lines[count - 1], lines[count]))
    assert not different


def only_choices(make_space: MakeSpace, **changes: Any) -> SearchSpec:
    """Three configurations in all, one arm."""
    fisher = {"role": "searched", "choices": ["precision", "trace", "ema"]}
    arms = {"prlf": {"parameters": {"model.fisher": fisher}}}
    fields: dict[str, Any] = {"arms": arms, "trials": 9, "baseline_share": 0.1, "sampler": {"name": "random"}}
    return make_space(**fields | changes)


def ended(cost: float, state: Any = "complete") -> Outcome:
    return Outcome(state, cost, 3, {"mae": {"0.0": cost}}, 7.0)


def by_name(book: StudyBook) -> dict[str, Outcome]:
    return {one.assignment.key: one.outcome for one in book.finished("search")}


def test_a_configuration_asked_again_is_answered_from_its_record(make_space: MakeSpace, journal: Path) -> None:
    space = only_choices(make_space, pruner={"name": "none"})
    book, trained = StudyBook(space, journal), []
    while (one := book.next_search()) is not None:
        trained.append(one.values.get("model.fisher"))
        book.finish(one, ended(float(len(trained))))
    assert sorted(fisher for fisher in trained if fisher) == ["ema", "precision", "trace"]
    found = by_name(book)
    assert len(found) == 10
    again = [one for one in found.values() if one.duplicate_of is not None]
    assert len(again) == 6
    for one in again:
        source = found[f"prlf-{one.duplicate_of}"]
        assert one == source._replace(duplicate_of=one.duplicate_of, train_seconds=0.0)
    assert book.unfinished() == 0


def test_a_duplicate_is_recognised_after_a_restart_too(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(arms={"prlf": {}}, trials=3, baseline_share=0.3)
    (first,) = (one for one in start(StudyBook(space, journal), 1) if one.arm == "prlf")
    StudyBook(space, journal).finish(first, ended(2.0, "pruned"))
    book = StudyBook(space, journal)
    assert [one.arm for one in search(book)] == ["late_fusion"]
    assert [(key, one.state, one.duplicate_of) for key, one in by_name(book).items() if key.startswith("prlf")] == [
        ("prlf-0", "pruned", None),
        ("prlf-1", "pruned", 0),
        ("prlf-2", "pruned", 0),
    ]


def test_a_failure_answers_nothing(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(arms={"prlf": {}}, trials=3, baseline_share=0.3), journal)
    handed = []
    while (one := book.next_search()) is not None:
        handed.append(one.key)
        book.finish(one, failure("crash"))
    assert sorted(handed) == ["late_fusion-0", "prlf-0", "prlf-1", "prlf-2"]


def test_failures_are_repeated_on_request_and_only_they(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(trials=4, baseline_share=0.25, pruner={"name": "none"})
    book = StudyBook(space, journal)
    for index, one in enumerate(start(book, 5)):
        book.finish(one, failure("crash") if index in (1, 3) else ending(one, 1))
    failed = [one.assignment for one in book.finished("search") if one.outcome.state == "failed"]
    assert StudyBook(space, journal).unfinished() == 0
    again = StudyBook(space, journal, retry_failed=True)
    assert again.unfinished() == 2
    repeated = search(again)
    assert sorted(one.values.items() for one in repeated) == sorted(one.values.items() for one in failed)
    assert not {one.key for one in repeated} & {one.key for one in failed}
    assert {one.state for one in by_name(again).values()} == {"complete"}
    assert len(by_name(again)) == 5
    assert StudyBook(space, journal, retry_failed=True).unfinished() == 0


def test_a_repeat_that_failed_may_be_repeated_under_its_own_name(make_space: MakeSpace, journal: Path) -> None:
    space = make_space()
    book = StudyBook(space, journal)
    source = search(book)[0]
    book.plan_repeats([Repeat(source.arm, source.number, source.values, 1)])
    one = book.next_repeat()
    assert one is not None
    book.finish(one, failure("crash"))
    again = StudyBook(space, journal, retry_failed=True)
    assert again.plan_repeats([Repeat(source.arm, source.number, source.values, 1)]) == 1
    repeated = again.next_repeat()
    assert repeated is not None
    assert (repeated.key, repeated.number) == (one.key, one.number + 1)
    again.finish(repeated, ending(repeated, 1))
    assert [found.outcome.state for found in again.finished("seeds")] == ["complete"]


def test_a_grid_ends_when_every_combination_was_tried(make_space: MakeSpace, journal: Path) -> None:
    space = only_choices(make_space, sampler={"name": "grid"}, trials=50)
    book = StudyBook(space, journal)
    assert book.unfinished() == 4 + space.trials_of("late_fusion")
    trained = []
    while (one := book.next_search()) is not None:
        trained.append(one.arm)
        book.finish(one, ended(1.0))
    assert trained.count("prlf") == 3
    assert book.unfinished() == 0


def test_a_paused_book_hands_out_nothing_and_asks_those_that_run_to_leave(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(trials=3, pruner={"name": "none"})
    book = StudyBook(space, journal)
    first, second = start(book, 2)
    assert book.begin(first)
    book.pause()
    assert book.next_search() is None
    assert not book.begin(first)
    assert book.report(first, 1, 1.0, {}) == "pause"
    book.finish(second, ending(second, 1))
    again = StudyBook(space, journal)
    assert again.next_search() == first
    assert again.unfinished() == 3


def test_a_book_that_was_paused_for_room_records_no_failure_of_a_run_whose_worker_died_of_it(
    make_space: MakeSpace, journal: Path
) -> None:
    book = StudyBook(make_space(trials=1), journal)
    (one,) = start(book, 1)
    assert book.full() == ""
    book.pause_for_room("/a/file: cannot be written: No space left on device")
    book.pause_for_room("another")
    book.give_up(one, failure("crash: the worker died 3 times"))
    assert book.next_search() is None
    assert book.full() == "/a/file: cannot be written: No space left on device"
    assert StudyBook(make_space(trials=1), journal).next_search() == one


def test_on_hand_is_what_would_be_handed_out(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(trials=2, baseline_share=0.5)
    book = StudyBook(space, journal)
    assert book.on_hand("search", late=False) == 3
    first = book.next_search()
    assert first is not None
    assert (book.on_hand("search", late=False), book.on_hand("search", late=True)) == (2, 0)
    again = StudyBook(space, journal)
    assert (again.on_hand("search", late=False), again.on_hand("search", late=True)) == (3, 1), "one was left behind"
    assert again.on_hand("seeds", late=False) == 0
    again.plan_repeats([Repeat("prlf", 0, first.values, seed) for seed in (1, 2)])
    assert again.on_hand("seeds", late=True) == 2, "time is the search's budget"
    again.pause()
    assert again.on_hand("search", late=False) == again.on_hand("seeds", late=False) == 0


def test_what_has_ended_need_not_begin(make_space: MakeSpace, journal: Path) -> None:
    book = StudyBook(make_space(), journal)
    (one,) = start(book, 1)
    book.finish(one, ending(one, 1))
    assert not book.begin(one)


def test_what_was_handed_out_and_never_ended_is_ended_with_a_reason(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(trials=2)
    left = start(StudyBook(space, journal), 1)
    book = StudyBook(space, journal)
    adopted, other = start(book, 2)
    assert [adopted] == left
    book.finish(other, ending(other, 1))
    book.lose("search")
    assert by_name(book)[adopted.key] == failure("crash: its worker went away without a word")
    assert by_name(book)[other.key].state == "complete"
    waiting = StudyBook(space, journal)
    waiting.lose("search")
    assert waiting.unfinished() == 1


@pytest.mark.parametrize("limit", [{"epochs": 9}, {"device_seconds": 1.3}])
def test_a_budget_ends_the_search_and_is_counted_over_sessions(
    make_space: MakeSpace, journal: Path, limit: dict[str, float]
) -> None:
    """A trial takes 4 epochs and 0.5 s: the third is the last to start."""
    space = make_space(trials=9, budget=limit, pruner={"name": "none"})
    for _ in range(2):
        book = StudyBook(space, journal)
        (one,) = start(book, 1)
        work(book, one)
        assert not book.used_up()
    book = StudyBook(space, journal)
    assert len(search(book)) == 1
    assert book.used_up()
    assert book.spent() == (12, pytest.approx(1.5))
    assert StudyBook(space, journal).spent() == (12, pytest.approx(1.5))
    assert StudyBook(space, journal).next_search() is None


def test_when_time_is_up_what_a_dead_driver_left_still_goes_on(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(pruner={"name": "none"})
    left = start(StudyBook(space, journal), 2)
    book = StudyBook(space, journal)
    assert [book.next_search(late=True) for _ in range(3)] == [*left, None]


def test_what_a_failure_took_counts_towards_the_budget(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(budget={"device_seconds": 7.0}, pruner={"name": "none"})
    book = StudyBook(space, journal)
    (one,) = start(book, 1)
    book.report(one, 1, 1.0, {"train_seconds": 8.0})
    book.finish(one, failure("NaN"))
    assert book.spent().device_seconds == 8.0
    assert StudyBook(space, journal).spent().device_seconds == 8.0


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "qmc", "random"])
def test_a_book_opened_again_beside_running_trials_asks_what_the_old_one_would_have(
    make_space: MakeSpace, tmp_path: Path, name: str
) -> None:
    space = make_space(sampler={"name": name, "startup": 2}, pruner={"name": "none"}, trials=7)

    def asked(journal: Path, *, again: bool) -> list[dict[str, Any]]:
        book = StudyBook(space, journal)
        live = start(book, 3)
        found = [one.values for one in live]
        while live:
            first, *live = live
            work(book, first)
            if again:
                book = StudyBook(space, journal)
                assert {one.key for one in start(book, len(live))} == {one.key for one in live}
            if (fresh := book.next_search()) is not None:
                live.append(fresh)
                found.append(fresh.values)
        return found

    assert asked(tmp_path / "again", again=True) == asked(tmp_path / "whole", again=False)


def test_what_a_running_trial_has_told_counts_towards_the_budget(make_space: MakeSpace, journal: Path) -> None:
    space = make_space(budget={"device_seconds": 7.0}, pruner={"name": "none"})
    book = StudyBook(space, journal)
    (one,) = start(book, 1)
    book.report(one, 1, 1.0, {"train_seconds": 8.0})
    assert book.next_search() is None
