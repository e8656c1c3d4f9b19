"""How many trials run at once while nodes come and go. Faked: the cluster, the clock, the study's book."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gapwise.distributed.placement import Node, Resources, Share
from gapwise.tuning import executor
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.executor import BookSearcher, PhaseRun, Room
from gapwise.tuning.trial import Place

SHARE = Share(1, 0.0)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    there = [Node(1), Node(1)]
    monkeypatch.setattr(executor, "resources", lambda: Resources(tuple(there)))
    return there


def phase(make_space: Any, tmp_path: Path, *, grows: bool) -> PhaseRun:
    return PhaseRun("search", "book", Place(make_space(), "data", str(tmp_path)), concurrency=2, grows=grows)


def test_as_many_trials_run_as_fit_the_nodes_of_the_moment_and_one_always_waits_for_a_node(
    make_space: Any, tmp_path: Path, nodes: list[Node]
) -> None:
    now = [0.0]
    room = Room(phase(make_space, tmp_path, grows=True), SHARE, lambda: now[0])
    nodes.append(Node(1))
    assert room() == 2, "nodes are not counted at every question"
    found = []
    for now[0], there in ((3.0, nodes), (6.0, nodes[:1]), (9.0, [])):
        nodes[:] = there
        found.append(room())
    assert found == [3, 1, 1]


def test_a_concurrency_that_was_asked_for_stays(make_space: Any, tmp_path: Path, nodes: list[Node]) -> None:
    now = [0.0]
    room = Room(phase(make_space, tmp_path, grows=False), SHARE, lambda: now[0])
    nodes.append(Node(1))
    now[0] = 100.0
    assert room() == 2


class Book:
    """Hands out one assignment after the other; its calls answer as an actor's do."""

    def __init__(self) -> None:
        self.next_search, self._number = SimpleNamespace(remote=self._next), 0

    def _next(self, late: bool) -> Assignment:
        assert not late
        self._number += 1
        return Assignment("search", "prlf", self._number, {}, 1, self._number)


def test_the_searcher_asks_the_book_only_while_there_is_room(
    make_space: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor.ray, "get", lambda answer: answer)
    searcher = BookSearcher(Book(), phase(make_space, tmp_path, grows=False), SHARE)
    assert [searcher.suggest(trial) is not None for trial in ("a", "b", "c")] == [True, True, False]
    searcher.on_trial_complete("a")
    assert searcher.suggest("c")["assignment"]["number"] == 3
