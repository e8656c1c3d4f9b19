"""Tables and texts for every terminal: narrow ones, dumb ones, and streams that are not UTF-8.

Consoles write into strings. Commands run in this process, on a study that was written by hand and a registry that is
asked of a fake; only what an environment decides at start-up runs in a process of its own, at a pseudo-terminal of 40
columns.
"""

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gapwise.cli import output
from gapwise.cli.encoding import plain
from gapwise.cli.tables import Fitted

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "search_spaces" / "smoke.yaml"
NARROW = 40
Call = Callable[..., Any]
WriteStudy = Callable[..., Path]


def shown(table: Fitted, width: int, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, _environ={})
    console.print(table)
    stream.seek(0)
    return stream.read().splitlines()


def figures(count: int) -> Fitted:
    columns = ["missing", *(f"metric {index}" for index in range(count))]
    return Fitted(columns, [[f"0.{row}", *(f"0.{row}{index}7 ± 0.012" for index in range(count))] for row in range(3)])


class TestLayout:
    def test_what_fits_is_one_table_with_numbers_on_the_right(self) -> None:
        lines = shown(Fitted(["missing", "mae"], [["0.0", "0.5"], ["0.5", "10.5"]]), 40)
        assert lines == ["missing   mae", "0.0       0.5", "0.5      10.5"]

    @pytest.mark.parametrize("width", [24, 30, 40, 60, 80, 140])
    def test_no_figure_is_ever_cut_and_no_line_is_too_wide(self, width: int) -> None:
        lines = shown(figures(7), width)
        assert all(len(line) <= width for line in lines)
        for row in range(3):
            for index in range(7):
                assert any(f"0.{row}{index}7 ± 0.012" in line for line in lines)
        assert "…" not in "".join(lines)

    def test_a_table_of_figures_goes_on_below_with_its_first_column_again(self) -> None:
        lines = shown(figures(4), 40)
        assert sum(line.startswith("missing") for line in lines) == 2
        assert sum(line.startswith("0.2") for line in lines) == 2

    def test_a_table_with_words_becomes_a_list_without_empty_cells(self) -> None:
        columns = ["study", "dataset", "state", "best objective", "changed"]
        rows = [["night", "a-rather-long-name", "running", "-", "2026-11-22 10:00"]]
        lines = [line.rstrip() for line in shown(Fitted(columns, rows, ["dataset", "state"]), 40)]
        assert lines[0] == "night"
        assert any(line.split() == ["state", "running"] for line in lines)
        assert not any("objective" in line for line in lines)
        assert all(len(line) <= 40 for line in lines)

    def test_words_wrap_before_the_table_becomes_a_list(self) -> None:
        rows = [["3", "the data did not change since, and the code did not either"]]
        lines = shown(Fitted(["entry", "reason"], rows, ["reason"]), 40)
        assert lines[0].split() == ["entry", "reason"] and len(lines) > 2
        assert " ".join(" ".join(lines[1:]).split()) == f"3 {rows[0][1]}"

    def test_a_word_that_is_wider_than_the_terminal_is_folded_and_whole(self) -> None:
        digest = "0123456789abcdef" * 4
        lines = shown(Fitted(["entry", "digest", "run"], [["1", digest, "x"]]), 40)
        assert all(len(line) <= 40 for line in lines)
        assert digest in "".join(line.replace("digest", "").strip() for line in lines)

    def test_no_rows_is_a_heading(self) -> None:
        assert shown(Fitted(["a", "b"], []), 40) == ["a  b"]

    def test_an_ascii_stream_gets_ascii_in_straight_columns(self) -> None:
        lines = shown(figures(2), 60, "ascii")
        assert lines[1].endswith(["0.007 +/- 0.012", "0.017 +/- 0.012"][1])
        assert len({len(line.rstrip()) for line in lines}) == 1


def test_signs_become_words_letters_lose_their_accents_and_the_rest_is_a_question_mark() -> None:
    assert plain("1.2 ± 0.1 → naïve Straße 数…") == "1.2 +/- 0.1 -> naive Strasse ?..."


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich asks the console for its width at every print."""
    monkeypatch.setattr(output.stdout, "_width", NARROW)


HELD = {"version": "12", "run_id": "0" * 32, "trial": "prlf-3", "metric": "mae", "value": 0.912345, "sd": 0.0123}
CHAMPIONS = {"name": "mosi", "champions": {"0.0": HELD, "0.5": HELD}, "previous": {"0.0": HELD}}
ENTRY = {"sequence": 3, "time": "2026-11-22T10:00:00Z", "who": "ada@node7", "decision": "promote", "rate": "0.5"}
HISTORY = {
    "name": "mosi",
    "entries": [ENTRY | {"from": "1", "to": "2", "digest": "ab" * 32}],
    "head": {"sequence": 3, "digest": "ab" * 32},
    "problems": [],
}
SCHEDULE = "name: mosi\ndata: data\ncron: '0 3 * * 1'\ntime_zone: UTC\nmode: {kind: refit}\n"


@pytest.fixture
def home(write_study: WriteStudy, small: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with a finished study, a registry that answers, and a schedule."""
    write_study(Path.cwd() / ".gapwise" / "studies", "night")
    (Path.cwd() / "data").symlink_to(small)
    (Path.cwd() / "mosi.yaml").write_text(SCHEDULE)
    monkeypatch.setattr("gapwise.promotion.champions.champions", lambda *_: CHAMPIONS)
    monkeypatch.setattr("gapwise.promotion.history.history", lambda *_: HISTORY)


COMMANDS = [
    ("study", "list"),
    ("study", "show", "night"),
    ("study", "best", "night"),
    ("study", "trials", "night"),
    ("registry", "show", "mosi"),
    ("registry", "history", "mosi"),
    ("retrain", "history", "mosi.yaml"),
    ("plan", SPACE),
    ("doctor",),
    ("data", "check", "data"),
    ("gc", "--dry-run"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(map(str, words[:2])))
def test_on_40_columns_tables_stay_whole_and_nothing_is_cut(call: Call, home: None, narrow: None, words: Any) -> None:
    answer = call(*words)
    assert answer.code in (0, 1) and answer.out, answer
    assert "…" not in answer.out
    tables = [line for line in answer.out.splitlines() if not line.rstrip().count(" ") or "  " in line.strip()]
    assert all(len(line.rstrip()) <= NARROW or "  " not in line.strip() for line in tables), tables


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(map(str, words[:2])))
def test_a_stream_that_is_not_utf_8_gets_ascii_and_no_traceback(
    call: Call, home: None, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", said)
    answer = call(*words)
    said.seek(0)
    text = said.read()
    assert answer.code in (0, 1) and text, answer
    assert "Traceback" not in answer.err
    assert "\\x" not in text and "?" not in text.replace("which?", "").replace("rate?", "")


def test_figures_of_the_narrow_registry_are_whole(call: Call, home: None, narrow: None) -> None:
    out = call("registry", "show", "mosi").out
    assert "0.912 ± 0.012" in out and "0" * 32 in out and "v12" in out


def test_an_evaluation_on_40_columns_has_every_metric_of_every_rate(
    narrow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from gapwise.cli.evaluate import show

    metrics = ("mae", "acc2_non0", "acc2_has0", "f1_non0", "corr", "acc7")
    row = {name: {"mean": 0.8123, "sd": 0.0156} for name in metrics}
    body = {"rates": {"0.0": row, "0.9": row}, "mean": row, "floor": dict.fromkeys(metrics, 1.3), "split": "valid"}
    body |= {"protocol": "frames", "mask_seeds": 20, "baseline": {"conditions": {"0.0": row}, "mean": row}}
    show("models:/mosi@champion-mr30", body | {"optimum": None, "plugin_optimum": None})
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count("0.812 ± 0.016") for line in lines) == 5 * len(metrics)
    assert all(name in " ".join(lines) for name in metrics)


class Terminal:
    """A command at a pseudo-terminal of 40 columns; Rich must find out the width by itself."""

    def __init__(self, *words: object, **environment: str) -> None:
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, NARROW, 0, 0))
        kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "PYTEST_VERSION")}
        command = [sys.executable, "-m", "gapwise", *map(str, words)]
        env = kept | {"PYTHONPATH": str(ROOT / "platform"), "TERM": "xterm", **environment}
        process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=env)
        os.close(side)
        self.text = ""
        while chunk := self._read(main):
            self.text += chunk.decode(errors="replace")
        os.close(main)
        self.code = process.wait()
        self.lines = [line.rstrip() for line in self.text.splitlines()]

    @staticmethod
    def _read(main: int) -> bytes:
        try:
            return os.read(main, 65536)
        except OSError:  # the other side is closed
            return b""


NOT_UTF_8 = {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("environment", [{}, NOT_UTF_8, {"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
def test_the_help_of_a_narrow_terminal_keeps_option_names_whole(environment: dict[str, str]) -> None:
    found = Terminal("tune", "--help", **environment)
    assert found.code == 0
    assert all(len(line) <= NARROW for line in found.lines if "gapwise tune" not in line), found.text
    assert "--retry-failed" in found.text and "--time-budget" in found.text and "Examples" in found.text
    assert found.text.isascii()


@pytest.mark.parametrize("environment", [NOT_UTF_8, {"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
def test_a_plan_on_a_poor_terminal_is_readable(environment: dict[str, str]) -> None:
    found = Terminal("plan", SPACE, **environment)
    assert found.code == 0
    assert "model.fisher_lambda" in found.text and "0 to 1" in found.text
    assert "Traceback" not in found.text
    assert "\x1b[3" not in found.text, "no colour"


def test_an_error_on_a_stream_that_is_not_utf_8_is_one_line() -> None:
    found = Terminal("plan", "größe.yaml", **NOT_UTF_8)
    assert found.code == 2
    assert found.text.strip().startswith("error: ") and "Traceback" not in found.text


def test_a_resolved_space_on_an_ascii_stream_is_the_same_study(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    space = yaml.safe_load(SPACE.read_text()) | {"question": "größer als 0 ± 1?"}
    Path("space.yaml").write_text(yaml.safe_dump(space, allow_unicode=True))
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", said)
    assert call("plan", "space.yaml", "--resolved").code == 0
    said.seek(0)
    assert yaml.safe_load(said.read())["question"] == space["question"]
