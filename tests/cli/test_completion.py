"""What Tab offers, asked as the shells ask: through the environment, in a process of its own or in this one.

The home is written by hand; its tracking store is a SQLite file with the one table that is read. No MLflow runs.
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gapwise.cli import completion
from gapwise.tracking.local import registered_names

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "mlflow", "optuna", "numpy", "pyarrow", "sqlalchemy")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / ".gapwise"
    for name in ("night", "noon", "day"):
        (root / "studies" / name).mkdir(parents=True)
        (root / "studies" / name / "study.json").write_text("{}")
    (root / "studies" / "no-study").mkdir()
    (root / "runs" / ("a" * 32)).mkdir(parents=True)
    with sqlite3.connect(root / "mlflow.db") as store:
        store.execute("CREATE TABLE registered_models (name TEXT)")
        rows = [(name,) for name in ("mosi", "mosei", "mosi-ledger", "mosi-schedule", "mosi-router")]
        store.executemany("INSERT INTO registered_models VALUES (?)", rows)
    store.close()
    monkeypatch.setenv("GAPWISE_HOME", str(root))
    return root


def ask(home: Path, shell: str, *words: str) -> list[str]:
    """What a shell gets for the last of the words, as Typer's own scripts ask for it."""
    line = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    if shell != "bash":
        line = {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    env = {**os.environ, **line, "_GAPWISE_COMPLETE": f"complete_{shell}", "PYTHONPATH": str(ROOT / "platform")}
    code = "import sys; sys.argv = ['gapwise']; from gapwise.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_offered_the_studies_that_begin_so(home: Path, shell: str) -> None:
    said = " ".join(ask(home, shell, "gapwise", "study", "show", "n"))
    assert "night" in said and "noon" in said
    assert "day" not in said and "no-study" not in said


def test_commands_and_options_are_offered_as_typer_does(home: Path) -> None:
    assert ask(home, "bash", "gapwise", "reg") == ["registry"]
    assert "--retry-failed" in ask(home, "bash", "gapwise", "tune", "--re")


def test_completing_loads_nothing_heavy(home: Path) -> None:
    script = f"""
import atexit, os, sys
os.environ |= {{"COMP_WORDS": "gapwise promote n", "COMP_CWORD": "2", "_GAPWISE_COMPLETE": "complete_bash"}}
sys.argv = ["gapwise"]
atexit.register(lambda: sys.stderr.write(",".join(sorted(set({HEAVY!r}) & set(sys.modules)))))
from gapwise.cli.main import main
main()
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["night", "noon"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("complete", "typed", "offered"),
    [
        (completion.registered, "mos", ["mosei", "mosi"]),
        (completion.reported, "", ["day", "night", "noon", "registry", "mosei", "mosi"]),
        (completion.models, "models:/mosi", ["models:/mosi@champion-mr30"]),
        (completion.models, "a", ["a" * 32]),
        (completion.presets, "mosi", ["mosi-like-50", "mosi-like"]),
        (completion.rate_or("auto"), "a", ["auto"]),
        (completion.rate_or("all"), "0.9", ["0.9"]),
        (completion.one_of(completion.PROTOCOLS), "b", ["block"]),
    ],
    ids=["names", "reports", "URIs", "runs", "presets", "a word for a rate", "rates", "protocols"],
)
def test_names_come_from_local_state(
    home: Path, complete: Callable[[str], list[str]], typed: str, offered: list[str]
) -> None:
    assert complete(typed) == offered


def test_where_there_is_no_home_or_no_store_nothing_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in (str(tmp_path / "none"), "s3://bucket/home"):
        monkeypatch.setenv("GAPWISE_HOME", home)
        offered = [complete("") for complete in (completion.studies, completion.registered, completion.runs)]
        assert offered == [[], [], []]
    assert not (tmp_path / "none").exists()


def test_a_store_of_another_shape_or_no_database_at_all_offers_nothing(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE models (name TEXT)")
    other.close()
    (tmp_path / "text.db").write_text("not a database, though it is long enough to be taken for one" * 20)
    assert registered_names(tmp_path / "other.db") == registered_names(tmp_path / "text.db") == []


def test_what_is_offered_is_what_the_command_line_takes() -> None:
    from typing import get_args

    from gapwise.data.importers import IMPORTERS
    from gapwise.spec.protocol import ProtocolSpec

    assert get_args(ProtocolSpec.model_fields["name"].annotation) == completion.PROTOCOLS
    assert tuple(IMPORTERS) == completion.FORMATS


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_names_gapwise_and_its_variable(shell: str) -> None:
    from typer.completion import get_completion_script

    script = get_completion_script(prog_name="gapwise", complete_var="_GAPWISE_COMPLETE", shell=shell)
    assert f"_GAPWISE_COMPLETE=complete_{shell}" in script
