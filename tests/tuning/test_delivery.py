"""Delivery of a study's events to a server that is down, hangs, or outlives a driver: real threads and files, no Ray.

Faked: the server, by a recipient that keeps what it is told, refuses to answer, or holds its caller until let go.
"""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gapwise.tracking.client import TrackingDown, TrackingRefused
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.delivery import Delivery, Patience
from gapwise.tuning.events import Event, EventLog, events_beside
from gapwise.tuning.observer import observing

LONG, NONE = Patience(600.0, 600.0), Patience(0.0, 0.0)


class Server:
    """Takes what it is told; while `down` it answers nothing, while `hanging` its caller waits."""

    def __init__(self, run_id: str = "run") -> None:
        self.run_id = run_id
        self.taken: list[int] = []
        self.ended: list[str] = []
        self.down = 0
        self.hanging, self.called = threading.Event(), threading.Event()
        self.hanging.set()

    def see(self, events: list[Event]) -> None:
        self._answer()
        self.taken += numbers(events)

    def end(self, status: str) -> None:
        self._answer()
        self.ended.append(status)

    def _answer(self) -> None:
        self.called.set()
        self.hanging.wait()
        if self.down > 0:
            self.down -= 1
            raise TrackingDown("connection refused")


class Seen:
    """A display."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def see(self, events: list[Event]) -> None:
        self.seen += numbers(events)


def numbers(events: list[Event]) -> list[int]:
    return [event.assignment.number for event in events]


def note(file: Path, *numbers: int) -> None:
    log = EventLog(file)
    for number in numbers:
        log.note("started", Assignment("search", "prlf", number, {}, 0, number), {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return events_beside(tmp_path / "journal.log")


@pytest.fixture
def hanging() -> Iterator[Server]:
    """A server that accepts and never answers, until the test is over."""
    server = Server()
    server.hanging.clear()
    yield server
    server.hanging.set()


def deliver(file: Path, server: Server, patience: Patience = LONG) -> None:
    """A study that ends at once."""
    with Delivery(file, server, patience=patience, every_seconds=0.001):
        pass


def test_everything_is_delivered_in_order_and_then_the_study_s_end(file: Path) -> None:
    server, order = Server(), []
    with Delivery(file, server, patience=LONG) as delivery:
        note(file, *range(250))
        delivery.afterwards(lambda: order.append((len(server.taken), list(server.ended))))
    assert server.taken == list(range(250))
    assert order == [(250, [])]
    assert server.ended == ["FINISHED"]


def test_an_error_ends_the_run_as_killed_and_travels_on(file: Path) -> None:
    note(file, 1)
    with pytest.raises(KeyboardInterrupt), Delivery(file, server := Server(), patience=LONG):
        raise KeyboardInterrupt
    assert (server.taken, server.ended) == ([1], ["KILLED"])


def test_a_server_that_was_down_is_given_the_same_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.down = 5
    note(file, 1, 2, 3)
    deliver(file, server)
    assert (server.taken, server.ended) == ([1, 2, 3], ["FINISHED"])
    assert not caplog.messages


def test_a_result_that_the_server_does_not_take_is_offered_again_and_one_that_it_refuses_is_said(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, attempts = Server(), []

    def publish() -> None:
        attempts.append(len(attempts))
        if len(attempts) < 3:
            raise TrackingDown("connection refused")
        raise TrackingRefused("no such artifact")

    with Delivery(file, server, patience=LONG, every_seconds=0.001) as delivery:
        delivery.afterwards(publish)
    assert attempts == [0, 1, 2]
    assert server.ended == ["FINISHED"]
    assert caplog.messages == ["the tracking server refused a part of the study's result: no such artifact"]


@pytest.mark.parametrize("answer", ["no answer", "connection refused"])
def test_a_study_ends_without_a_server_and_says_once_what_waits_and_how_it_gets_there(
    file: Path, hanging: Server, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The patience runs out; were it not bounded, this test would never end."""
    note(file, 1, 2, 3)
    if answer == "connection refused":
        hanging.down = 1_000_000_000
        hanging.hanging.set()
    with Delivery(file, hanging, patience=NONE, every_seconds=0.001):
        hanging.called.wait()
        if answer == "connection refused":
            hanging.called.clear()
            hanging.called.wait()  # a second attempt: the first has been answered
    ((_, level, line),) = caplog.record_tuples
    assert level == logging.WARNING
    assert f"3 events, which wait in {file}" in line and answer in line and "with --resume" in line
    assert hanging.taken == hanging.ended == []

    deliver(file, server := Server())
    assert (server.taken, server.ended) == ([1, 2, 3], ["FINISHED"])


def test_a_study_ends_without_waiting_for_ever_for_its_last_request(
    file: Path, hanging: Server, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(file, hanging, NONE)
    assert "0 events" in caplog.messages[0] and "the study's end" in caplog.messages[0]


def test_the_display_goes_on_while_the_server_hangs(file: Path, hanging: Server) -> None:
    note(file, 1)
    display = Seen()
    with Delivery(file, hanging, patience=NONE):
        hanging.called.wait()
        with observing(file, [display], every_seconds=600.0) as observer:
            note(file, 2, 3)
            observer.show()
            assert display.seen == [2, 3], "and what was there before this driver is not news"
            note(file, 4)
        assert display.seen == [2, 3, 4]


def test_another_driver_delivers_the_rest_and_nothing_twice(file: Path) -> None:
    note(file, 1, 2)
    deliver(file, first := Server())
    note(file, 3)
    deliver(file, second := Server())
    deliver(file, third := Server())
    assert (first.taken, second.taken, third.taken) == ([1, 2], [3], [])


def bookmark(file: Path) -> Path:
    (found,) = (entry for entry in file.parent.iterdir() if entry.suffix == ".json")
    return found


def test_a_driver_that_died_before_it_recorded_a_delivery_delivers_that_again(file: Path) -> None:
    """Again rather than never: that it makes no second point is for the recipient to see to (tests/tracking)."""
    note(file, 1)
    deliver(file, Server())
    recorded = bookmark(file).read_bytes()
    note(file, 2, 3)
    deliver(file, Server())
    bookmark(file).write_bytes(recorded)
    deliver(file, again := Server())
    assert again.taken == [2, 3]


def test_a_study_that_moves_to_another_server_is_told_there_from_the_beginning(file: Path) -> None:
    note(file, 1, 2)
    deliver(file, Server("here"))
    deliver(file, there := Server("there"))
    assert there.taken == [1, 2]


def test_a_torn_bookmark_is_no_bookmark(file: Path) -> None:
    note(file, 1, 2)
    deliver(file, Server())
    bookmark(file).write_text("")
    deliver(file, again := Server())
    assert again.taken == [1, 2]


def test_whether_the_server_has_taken_everything_is_known_at_the_end(file: Path, hanging: Server) -> None:
    note(file, 0)
    with Delivery(file, Server(), patience=LONG, every_seconds=0.001) as taken:
        pass
    with Delivery(file, hanging, patience=NONE, every_seconds=0.001) as left:
        pass
    assert (taken.all_taken, left.all_taken) == (True, False)
