"""How the embedded tracking store comes into being.

Faked: a store whose making stops half-way, by a full disk or by a kill.
"""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from gapwise.errors import RegistryError
from gapwise.spec.home import Home
from gapwise.tracking import client
from gapwise.tracking.client import connect


def stopping_half_way(error: BaseException) -> Any:
    """In place of MLflow's client: makes a table where it is told to, and no more."""

    def begin(uri: str, *_: Any) -> None:
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
            database.execute("create table experiments (half integer)")
        raise error

    return begin


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("drop", {}, sqlite3.OperationalError("database or disk is full")),
        MlflowException("database or disk is full\nand more"),
    ],
    ids=["database", "mlflow"],
)
def test_a_store_that_finds_no_room_is_one_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    monkeypatch.setattr(client, "MlflowClient", stopping_half_way(error))
    with pytest.raises(RegistryError, match=r"cannot be made: .*database or disk is full") as refused:
        connect(Home(tmp_path))
    assert "\n" not in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.lock"]


def test_a_store_whose_maker_was_killed_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(client, "MlflowClient", stopping_half_way(KeyboardInterrupt()))
        connect(Home(tmp_path))
    assert not (tmp_path / "mlflow.db").exists()
    tracking = connect(Home(tmp_path))
    assert [one.name for one in tracking.client.search_experiments()] == ["Default"]
    assert (tmp_path / "mlflow.db").is_file() and not (tmp_path / "mlflow.db.new").exists()
