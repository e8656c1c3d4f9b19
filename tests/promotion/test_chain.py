"""The ledger's chain, pure."""

import json

import pytest

from gapwise.promotion.chain import BEGINNING, EMPTY, Entry, Head, Kept, Move, read


def entry(sequence: int, follows: str, action: str = "promote") -> Entry:
    move = Move(rate="0.3", before=None, after=str(sequence))
    return Entry(
        sequence=sequence,
        follows=follows,
        time="2026-11-22T00:00:00Z",
        who="me",
        action=action,
        moves=[move],
        aliases={"champion-mr30": str(sequence), "challenger-mr30": None if sequence == 3 else str(sequence)},
        facts={},
    )


def chain(length: int) -> list[Kept]:
    found: list[Kept] = []
    for number in range(1, length + 1):
        made = entry(number, found[-1].digest if found else BEGINNING)
        found.append(Kept(number, made.text(), made.digest))
    return found


def test_a_whole_chain_has_no_problem_and_a_head() -> None:
    ledger = read(chain(3)[::-1])
    assert ([one.sequence for one in ledger.entries], ledger.problems) == ([1, 2, 3], [])
    assert ledger.head == Head(3, chain(3)[-1].digest)
    assert ledger.aliases == {"champion-mr30": "3"}
    assert read([]).head == EMPTY


def test_an_entry_that_lost_a_race_counts_for_nothing() -> None:
    first, second = chain(2)
    late = entry(2, first.digest, "rollback")
    third = entry(4, second.digest)
    ledger = read([first, second, Kept(3, late.text(), late.digest), Kept(4, third.text(), third.digest)])
    assert ([one.sequence for one in ledger.entries], ledger.problems) == ([1, 2, 4], [])
    assert ledger.last_number == 4


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_changed_entry_is_named(number: int) -> None:
    kept = chain(3)
    one = kept[number - 1]
    kept[number - 1] = one._replace(text=one.text.replace('"who":"me"', '"who":"you"'))
    assert read(kept).problems == [f"entry {number} was changed: its content is not that of its digest"]


def test_a_changed_entry_with_a_new_digest_breaks_what_follows_it() -> None:
    kept = chain(3)
    forged = Entry.model_validate(json.loads(kept[1].text) | {"who": "you"})
    kept[1] = Kept(2, forged.text(), forged.digest)
    assert read(kept).problems == ["entry 3 does not follow entry 2: one between was changed or deleted"]


@pytest.mark.parametrize(("gone", "told"), [(1, "entry 2 does not follow the beginning"), (2, "entry 3 does not")])
def test_a_deleted_entry_is_named_and_breaks_what_follows_it(gone: int, told: str) -> None:
    deleted, broken = read([one for one in chain(3) if one.number != gone]).problems
    assert (deleted, broken.startswith(told)) == (f"entry {gone} was deleted", True)


def test_a_deleted_last_entry_is_named_as_soon_as_another_one_follows() -> None:
    kept = chain(3)
    after = entry(4, kept[1].digest, "hold")
    assert read([*kept[:2], Kept(4, after.text(), after.digest)]).problems == ["entry 3 was deleted"]


def test_the_last_entry_cannot_go_unseen_by_who_cites_it() -> None:
    kept, head = chain(3), Head(3, chain(3)[-1].digest)
    assert read(kept, {"version 7": head}, head.digest).problems == []
    assert read(kept[:2], {"version 7": head}).problems == ["entry 3 is missing: version 7 cites it"]
    assert read(kept[:2], {}, head.digest).problems == [
        f"no entry has the digest {head.digest}: the ledger was cut off before it, or is another one"
    ]
    other = entry(3, kept[1].digest, "rollback")
    assert read([*kept[:2], Kept(3, other.text(), other.digest)], {"version 7": head}).problems == [
        "entry 3 is not the one that version 7 cites"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ('{"format_version":9}', "by a newer gapwise")],
)
def test_an_entry_that_cannot_be_read_is_named(text: str, told: str) -> None:
    problems = read([Kept(1, text, "x")]).problems
    assert told in problems[-1] and "entry 1" in problems[-1]
