"""Ledger and aliases in a real SQLite MLflow.

Faked: the models, whose versions are bare, so that no router stands before them; and deaths, by an MLflow client that
stops answering at the n-th write.
"""

import re
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from gapwise.errors import GateError, RegistryError
from gapwise.promotion.chain import Move
from gapwise.promotion.standing import Deed, record, settled, standing
from gapwise.spec.home import Home
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking, connect

WRITES = {"create_model_version", "set_model_version_tag", "update_model_version", "set_registered_model_tag"}
WRITES |= {"set_registered_model_alias", "delete_registered_model_alias", "update_registered_model"}


RUN = "0" * 32
"""No run that there is: MLflow does not look."""


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return connect(Home(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def no_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapwise.promotion.standing.ensure_router", lambda tracking, name: None)


@pytest.fixture
def name(request: pytest.FixtureRequest, tracking: Tracking) -> str:
    """A registered model with versions 1 to 3."""
    made = re.sub(r"[^a-z0-9_]", "", request.node.name)
    registry.ensure(tracking, made)
    for _ in range(3):
        tracking.client.create_model_version(made, "nowhere")
    return made


def promotion(after: str, before: str | None, rate: str = "0.3") -> Deed:
    names: dict[str, str | None] = {f"champion-mr{round(100 * float(rate)):02d}": after}
    names |= {"previous-mr30": before} if before else {}
    return Deed("promote", [Move(rate=rate, before=before, after=after)], names, {"gate": "g"}, RUN)


def test_a_decision_is_an_entry_that_the_aliases_follow(tracking: Tracking, name: str) -> None:
    first = record(tracking, settled(tracking, name), promotion("1", None))
    second = record(tracking, settled(tracking, name), promotion("2", "1"))
    now = standing(tracking, name)
    assert [one.sequence for one in now.ledger.entries] == [1, 2]
    assert (now.ledger.problems, second.follows) == ([], first.digest)
    assert now.aliases == registry.aliases(tracking, name) == {"champion-mr30": "2", "previous-mr30": "1"}
    assert now.champions == {"0.3": "2"}
    assert registry.version_of(tracking, name, "2").facts["ledger"] == {"sequence": 2, "digest": second.digest}


def test_aliases_from_before_the_ledger_are_kept_and_a_persons_own_are_left_alone(
    tracking: Tracking, name: str
) -> None:
    for alias, version in {"champion-mr00": "1", "favourite": "3"}.items():
        registry.set_alias(tracking, name, alias, version)
    record(tracking, settled(tracking, name), promotion("2", None))
    assert settled(tracking, name).aliases == {"champion-mr00": "1", "champion-mr30": "2", "favourite": "3"}
    registry.set_alias(tracking, name, "champion-mr00", "3")
    registry.delete_alias(tracking, name, "champion-mr30")
    assert settled(tracking, name).champions == {"0.0": "1", "0.3": "2"}
    assert registry.aliases(tracking, name) == {"champion-mr00": "1", "champion-mr30": "2", "favourite": "3"}


def test_of_two_decisions_at_once_one_wins_and_the_other_hears_of_it(tracking: Tracking, name: str) -> None:
    mine, theirs = settled(tracking, name), settled(tracking, name)
    record(tracking, theirs, promotion("2", None))
    with pytest.raises(GateError, match=r"decided first \(promote, entry 1\); nothing was changed"):
        record(tracking, mine, promotion("3", None))
    assert settled(tracking, name).champions == {"0.3": "2"}
    third = record(tracking, settled(tracking, name), promotion("3", "2"))
    assert (third.sequence, standing(tracking, name).ledger.problems) == (3, [])


class Dying:
    """MLflow's client, until it has written so often; the write after those is done, or not, and never answered."""

    def __init__(self, client: Any, writes: int, *, done: bool = False) -> None:
        self._client, self._left, self._done = client, writes, done

    def __getattr__(self, called: str) -> Any:
        real = getattr(self._client, called)
        if called not in WRITES:
            return real

        def write(*args: Any, **keywords: Any) -> Any:
            if self._left == 0 and not self._done:
                raise MlflowException("connection refused")
            self._left -= 1
            answer = real(*args, **keywords)
            if self._left < 0:
                raise MlflowException("connection reset")
            return answer

        return write


def test_an_entry_that_was_written_without_an_answer_counts(tracking: Tracking, name: str) -> None:
    """Nobody is told that nothing was changed: what was written is carried out, and what fails then says so."""
    with pytest.raises(RegistryError, match="the decision is in the ledger, and then"):
        record(
            tracking._replace(client=Dying(tracking.client, 0, done=True)),
            settled(tracking, name),
            promotion("1", None),
        )
    assert settled(tracking, name).champions == {"0.3": "1"}


def test_an_entry_that_mlflow_s_client_wrote_twice_by_itself_counts_once(
    tracking: Tracking, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = tracking.client.create_model_version

    def repeated(*args: Any, **keywords: Any) -> Any:
        create(*args, **keywords)
        return create(*args, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(tracking.client, "create_model_version", repeated)
        record(tracking, settled(tracking, name), promotion("1", None))
    now = settled(tracking, name)
    assert ([one.sequence for one in now.ledger.entries], now.ledger.last_number) == ([1], 2)
    assert record(tracking, now, promotion("2", "1")).sequence == 3
    assert standing(tracking, name).ledger.problems == []


def test_an_alias_whose_version_was_deleted_is_let_go(tracking: Tracking, name: str) -> None:
    record(tracking, settled(tracking, name), promotion("1", None))
    record(tracking, settled(tracking, name), promotion("2", "1"))
    tracking.client.delete_model_version(name, "1")
    assert settled(tracking, name).aliases == {"champion-mr30": "2"}
    assert record(tracking, settled(tracking, name), promotion("3", "2")).sequence == 3
    assert registry.aliases(tracking, name) == {"champion-mr30": "3", "previous-mr30": "2"}


def test_aliases_that_were_moved_by_hand_are_told_and_a_dry_look_repairs_nothing(
    tracking: Tracking, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    record(tracking, settled(tracking, name), promotion("1", None))
    registry.set_alias(tracking, name, "champion-mr30", "3")
    assert standing(tracking, name).drift() == ["champion-mr30 names version 3, and by the ledger version 1"]
    assert settled(tracking, name, repair=False).champions == {"0.3": "1"}
    assert registry.aliases(tracking, name) == {"champion-mr30": "3"}
    settled(tracking, name)
    assert "names version 3, and by the ledger version 1; the ledger is believed" in caplog.text
    assert registry.aliases(tracking, name) == {"champion-mr30": "1"}


@pytest.mark.parametrize("writes", range(8))
def test_who_dies_between_two_steps_leaves_nothing_half_done_for_the_next_command(
    tracking: Tracking, name: str, writes: int
) -> None:
    record(tracking, settled(tracking, name), promotion("1", None))
    now = settled(tracking, name)
    with pytest.raises(RegistryError):
        record(tracking._replace(client=Dying(tracking.client, writes)), now, promotion("2", "1"))
    after = settled(tracking, name)
    if writes == 0:
        assert after.aliases == {"champion-mr30": "1"}
    else:
        assert after.aliases == {"champion-mr30": "2", "previous-mr30": "1"}
        assert registry.version_of(tracking, name, "2").facts["ledger"]["sequence"] == 2
    assert registry.aliases(tracking, name) == after.aliases
    assert told(tracking, name, str(after.champions["0.3"])).startswith(f"0.3: champion of {name} at these")
    assert f"- 0.3: version {after.champions['0.3']}" in registry.description(tracking, name)


def told(tracking: Tracking, name: str, version: str) -> str:
    return registry.version_of(tracking, name, version).description


def test_descriptions_follow_the_aliases_to_and_fro(tracking: Tracking, name: str) -> None:
    record(tracking, settled(tracking, name), promotion("1", None))
    record(tracking, settled(tracking, name), promotion("2", "1"))
    assert "No rate: not a champion now.\n\n- 0.3: until entry 2 (promote)" in told(tracking, name, "1")
    assert "- 0.3: since " in told(tracking, name, "2") and "by entry 2 (promote)" in told(tracking, name, "2")
    assert told(tracking, name, "3") == "", "nobody ever spoke of it"
    back = promotion("1", "2")._replace(action="rollback", facts={"reason": "it stammers"})
    back.aliases["challenger-mr30"] = "2"
    record(tracking, settled(tracking, name), back)
    assert "by entry 3 (rollback): it stammers" in told(tracking, name, "1")
    assert told(tracking, name, "2").startswith("No rate: not a champion now.\n\n- 0.3: until entry 3 (rollback)")
    assert "- held, or taken back, at 0.3 (alias challenger)" in told(tracking, name, "2")
    assert "- 0.3: version 1" in registry.description(tracking, name)
    assert "the last is entry 3, rollback" in registry.description(tracking, name)


def test_descriptions_are_repaired_by_the_next_command_and_a_person_s_own_are_kept(
    tracking: Tracking, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tracking, settled(tracking, name), promotion("1", None))
    written = told(tracking, name, "1")
    registry.describe(tracking, name, "1", "")
    settled(tracking, name, repair=False)
    assert told(tracking, name, "1") == "", "a dry look repairs nothing"
    settled(tracking, name)
    assert told(tracking, name, "1") == written
    registry.describe(tracking, name, "1", "Ann's favourite")
    registry.describe_model(tracking, name, "Ours")
    settled(tracking, name)
    assert (told(tracking, name, "1"), registry.description(tracking, name)) == ("Ann's favourite", "Ours")
    registry.describe(tracking, name, "1", "champion at missing rates 0.3 by entry 1 of x-ledger")
    settled(tracking, name)
    assert told(tracking, name, "1") == written, "what an older gapwise wrote"

    def refuse(*args: Any, **keywords: Any) -> None:
        raise AssertionError("what is so already is left alone")

    for call in ("update_model_version", "set_model_version_tag", "set_registered_model_alias"):
        monkeypatch.setattr(tracking.client, call, refuse)
    settled(tracking, name)


def test_a_ledger_that_does_not_hold_stops_every_command_and_says_where_to_look(tracking: Tracking, name: str) -> None:
    record(tracking, settled(tracking, name), promotion("1", None))
    record(tracking, settled(tracking, name), promotion("2", "1"))
    tracking.client.delete_model_version(f"{name}-ledger", "2")
    with pytest.raises(GateError, match="entry 2 is missing: registered model"):
        settled(tracking, name)
    who = (f"registered model '{name}'", "version 2")
    assert standing(tracking, name).ledger.problems == [f"entry 2 is missing: {one} cites it" for one in who]
