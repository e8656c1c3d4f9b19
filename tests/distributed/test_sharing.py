"""Who may start a trial on a shared cluster: the rule by many examples, the book with a clock and nodes made by hand.

No Ray: the book is called directly where drivers would call an actor.
"""

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapwise.distributed.cluster_book import LEASE_SECONDS, Call, ClusterBook, Silent, Want
from gapwise.distributed.placement import Node, Resources
from gapwise.distributed.sharing import Claim, Device, deal, starters, why_it_waits
from gapwise.distributed.turns import Turns

ONE = Fraction(1)
EXAMPLES = settings(deadline=None, derandomize=True)
"""No limit on time, which is the machine's, and the same examples every time."""


def claim(study: str, wanted: int, held: int = 0, **changes: Any) -> Claim:
    return Claim(study, study, 0, wanted, held, ONE, "CPU")._replace(**changes)


@st.composite
def clusters(draw: st.DrawFn, sizes: tuple[Fraction, ...] = (ONE,)) -> tuple[list[Claim], int]:
    """Studies that could have come about: together they hold no more than a capacity that may have shrunk since."""
    capacity = draw(st.integers(0, 12))
    before = capacity + draw(st.integers(0, 3))
    claims: list[Claim] = []
    for number in range(draw(st.integers(0, 5))):
        size = draw(st.sampled_from(sizes))
        left = before - sum((one.held * one.size for one in claims), Fraction(0))
        held = draw(st.integers(0, int(left / size)))
        wanted = held + draw(st.integers(0, 8))
        more = {"priority": draw(st.integers(-2, 2)), "size": size, "started": draw(st.integers(0, 4))}
        claims.append(claim(f"s{number}", wanted, held, **more))
    return claims, capacity


SIZES = (Fraction(1, 3), ONE, Fraction(2), Fraction(4))


def after_starting(claims: list[Claim], capacity: int) -> list[Claim]:
    started = Counter(starters(claims, capacity))
    return [one._replace(held=one.held + started[one.study]) for one in claims]


@EXAMPLES
@given(clusters(SIZES))
def test_never_more_than_the_capacity_is_dealt_or_started(cluster: tuple[list[Claim], int]) -> None:
    claims, capacity = cluster
    sizes = {one.study: one.size for one in claims}
    assert sum(sizes[study] for study in deal(claims, capacity)) <= capacity
    if starters(claims, capacity):
        assert sum(one.held * one.size for one in after_starting(claims, capacity)) <= capacity


@EXAMPLES
@given(clusters(SIZES))
def test_nobody_is_dealt_more_than_it_wants(cluster: tuple[list[Claim], int]) -> None:
    claims, capacity = cluster
    dealt = Counter(deal(claims, capacity))
    assert all(dealt[one.study] <= one.wanted for one in claims)


@EXAMPLES
@given(clusters())
def test_a_higher_priority_is_served_before_a_lower_one_gets_anything(cluster: tuple[list[Claim], int]) -> None:
    claims, capacity = cluster
    dealt = Counter(deal(claims, capacity))
    for higher in claims:
        for lower in claims:
            if higher.priority > lower.priority and dealt[lower.study]:
                assert dealt[higher.study] == higher.wanted


@EXAMPLES
@given(clusters())
def test_a_lower_priority_starts_nothing_while_a_higher_one_waits(cluster: tuple[list[Claim], int]) -> None:
    claims, capacity = cluster
    started = Counter(starters(claims, capacity))
    left = after_starting(claims, capacity)
    for higher in left:
        if higher.held < higher.wanted:
            assert not any(started[lower.study] for lower in left if lower.priority < higher.priority)


@EXAMPLES
@given(clusters())
def test_equals_that_want_enough_differ_by_one_at_most(cluster: tuple[list[Claim], int]) -> None:
    claims, capacity = cluster
    dealt = Counter(deal(claims, capacity))
    for one in claims:
        for other in claims:
            if one.priority == other.priority and dealt[one.study] < one.wanted:
                assert dealt[other.study] <= dealt[one.study] + 1


@EXAMPLES
@given(clusters())
def test_no_slot_is_idle_while_somebody_wants_it(cluster: tuple[list[Claim], int]) -> None:
    claims, capacity = cluster
    left = after_starting(claims, capacity)
    assert sum(one.held for one in left) >= min(capacity, sum(one.wanted for one in claims))


@EXAMPLES
@given(clusters())
def test_when_there_are_slots_for_all_equals_each_has_at_least_one(cluster: tuple[list[Claim], int]) -> None:
    claims, capacity = cluster
    equals = [one._replace(priority=0) for one in claims if one.wanted]
    dealt = Counter(deal(equals, max(capacity, len(equals))))
    assert all(dealt[one.study] for one in equals)


@EXAMPLES
@given(st.integers(0, 20), st.integers(0, 20))
def test_a_study_alone_gets_all_that_it_wants(wanted: int, capacity: int) -> None:
    assert starters([claim("alone", wanted)], capacity) == ["alone"] * min(wanted, capacity)


@settings(EXAMPLES, max_examples=25)
@given(st.lists(st.sampled_from(SIZES), min_size=1, max_size=5), st.integers(4, 6), st.integers(0, 3))
def test_nobody_of_equals_is_left_out_for_ever(sizes: list[Fraction], capacity: int, ending: int) -> None:
    """Trials of any size; each round everything that may start does, and one study's trials end, in a fixed order."""
    book = ClusterBook(lambda: Resources((Node(capacity),)), lambda: 0.0)
    wants = [Want(f"s{number}", "", 0, 3, 0, size, "CPU") for number, size in enumerate(sizes)]
    begun: Counter[str] = Counter()
    for turn in range(10 * len(wants)):
        for index, want in enumerate(wants):
            while book.ask(wants[index]).starts:
                begun[want.study] += 1
                wants[index] = wants[index]._replace(held=wants[index].held + 1)
        ends = (turn + ending) % len(wants)
        wants[ends] = wants[ends]._replace(held=0)
        book.tell(wants[ends])
    assert all(begun[want.study] >= 2 for want in wants), begun


def test_what_runs_goes_on_when_a_higher_priority_comes_and_its_slots_are_taken_over_one_by_one() -> None:
    low, high = claim("low", 4, held=4), claim("high", 2, priority=5)
    assert starters([low, high], 4) == []
    assert starters([low._replace(held=3), high], 4) == ["high"]
    assert starters([low._replace(held=2), high._replace(held=1)], 4) == ["high"]
    assert starters([low._replace(held=1), high._replace(held=2)], 4) == ["low"]


def test_devices_are_kept_for_a_large_trial_whose_turn_it_is() -> None:
    large, small = claim("large", 1, size=Fraction(4), started=1), claim("small", 4, held=3, started=2)
    assert starters([large, small], 4) == []
    assert starters([large, small._replace(held=0)], 4) == ["large"]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([claim("big", 4, held=4, priority=5)], "waiting for 2 slots: study big (priority 5) is first"),
        ([claim("twin", 4, held=2)], "waiting for 2 slots: study twin (priority 0) holds 2 of its 4"),
        ([], "waiting for 2 slots: the cluster has 3 CPU just now"),
        ([claim("idle", 0)], "waiting for 2 slots: the cluster has 3 CPU just now"),
    ],
)
def test_who_waits_is_told_why(others: list[Claim], said: str) -> None:
    mine = claim("mine", 5, held=3)
    assert why_it_waits(mine, [mine, *others], 3) == said


def test_who_may_start_at_once_is_not_told_to_wait() -> None:
    mine, other = claim("mine", 2, priority=5), claim("other", 2)
    assert why_it_waits(mine, [mine, other], 2) == ""
    assert why_it_waits(other, [mine, other], 2) == "waiting for 2 slots: study mine (priority 5) is first"


def test_who_has_all_it_wants_is_told_nothing() -> None:
    assert why_it_waits(claim("mine", 3, held=3), [claim("other", 3)], 3) == ""


class Cluster:
    """A book, its clock, its machines."""

    def __init__(self, *nodes: Node) -> None:
        self.now, self.nodes = 0.0, nodes
        self.book = ClusterBook(lambda: Resources(self.nodes), lambda: self.now)

    def turns(self, name: str, priority: int = 0) -> Turns:
        return Turns(name, name, priority, self.connect)

    def connect(self) -> Call:
        return lambda method, given: getattr(self.book, method)(given)

    def held(self) -> dict[str, int]:
        return {one.study: one.held for one in self.book.claims()}


def want(study: str, wanted: int, held: int = 0, device: Device = "CPU") -> Want:
    return Want(study, study, 0, wanted, held, ONE, device)


def test_slots_of_a_driver_that_says_nothing_for_a_lease_are_free_again() -> None:
    cluster = Cluster(Node(2))
    assert cluster.book.ask(want("dead", 2)).starts
    assert cluster.book.ask(want("dead", 2, held=1)).starts
    cluster.now += LEASE_SECONDS
    assert not cluster.book.ask(want("alive", 2)).starts, "it is just within its lease"
    cluster.now += 0.1
    assert cluster.book.ask(want("alive", 2)).starts
    assert cluster.held() == {"alive": 1}


def test_what_a_driver_says_replaces_what_was_known_so_a_book_that_was_lost_heals() -> None:
    cluster = Cluster(Node(4))
    cluster.book.tell(want("one", 4, held=3))
    assert cluster.book.ask(want("other", 4)).starts
    assert not cluster.book.ask(want("other", 4, held=1)).starts
    cluster.book.tell(want("one", 1, held=1))
    assert cluster.book.ask(want("other", 4, held=1)).starts


def test_nodes_that_come_and_go_count_from_the_next_question_on() -> None:
    cluster = Cluster(Node(1))
    assert cluster.book.ask(want("one", 2)).starts
    assert not cluster.book.ask(want("one", 2, held=1)).starts
    cluster.nodes += (Node(1),)
    assert cluster.book.ask(want("one", 2, held=1)).starts


def test_studies_on_cores_and_on_gpus_do_not_wait_for_each_other() -> None:
    cluster = Cluster(Node(cpus=1, gpus=1))
    assert cluster.book.ask(want("cores", 1)).starts
    assert cluster.book.ask(want("gpus", 1, device="GPU")).starts
    assert not cluster.book.ask(want("more", 1, device="GPU")).starts


class Heard:
    def __init__(self) -> None:
        self.said: list[tuple[int, int, str]] = []

    def stands(self, wanted: int, held: int, waits: str) -> None:
        self.said.append((wanted, held, waits))


def test_a_reserved_slot_is_held_until_it_is_used_or_given_back() -> None:
    cluster = Cluster(Node(1))
    mine, other = cluster.turns("mine"), cluster.turns("other")
    assert mine.reserve(held=0, wanted=1)
    assert mine.reserve(held=0, wanted=1), "asking again does not take another"
    assert cluster.held() == {"mine": 1}
    assert not other.reserve(held=0, wanted=1)
    mine.used()
    mine.hold(1)
    assert cluster.held() == {"mine": 1, "other": 0}
    mine.hold(0, 0)
    assert other.reserve(held=0, wanted=1)


def test_between_two_trials_a_lower_priority_does_not_slip_in() -> None:
    cluster = Cluster(Node(1))
    high, low = cluster.turns("high", 5), cluster.turns("low")
    assert high.reserve(held=0, wanted=1)
    high.used()
    high.hold(0)
    assert not low.reserve(held=0, wanted=1)
    assert high.reserve(held=0, wanted=1)


def test_who_is_refused_asks_again_later_or_when_a_trial_of_its_own_has_ended() -> None:
    cluster = Cluster(Node(1))
    mine, other = cluster.turns("mine"), cluster.turns("other")
    assert mine.due()
    assert other.reserve(held=0, wanted=1)
    assert not mine.reserve(held=0, wanted=1)
    assert not mine.due()
    mine.hold(0)
    assert mine.due()


def test_work_that_cannot_grow_takes_what_is_free_when_it_begins_and_gives_it_back() -> None:
    cluster = Cluster(Node(4))
    cluster.book.tell(want("other", 1, held=1))
    with cluster.turns("refit").held(8, ONE, "CPU") as at_once:
        assert at_once == 3
        assert cluster.held() == {"other": 1, "refit": 3}
    assert cluster.held() == {"other": 1, "refit": 0}


def test_a_study_leaves_the_book_whatever_ends_it() -> None:
    cluster = Cluster(Node(1))
    turns = cluster.turns("mine")
    with pytest.raises(KeyboardInterrupt), turns.taking():
        assert turns.reserve(held=0, wanted=1)
        raise KeyboardInterrupt
    assert cluster.held() == {}


def test_while_the_book_is_silent_nothing_starts_and_the_next_question_looks_for_it_anew() -> None:
    cluster, heard, tries = Cluster(Node(1)), Heard(), iter((False, True))

    def connect() -> Call:
        if not next(tries):
            raise Silent("gone")
        return cluster.connect()

    turns = Turns("mine", "mine", 0, connect)
    turns.watchers.append(heard)
    assert not turns.reserve(held=0, wanted=1)
    assert turns.reserve(held=0, wanted=1)
    assert heard.said == [(1, 0, "waiting: the cluster's book does not answer"), (1, 1, "")]
