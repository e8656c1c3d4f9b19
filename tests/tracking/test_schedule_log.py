"""A schedule's record in a real MLflow, on SQLite and through a server: numbers are given once, whoever writes.

Nothing is faked; the writers are threads with clients of their own, as processes have.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gapwise.errors import RegistryError, SpecError
from gapwise.spec.home import Home
from gapwise.testing.mlflow_server import Server
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking, connect
from gapwise.tracking.schedule_log import ScheduleLog


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    made.wait_until_it_answers()
    yield made
    made.stop()


@pytest.fixture(params=["sqlite", "server"])
def there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tracking, Home]:
    if request.param == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server").uri)
    here = Home(tmp_path / "home")
    return connect(here), here


def test_entries_come_back_in_order_with_the_numbers_they_were_given(there: tuple[Tracking, Home]) -> None:
    log = ScheduleLog(*there, "orders")

    numbers = [log.append(f"entry {index}") for index in range(5)]

    assert numbers == [1, 2, 3, 4, 5]
    assert log.read() == [(number, f"entry {number - 1}") for number in numbers]
    assert log.read(newest=2) == [(4, "entry 3"), (5, "entry 4")]


def test_a_name_without_a_schedule_has_an_empty_record_and_none_is_made(there: tuple[Tracking, Home]) -> None:
    assert ScheduleLog(*there, "nobody").read() == []
    assert registry.aliases_if_any(there[0], "nobody-schedule") is None


def test_no_number_is_given_twice_however_many_write_at_once(there: tuple[Tracking, Home]) -> None:
    logs = [ScheduleLog(*there, "races") for _ in range(8)]
    logs[0].append("first")

    def write(index: int) -> int:
        for _ in range(50):  # SQLite is busy now and then, and a number may have gone to somebody else
            try:
                return logs[index].append(f"writer {index}")
            except RegistryError:
                continue
        raise AssertionError("never got through")

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(write, range(8)))

    kept = dict(logs[0].read())
    assert len(set(given)) == 8
    assert {number: kept[number] for number in given} == {given[index]: f"writer {index}" for index in range(8)}


def test_a_schedule_s_record_is_no_registered_model_for_people(there: tuple[Tracking, Home]) -> None:
    ScheduleLog(*there, "hidden").append("entry")

    assert registry.names(there[0]) == []
    with pytest.raises(SpecError, match="a ledger, a router or a schedule"):
        registry.refuse_reserved("hidden-schedule", "--name")
