"""One tick after another on a record in memory: who may run, who waits, what is skipped, noted and told. The record,
the clock and the work are fakes; decisions and the runner are real.
"""

from datetime import timedelta

import pytest

from gapwise.errors import DataError, RegistryError
from gapwise.retraining.log import fold
from gapwise.retraining.policy import Drifted
from gapwise.retraining.tick import LeaseLost, Result, tick
from gapwise.testing.schedules import MONDAY, FakeWork, MemoryStore, SetClock, another, desk_of

WEEK = timedelta(days=7)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def work():
    return FakeWork()


def raising(error):
    def during(attempt, lease):
        raise error

    return during


def dies(desk, work, **how):
    """A tick whose process is gone in the middle of its training."""
    work.during = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        tick(desk, **how)
    work.during = FakeWork().during


def entries(store):
    return fold(store.read()).entries


class TestWhatIsDue:
    def test_before_the_first_due_time_of_all_history_the_latest_one_counts(self, store, clock, work):
        done = tick(desk_of(store, clock, work))

        assert (done.action, done.tick) == ("refit", MONDAY - WEEK)

    def test_the_same_tick_is_done_once(self, store, clock, work):
        desk = desk_of(store, clock, work)
        tick(desk)

        assert tick(desk).action == "wait"
        assert len(work.trained) == 1

    def test_the_next_one_is_looked_at_when_it_is_due_and_not_before(self, store, clock, work):
        desk = desk_of(store, clock, work)
        tick(desk)

        clock.now = MONDAY - timedelta(seconds=1)
        assert tick(desk).action == "wait"
        clock.now = MONDAY
        assert tick(desk).action == "skip"

    def test_missed_ticks_are_noted_and_only_the_latest_is_run(self, store, clock, work):
        desk = desk_of(store, clock, work)
        tick(desk)
        work.data = "d2"
        clock.forward(weeks=4)

        done = tick(desk)

        missed = [one for one in entries(store) if one.kind == "missed"]
        assert done.action == "refit"
        assert [(one.tick, one.last, one.facts["count"]) for one in missed] == [(MONDAY, MONDAY + 2 * WEEK, 3)]

    def test_a_clock_set_back_repeats_nothing(self, store, clock, work):
        desk = desk_of(store, clock, work)
        clock.now = MONDAY
        tick(desk)
        work.data = "d2"

        clock.forward(hours=-2)
        before = len(work.trained)
        assert tick(desk).action == "wait"
        assert len(work.trained) == before
        clock.now = MONDAY + timedelta(hours=1)
        assert tick(desk).action == "wait"
        assert [one.tick for one in work.trained].count(MONDAY) == 1

    def test_what_a_clock_a_year_ahead_noted_does_not_hold_later_ticks_up(self, store, clock, work):
        desk = desk_of(store, clock, work)
        tick(desk)
        clock.forward(weeks=52)
        tick(desk)
        clock.now = MONDAY + timedelta(minutes=1)
        work.data = "d2"

        assert (tick(desk).tick, tick(desk).action) == (MONDAY, "wait")


class TestWhatIsWorthTraining:
    @pytest.fixture
    def desk(self, store, clock, work):
        desk = desk_of(store, clock, work)
        tick(desk)
        clock.forward(weeks=1)
        return desk

    def later(self, desk, work, **triggers):
        changed = desk.schedule.model_copy(update={"triggers": desk.schedule.triggers.model_copy(update=triggers)})
        return tick(another(desk, schedule=changed, work=work))

    def test_unchanged_data_and_code_are_skipped_with_that_reason(self, desk):
        assert tick(desk)[:2] == ("skip", "data and code are unchanged")

    @pytest.mark.parametrize(("field", "words"), [("data", "the data changed"), ("code", "gapwise, or")])
    def test_what_changed_is_the_reason_to_train(self, desk, work, field, words):
        setattr(work, field, "other")

        done = tick(desk)

        assert done.action == "refit"
        assert done.reason == "better"
        assert work.trained[-1].reason.startswith(words)

    def test_age_counts_from_the_last_training_and_not_from_the_last_skip(self, desk, work, clock):
        assert self.later(desk, work, max_age_days=10.0).action == "skip"
        clock.forward(weeks=1)

        assert self.later(desk, work, max_age_days=10.0).action == "refit"

    def test_data_that_changed_without_drifting_are_skipped(self, desk, work):
        work.data = "d2"

        done = self.later(desk, work, new_data=False, input_drift=0.01)

        assert done[:2] == ("skip", "the data changed and did not drift: nothing moved")

    def test_data_that_drifted_are_trained_on_for_the_reason_that_was_measured(self, desk, work):
        work.data, work.drift = "d2", Drifted(("audio[7] moved",), "")

        self.later(desk, work, new_data=False, input_drift=0.01)

        assert work.trained[-1].reason == "audio[7] moved"

    def test_a_forced_tick_trains_though_nothing_changed_and_before_anything_is_due(self, desk, work):
        tick(desk)

        assert tick(desk, force=True).action == "refit"
        assert work.trained[-1].reason == "forced"

    def test_a_forced_tick_measures_no_drift(self, desk, work):
        def never(last):
            raise DataError("it did not grow out of what was trained on")

        work.data, work.drifted = "d2", never
        triggers = desk.schedule.triggers.model_copy(update={"new_data": False, "input_drift": 0.01})

        done = tick(another(desk, schedule=desk.schedule.model_copy(update={"triggers": triggers})), force=True)

        assert done.action == "refit"

    def test_more_skips_than_a_look_reaches_back_train_nothing(self, desk, work, clock):
        for _ in range(520):
            assert tick(desk).action == "skip"
            clock.forward(weeks=1)

        assert len(work.trained) == 1


class TestLeases:
    def test_while_one_runs_every_other_call_waits_a_forced_one_too(self, store, clock, work):
        desk = desk_of(store, clock, work)
        seen = []

        def during(attempt, lease):
            seen.extend(tick(another(desk, work=FakeWork()), force=force) for force in (False, True))

        work.during = during
        tick(desk)

        assert [one.action for one in seen] == ["wait", "wait"]
        assert "is running: me@here" in seen[0].reason

    def test_of_two_that_claim_at_once_one_has_the_tick(self, store, clock, work):
        desk, other = desk_of(store, clock, work), FakeWork()
        done = []

        def meanwhile(text):
            store.before_append = lambda text: None
            done.append(tick(another(desk, work=other)))

        store.before_append = meanwhile
        assert tick(desk).action == "wait"
        assert done[0].action == "refit"
        assert (len(work.trained), len(other.trained)) == (0, 1)

    def test_a_dead_attempt_is_taken_over_when_its_lease_is_over_with_what_it_had_claimed(self, store, clock, work):
        desk = desk_of(store, clock, work)

        dies(desk, work)
        work.data = "d2"

        assert tick(another(desk)).action == "wait"
        clock.forward(minutes=33)
        done = tick(another(desk))

        assert (done.action, done.attempt) == ("refit", 2)
        assert work.trained[1].facts == work.trained[0].facts
        assert work.trained[1].facts["data"] == "d1"

    def test_a_process_that_is_seen_to_be_gone_is_taken_over_at_once(self, store, clock, work):
        desk = desk_of(store, clock, work)
        dies(desk, work)

        assert tick(another(desk, lives=lambda owner: owner != desk.owner)).attempt == 2

    def test_a_process_that_is_seen_alive_gets_time_for_its_next_sign_of_life(self, store, clock, work):
        desk = desk_of(store, clock, work)
        seen = []

        def during(attempt, lease):
            clock.forward(minutes=40)  # suspended for longer than its lease, on a machine that others see
            seen.append(tick(another(desk, work=FakeWork(), lives=lambda owner: True)).action)
            lease.renew()

        work.during = during

        assert (tick(desk).outcome, seen) == ("promoted", ["wait"])

    def test_a_lease_of_a_clock_a_year_ahead_holds_nobody_up(self, store, clock, work):
        desk = desk_of(store, clock, work)
        clock.forward(weeks=52)
        dies(desk, work)
        clock.forward(weeks=-52)

        assert tick(another(desk)).action == "refit"

    def test_a_lease_that_was_renewed_more_often_than_a_look_reaches_back_still_holds(self, store, clock, work):
        desk = desk_of(store, clock, work)
        seen = []

        def during(attempt, lease):
            for _ in range(520):
                clock.forward(minutes=10)
                lease.renew()
            seen.append(tick(another(desk, work=FakeWork())).action)

        work.during = during

        assert (tick(desk).outcome, seen) == ("promoted", ["wait"])

    def test_a_dead_attempt_that_was_noted_as_missed_is_no_longer_running(self, store, clock, work):
        desk = desk_of(store, clock, work)
        dies(desk, work)
        clock.forward(weeks=1)
        tick(desk)

        assert fold(store.read()).running is None

    @pytest.mark.parametrize("force", [False, True])
    def test_what_a_dead_attempt_began_is_finished_by_a_later_tick_on_the_same_data(self, store, clock, work, force):
        desk = desk_of(store, clock, work)
        tick(desk)
        dies(desk, work, force=True)  # nothing has changed, so that nobody would train again
        clock.forward(weeks=1)

        done = tick(desk, force=force)

        dead, last = work.trained[-2:]
        assert (done.outcome, last.number, last.facts) == ("promoted", 1, dead.facts)
        assert last.tick > dead.tick
        assert last.reason.startswith("forced; begun by the tick of ")
        clock.forward(weeks=1)
        assert tick(desk).action == "skip"

    def test_what_a_dead_attempt_began_on_other_data_is_left(self, store, clock, work):
        desk = desk_of(store, clock, work)
        dies(desk, work)
        work.data = "d2"
        clock.forward(weeks=1)

        tick(desk)

        assert work.trained[-1].facts["data"] == "d2"
        assert "begun by" not in work.trained[-1].reason

    def test_signs_of_life_keep_the_lease(self, store, clock, work):
        desk = desk_of(store, clock, work)
        seen = []

        def during(attempt, lease):
            for _ in range(5):
                clock.forward(minutes=20)
                lease.renew()
                seen.append(tick(another(desk, work=FakeWork())).action)

        work.during = during
        tick(desk)

        assert seen == ["wait"] * 5

    def test_whoever_was_taken_over_finds_out_before_it_decides_anything(self, store, clock, work):
        desk, other = desk_of(store, clock, work), FakeWork()

        def during(attempt, lease):
            clock.forward(minutes=40)  # it was suspended
            tick(another(desk, work=other))

        work.during = during
        with pytest.raises(LeaseLost, match=r"attempt 1 of the tick of .* was taken over"):
            tick(desk)

        ends = [(one.attempt, one.outcome) for one in entries(store) if one.kind == "end"]
        assert ends == [(2, "promoted")]
        assert len(other.trained) == 1

    def test_an_expired_lease_of_a_process_that_lives_cannot_be_renewed_once_it_is_taken(self, store, clock, work):
        desk = desk_of(store, clock, work)
        caught = []

        def takes_over(attempt, lease):
            with pytest.raises(LeaseLost):
                first[0].renew()
            caught.append(attempt.number)

        first = []

        def during(attempt, lease):
            first.append(lease)
            clock.forward(minutes=40)
            tick(another(desk, work=FakeWork(during=takes_over)))

        work.during = during
        with pytest.raises(LeaseLost):
            tick(desk)
        assert caught == [2]

    def test_a_claim_whose_answer_was_lost_is_not_made_twice(self, store, clock, work):
        desk = desk_of(store, clock, work)

        def lose_the_answer(text):
            store.after_append = lambda text: None
            raise RegistryError("no answer")

        store.after_append = lose_the_answer

        assert tick(desk).action == "refit"
        assert [one.kind for one in entries(store)] == ["claim", "end"]


class TestFailures:
    def test_a_failure_is_recorded_told_and_tried_again_until_it_is_given_up(self, store, clock, work):
        desk = desk_of(store, clock, work)

        work.during = raising(DataError("disappeared", where="s3://bucket"))
        for _ in range(3):
            with pytest.raises(DataError):
                tick(desk)
            clock.forward(minutes=16)
        done = tick(desk)

        assert (done.action, done.outcome) == ("skip", "given up")
        assert tick(desk).action == "wait"
        assert [event for event, _ in work.told] == ["failed", "failed", "failed", "given up"]
        assert "s3://bucket: disappeared" in entries(store)[1].reason

    def test_data_that_cannot_be_looked_at_are_a_failure_with_its_record(self, store, clock, work):
        def gone():
            raise DataError("no dataset.json here", where="/gone")

        work.facts = gone
        with pytest.raises(DataError):
            tick(desk_of(store, clock, work))

        assert [(one.outcome, one.attempt) for one in entries(store)] == [("failed", 1)]

    def test_what_nobody_expected_is_recorded_in_a_line_as_well(self, store, clock, work):
        def broken():
            raise ValueError("first\nsecond")

        work.facts = broken
        with pytest.raises(ValueError, match="first"):
            tick(desk_of(store, clock, work))

        assert [(one.outcome, one.reason) for one in entries(store)] == [("failed", "ValueError: first")]

    def test_a_record_that_cannot_be_read_for_an_alert_changes_nothing_that_was_done(self, store, clock, work):
        plain, state = store.read, {"away": False}

        def read(newest=None):
            if state["away"]:
                raise RegistryError("no answer")
            return plain(newest)

        store.read = read
        work.tell = lambda event, body: state.update(away=True)

        assert tick(desk_of(store, clock, work)).outcome == "promoted"

    def test_a_failure_is_not_tried_again_at_once(self, store, clock, work):
        desk = desk_of(store, clock, work)
        work.during = raising(DataError("bad"))
        with pytest.raises(DataError):
            tick(desk)

        assert "attempt 1 of the tick of 2025-12-29T03:00Z failed; the next from 2026-01-04T03:15Z" in tick(desk).reason
        clock.forward(minutes=16)
        with pytest.raises(DataError):
            tick(desk)

    def test_an_alert_is_raised_once_until_there_is_a_success_again(self, store, clock, work):
        desk = desk_of(store, clock, work)
        tick(desk)
        work.during = raising(DataError("bad"))
        for week in range(5):
            clock.forward(weeks=1)
            work.data = f"new{week}"
            with pytest.raises(DataError):
                tick(desk)
        alerts = [words for event, words in work.told if event == "alert"]
        assert alerts == ["no success in the last 3 ticks or more"]

        work.during = FakeWork().during
        clock.forward(minutes=16)
        tick(desk)
        clock.forward(weeks=4)
        tick(another(desk, cron=desk.cron))
        assert [event for event, _ in work.told].count("alert") == 1

    def test_held_is_a_success_of_the_schedule_and_says_so(self, store, clock, work):
        work.result = Result("held", "no better", {"entry": 4})

        done = tick(desk_of(store, clock, work))

        assert (done.outcome, done.facts["entry"]) == ("held", 4)


def test_an_entry_of_somebody_who_lost_a_race_and_one_that_nobody_can_read_count_for_nothing(store, clock, work):
    tick(desk_of(store, clock, work))
    before = fold(store.read())
    store.append(store.kept[0][1])
    store.append("{}")
    store.append("not JSON")

    after = fold(store.read())

    assert after.entries == before.entries
    assert after.last_number == before.last_number + 3
