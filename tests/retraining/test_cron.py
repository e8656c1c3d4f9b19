"""When a schedule is due, through changes of the clocks: pure. What is held against is a plain walk over the year."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from gapwise.retraining.cron import checked

START = datetime(2026, 1, 1, tzinfo=UTC)
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin, forward and back; New York; Lord Howe, by half an hour
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
]


def year_of(cron):
    found = []
    for due in cron.after(START):
        if due > START + timedelta(days=365):
            return found
        found.append(due)
    raise AssertionError("never ends")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("expression", ["0 3 * * 1", "30 2 * * *", "15 1-3 * * *", "0 * * * *"])
def test_latest_and_next_agree_with_a_walk_over_the_year_also_where_clocks_change(expression, zone):
    cron, random = checked(expression, zone, "here"), Random(0)
    due = year_of(cron)
    assert due == sorted(set(due))

    for _ in range(60):
        now = random.choice(CHANGES) + timedelta(minutes=random.randint(-200, 500), seconds=random.choice([0, 7]))
        at = bisect_right(due, now)
        assert cron.latest(now) == due[at - 1]
        assert cron.next(now) == due[at]


@pytest.mark.parametrize(("expression", "count"), [("30 2 * * *", 365), ("0 3 * * 1", 52)])
def test_a_time_that_the_clocks_skip_or_repeat_is_due_once_each_day(expression, count):
    assert len(year_of(checked(expression, "Europe/Berlin", "here"))) == count


def test_between_leaves_both_ends_out_and_stops_where_it_is_told():
    cron = checked("0 0 * * *", "UTC", "here")
    first, last = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 5, tzinfo=UTC)

    assert [due.day for due in cron.between(first, last, 100)] == [2, 3, 4]
    assert len(cron.between(first, last, 2)) == 2


def test_a_day_that_comes_every_four_years_is_found_in_both_directions():
    cron = checked("0 0 29 2 *", "UTC", "here")

    assert cron.latest(datetime(2026, 6, 1, tzinfo=UTC)) == datetime(2024, 2, 29, tzinfo=UTC)
    assert cron.next(datetime(2026, 6, 1, tzinfo=UTC)) == datetime(2028, 2, 29, tzinfo=UTC)
