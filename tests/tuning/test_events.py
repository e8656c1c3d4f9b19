"""The file of a study's events: what is on disk, what is read back, and what is told twice. Nothing is faked."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gapwise.tuning.assignment import Assignment
from gapwise.tuning.events import EventLog, count_events, events_beside, read_events


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return events_beside(tmp_path / "journal.log")


def trial(number: int) -> Assignment:
    return Assignment("search", "prlf", number, {"model.fisher": "ema", "optimiser.lr": 0.1}, 0, number)


def note_epochs(log: EventLog, number: int, *epochs: int) -> None:
    for epoch in epochs:
        log.note("reported", trial(number), {"epoch": epoch})


def epochs(file: Path, number: int) -> list[int]:
    events, _ = read_events(file, 0, most=1000)
    return [event.body["epoch"] for event in events if (event.kind, event.assignment) == ("reported", trial(number))]


@pytest.mark.parametrize(
    "body", [{}, {"epoch": 1, "cost": 0.1 + 0.2, "curve": {"0.0": float("inf")}}, {"reason": "é\n"}]
)
def test_an_event_is_read_back_as_it_was_noted(file: Path, body: dict[str, Any]) -> None:
    EventLog(file).note("told", trial(3), body)
    ((kind, assignment, read, time),) = read_events(file, 0, most=1)[0]
    assert (kind, assignment, read) == ("told", trial(3), body)
    assert time > 0


def test_a_study_that_nobody_began_has_no_events(file: Path) -> None:
    assert read_events(file, 0, most=5) == ([], 0)
    assert count_events(file, 0) == 0


def test_each_reader_goes_on_from_its_own_position_a_few_events_at_a_time(file: Path) -> None:
    note_epochs(log := EventLog(file), 0, 1, 2, 3)
    first, position = read_events(file, 0, most=2)
    second, end = read_events(file, position, most=2)
    assert [event.body["epoch"] for event in first + second] == [1, 2, 3]
    assert (count_events(file, position), count_events(file, end)) == (1, 0)
    assert read_events(file, end, most=2) == ([], end)
    note_epochs(log, 0, 4)
    assert [event.body["epoch"] for event in read_events(file, end, most=2)[0]] == [4]


def test_a_line_that_is_still_being_written_is_not_read(file: Path) -> None:
    note_epochs(EventLog(file), 0, 1)
    with file.open("ab") as opened:
        opened.write(b'{"kind":"repo')
    assert epochs(file, 0) == [1]
    assert count_events(file, 0) == 1


def test_a_line_that_a_full_disk_let_in_by_half_is_taken_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_epochs(log := EventLog(file), 0, 1)

    def full(_: int) -> None:
        os.truncate(file, file.stat().st_size - 7)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            note_epochs(log, 0, 2)
    assert epochs(file, 0) == [1]
    note_epochs(log, 0, 2)
    assert epochs(file, 0) == [1, 2]


def test_a_line_that_a_dying_writer_left_torn_is_cut_off_and_told_again(file: Path) -> None:
    note_epochs(EventLog(file), 0, 1, 2)
    file.write_bytes(file.read_bytes()[:-1])
    note_epochs(EventLog(file), 0, 1, 2, 3)
    assert epochs(file, 0) == [1, 2, 3]


@pytest.mark.parametrize("opened_again", [False, True])
def test_what_a_resumed_trial_tells_again_is_there_once(file: Path, opened_again: bool) -> None:
    note_epochs(log := EventLog(file), 0, 1, 2, 3)
    note_epochs(log, 1, 1)
    log.note("finished", trial(1), {"state": "complete"})
    log = EventLog(file) if opened_again else log
    note_epochs(log, 0, 2, 3, 4)
    log.note("finished", trial(1), {"state": "failed"})
    assert epochs(file, 0) == [1, 2, 3, 4]
    events, _ = read_events(file, 0, most=100)
    assert [event.body for event in events if event.kind == "finished"] == [{"state": "complete"}]
