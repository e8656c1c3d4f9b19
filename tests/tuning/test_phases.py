"""All phases of a study as one run of Tune: when the next begins, who waits for it, and what the refit is given.

Faked: Ray, by a book that is called directly; training, by endings that are told.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gapwise.distributed.placement import Share
from gapwise.distributed.side_by_side import Run
from gapwise.errors import StudyError
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import TrainSpec
from gapwise.testing.handle import Handle
from gapwise.tuning.actor import BookActor, Record
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Assignment, failure
from gapwise.tuning.executor import BookSearcher, PhaseRun
from gapwise.tuning.trial import Place

MakeSpace = Callable[..., SearchSpec]


class Tune:
    """Asks the searcher as Ray Tune does, one worker after the other, and has `slots` of them."""

    def __init__(self, searcher: BookSearcher, book: BookActor) -> None:
        self.searcher, self.book, self.number = searcher, book, 0
        self.runs: dict[str, dict[str, Any]] = {}

    def ask(self) -> Any:
        """What the next worker gets: its trial's name, None for not now, or that all is over."""
        self.number += 1
        name = f"t{self.number}"
        config = self.searcher.suggest(name)
        if not isinstance(config, dict):
            return config
        self.runs[name] = config
        return name

    def fill(self) -> list[str]:
        """Until it hears that there is no more for now; what was given."""
        given = []
        while isinstance(name := self.ask(), str) and name != "FINISHED":
            given.append(name)
        return given

    def end(self, name: str) -> None:
        config = self.runs.pop(name)
        if "assignment" in config:
            self.book.finish(Assignment(**config["assignment"]), failure("it is a test"))
        self.searcher.on_trial_complete(name)

    def waiting(self) -> list[str]:
        return [name for name, config in self.runs.items() if "wait" in config]


class Scene:
    def __init__(self, space: SearchSpec, folder: Path) -> None:
        self.space, self.folder = space, folder
        self.book = BookActor(space, Record(folder))
        self.book.open()
        self.broken: Exception | None = None

    def run(self, phase: Any, **more: Any) -> PhaseRun:
        return PhaseRun(phase, "book", Place(self.space, "data", str(self.folder)), concurrency=2, **more)

    def tune(self, then: Iterator[PhaseRun], first: PhaseRun | None = None) -> Tune:
        return Tune(BookSearcher(Handle(self.book), first or self.run("search"), Share(1, 0.0), then), self.book)

    def repeats(self, count: int) -> Iterator[PhaseRun]:
        self.book.plan_repeats([Repeat("prlf", 0, {"optimiser.lr": 0.001}, seed) for seed in range(1, count + 1)])
        yield self.run("seeds")


@pytest.fixture
def scene(make_space: MakeSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr("ray.get", lambda answer: answer)
    monkeypatch.setattr("gapwise.tuning.actor.keep_to_own_cpus", lambda: None)
    scene = Scene(make_space(trials=2, baseline_share=0.5), tmp_path)
    yield scene
    scene.book._held.close()


def test_the_next_phase_begins_when_nothing_runs_and_who_is_idle_until_then_keeps_its_worker(scene: Scene) -> None:
    asked: list[str] = []

    def then() -> Iterator[PhaseRun]:
        asked.append("seeds")
        yield from scene.repeats(2)
        asked.append("over")

    tune = scene.tune(then())
    first, second = tune.fill()
    tune.end(first)
    (third,) = tune.fill()
    assert "assignment" in tune.runs[third]
    tune.end(second)
    (waits,) = tune.fill()
    assert tune.waiting() == [waits]
    assert tune.runs[waits]["wait"] == scene.book.released(), "and it goes on waiting"
    assert (tune.ask(), asked) == (None, []), "the search is not over"
    tune.end(third)
    (seed,) = tune.fill()
    assert asked == ["seeds"]
    assert tune.runs[waits]["wait"] != scene.book.released(), "it may go"
    tune.end(waits)
    (other,) = tune.fill()
    assert [tune.runs[one]["assignment"]["seed"] for one in (seed, other)] == [1, 2]
    tune.end(other)
    assert tune.fill() == tune.waiting()
    tune.end(seed)
    assert (tune.ask(), asked) == ("FINISHED", ["seeds", "over"])
    for left in tune.waiting():
        assert tune.runs[left]["wait"] != scene.book.released()


def one_works_and_one_waits(tune: Tune) -> tuple[str, str]:
    """At the end of a search of three trials."""
    first, second = tune.fill()
    tune.end(first)
    (third,) = tune.fill()
    tune.end(second)
    (waits,) = tune.fill()
    assert tune.waiting() == [waits]
    return third, waits


def test_no_worker_is_started_only_to_wait(scene: Scene) -> None:
    scene.book.finish(scene.book.next_search() or pytest.fail("it has trials"), failure("it is a test"))
    scene.book.finish(scene.book.next_search() or pytest.fail("it has trials"), failure("it is a test"))
    tune = scene.tune(iter(()))
    assert len(tune.fill()) == 1
    assert tune.waiting() == []


def test_trials_with_workers_of_their_own_leave_nobody_to_wait(
    scene: Scene, make_space: MakeSpace, tmp_path: Path
) -> None:
    scene.space = make_space(trials=2, baseline_share=0.5, executor="train")
    tune = scene.tune(scene.repeats(1))
    first, second = tune.fill()
    tune.end(first)
    (third,) = tune.fill()
    tune.end(second)
    assert tune.fill() == []
    tune.end(third)
    (seed,) = tune.fill()
    tune.end(seed)
    assert tune.ask() == "FINISHED"


def test_a_phase_that_cannot_be_planned_ends_the_run_and_says_why(scene: Scene) -> None:
    def then() -> Iterator[PhaseRun]:
        raise StudyError("no trial finished")
        yield scene.run("seeds")

    tune = scene.tune(then())
    while given := tune.fill():
        for name in given:
            tune.end(name)
    assert tune.ask() == "FINISHED"
    assert isinstance(tune.searcher.broke, StudyError)


def refits(*names: str) -> tuple[Run, ...]:
    return tuple(Run(name, TrainSpec(), keep_last=True) for name in names)


def test_the_refit_is_handed_out_run_by_run_and_one_whose_worker_dies_for_good_is_told_of(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    tune = scene.tune(iter(()), scene.run("refit", refits=refits("a", "b", "c")))
    given = tune.fill()
    assert [tune.runs[one]["refit"]["name"] for one in given] == ["a", "b"]
    tune.searcher.starts_again(given[0], "OutOfMemoryError")
    with caplog.at_level(logging.WARNING):
        tune.searcher.given_up(given[0], "ActorDiedError: gone")
    assert caplog.messages == ["refit a: crash: the worker died 3 times, the last time of: ActorDiedError: gone"]
    (last,) = tune.fill()
    assert tune.runs[last]["refit"]["name"] == "c"
    assert tune.searcher.left() == 0


def test_a_pause_hands_out_no_refit(scene: Scene) -> None:
    tune = scene.tune(iter(()), scene.run("refit", refits=refits("a", "b")))
    scene.book.pause()
    assert tune.ask() == "FINISHED"


def test_who_waits_makes_room_for_what_a_dead_worker_left(scene: Scene) -> None:
    """The cluster may have no other place for it: a machine has gone with the worker."""
    tune = scene.tune(scene.repeats(2))
    third, waits = one_works_and_one_waits(tune)
    tune.searcher.starts_again(third, "ActorDiedError: gone")
    assert tune.runs[waits]["wait"] != scene.book.released(), "it may go"
    tune.end(waits)
    assert tune.fill() == [], "and no other comes in its place"
    tune.end(third)
    assert len(tune.fill()) == 2


def test_who_waits_where_there_is_no_room_any_more_holds_up_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = scene.tune(scene.repeats(1))
    third, waits = one_works_and_one_waits(tune)
    monkeypatch.setattr(tune.searcher, "_room", lambda: 1)
    tune.end(third)
    assert len(tune.fill()) == 1
    assert tune.runs[waits]["wait"] != scene.book.released()


def test_a_worker_that_dies_while_it_waits_has_nothing_to_give_up(scene: Scene) -> None:
    tune = scene.tune(scene.repeats(2))
    third, waits = one_works_and_one_waits(tune)
    tune.searcher.starts_again(waits, "ActorDiedError: gone")
    tune.searcher.given_up(waits, "ActorDiedError: gone")
    tune.end(third)
    assert len(tune.fill()) == 2
    assert [one.outcome.reason for one in scene.book.finished("search")] == ["it is a test"] * 3
