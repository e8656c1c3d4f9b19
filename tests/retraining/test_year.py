"""A simulated year of a weekly schedule that three machines call every so often, and that dies at random places.

Record, clock, work and death are fakes, and time passes only where the simulation lets it; decisions and the runner
are real. Deaths happen before and after writes of the record and in the middle of training; machines are suspended for
longer than a lease. What is checked is what a team relies on: every due tick came to an end or is noted with
a reason, no two attempts ever held the schedule at once, and nothing was decided twice.
"""

import random
from datetime import timedelta

import pytest

from gapwise.errors import GapwiseError, RegistryError
from gapwise.retraining.log import fold
from gapwise.retraining.tick import Result, tick
from gapwise.testing.schedules import MONDAY, FakeWork, MemoryStore, SetClock, another, desk_of


class Death(BaseException):
    """The process is gone; no handler of its own sees it."""


class Year:
    """One schedule, three machines, one year."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.store, self.clock = MemoryStore(), SetClock(MONDAY - timedelta(hours=5))
        self.store.before_append = lambda text: self.perhaps_die(0.02)
        self.store.after_append = lambda text: (self.perhaps_die(0.02), self.perhaps_lose_the_answer())
        self.work = FakeWork(during=self.train)
        self.first = desk_of(self.store, self.clock, self.work, time_zone="Europe/Berlin")
        self.holders = []
        """(token, from, until) of every stretch in which an attempt believed to hold the schedule, by its checks."""
        self.depth = 0

    def perhaps_die(self, chance):
        if self.random.random() < chance:
            raise Death

    def perhaps_lose_the_answer(self):
        """The entry was written, and its writer does not hear of it."""
        if self.random.random() < 0.02:
            raise RegistryError("no answer")

    def train(self, attempt, lease):
        """Six steps of up to forty minutes: a third of the lease, or longer than it where the machine was suspended."""
        for _ in range(6):
            began = self.clock.now
            suspended = self.random.random() < 0.03
            self.clock.forward(minutes=self.random.choice([35, 90]) if suspended else 10)
            self.perhaps_die(0.04)
            if self.depth < 3 and self.random.random() < 0.5:
                self.call()
            lease.renew()
            if not suspended:
                self.holders.append((attempt.token, began, self.clock.now))
        if self.random.random() < 0.2:
            raise GapwiseError("diverged", where="training")
        self.work.result = Result(self.random.choice(["promoted", "held"]), "decided", {})

    def call(self):
        """Somebody calls the schedule, and may die of it; the process that was interrupted goes on."""
        self.depth += 1
        try:
            tick(another(self.first))
        except (Death, GapwiseError):
            pass
        finally:
            self.depth -= 1

    def live(self):
        while self.clock.now < MONDAY + timedelta(days=365):
            if self.random.random() < 0.2:
                self.work.data = f"d{self.random.random()}"
            self.call()
            outage = self.random.random() < 0.002
            self.clock.forward(hours=self.random.uniform(200, 700) if outage else self.random.uniform(0.2, 9))
            if self.random.random() < 0.01:
                self.clock.forward(hours=-3)
        for _ in range(20):  # whatever died last is taken over, fails, or is given up
            self.clock.forward(minutes=60)
            self.call()


@pytest.fixture(params=range(12))
def year(request):
    year = Year(request.param)
    year.live()
    return year


def test_every_due_tick_ended_or_is_noted_with_a_reason_and_never_two_at_once(year):
    state = fold(year.store.read())
    # Every due tick of the year, from the first that was seen.
    seen = [one.tick for one in state.entries if one.kind == "end"]
    all_due = [min(seen), *year.first.cron.between(min(seen), year.clock.now, 1000)]
    for due in all_due:
        ended = [one for one in state.ends if one.tick == due]
        missed = [one for one in state.entries if one.kind == "missed" and one.tick <= due <= one.last]
        assert ended or missed, due
        assert all(one.reason for one in [*ended, *missed])
        decided = [one for one in ended if one.outcome in ("promoted", "held", "skipped", "given up")]
        assert len(decided) <= 1, due
    assert len(all_due) >= 50

    # An attempt that knew it held the schedule did so alone: stretches of different claims do not overlap.
    for token, began, until in year.holders:
        others = [one for one in year.holders if one[0] != token and one[1] < until and began < one[2]]
        assert not others

    # Whatever trained had claimed the tick before.
    claims = {one.sequence for one in state.entries if one.kind == "claim"}
    assert {one.token for one in year.work.trained} <= claims


def test_the_years_were_eventful():
    """The simulation reaches what it is for: deaths, take-overs, misses, failures, skips, promotions."""
    kinds, outcomes, attempts = set(), set(), set()
    for seed in range(8):
        year = Year(seed)
        year.live()
        for one in fold(year.store.read()).entries:
            kinds.add(one.kind)
            outcomes.add(one.outcome)
            attempts.add(one.attempt)

    assert kinds == {"claim", "renew", "end", "missed", "alert"}
    assert outcomes == {None, "promoted", "held", "skipped", "failed", "given up"}
    assert {1, 2, 3} <= attempts
