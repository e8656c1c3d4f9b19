"""The clock of a search, over sessions. Time is faked."""

import json
from pathlib import Path

import pytest

from gapwise.tuning import clock
from gapwise.tuning.clock import CLOCK_FILE, SearchClock


class Hands:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    made = Hands()
    monkeypatch.setattr(clock, "time", made)
    return made


def test_sessions_add_up_and_only_searching_counts(hands: Hands, tmp_path: Path) -> None:
    first = SearchClock(tmp_path)
    hands.now += 50
    with first.running():
        hands.now += 30
        assert first.seconds == 30
    hands.now += 99
    assert first.seconds == 30
    second = SearchClock(tmp_path)
    with second.running():
        hands.now += 12
    assert second.seconds == SearchClock(tmp_path).seconds == 42


def test_what_a_killed_driver_had_written_counts(hands: Hands, tmp_path: Path) -> None:
    killed = SearchClock(tmp_path)
    with killed.running():
        hands.now += 5
        killed._save()
        left = json.loads((tmp_path / CLOCK_FILE).read_text())
    assert left == {"search_seconds": 5.0}
