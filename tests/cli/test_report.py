"""`gapwise report` as it is typed: studies on disk are as drivers leave them (`write_study`); what a ledger says of a
registered name is made up, for real promotions take minutes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.distributed.lock import DriverLock
from gapwise.reporting.page import render
from gapwise.reporting.registry_page import registry_page

Call = Callable[..., Any]
WriteStudy = Callable[..., Path]


@pytest.fixture
def studies(call: Call) -> Path:
    """The folder of studies of the working directory that `call` runs in; there is no registry beside it."""
    folder = Path.cwd() / ".gapwise" / "studies"
    folder.mkdir(parents=True)
    return folder


def test_a_report_is_written_and_described(call: Call, studies: Path, write_study: WriteStudy) -> None:
    write_study(studies, "one")
    answer = call("report", "one", "--out", "one.html", "--json")
    assert answer.code == 0, answer
    said = json.loads(answer.out)
    html = Path("one.html").read_text(encoding="utf-8")
    assert (said["file"], said["bytes"]) == ("one.html", len(html.encode()))
    assert said["sections"][:2] == ["answer", "next"] and said["figures"] == html.count("<svg ")
    assert html.startswith("<!doctype html>") and "prlf-3" in html
    assert sorted(path.name for path in Path.cwd().iterdir()) == [".gapwise", "one.html"]
    assert not (Path.cwd() / ".gapwise" / "mlflow.db").exists(), "a report makes no registry"


@pytest.mark.parametrize("until", ["search", "second phase", "refit"])
def test_a_study_that_is_not_finished_has_a_partial_report(
    call: Call, studies: Path, write_study: WriteStudy, until: str
) -> None:
    write_study(studies, "one", until=until)
    assert call("report", "one", "--out", "one.html").code == 0
    assert "Partial: this study was not finished" in Path("one.html").read_text()
    with DriverLock(studies / "one"):
        assert call("report", "one", "--out", "one.html").code == 0
    assert "Partial: this study is still running" in Path("one.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mossi"], "no study 'mossi'; did you mean 'mosi'? (allowed: mosi)"),
        (["zzz"], "no study 'zzz' (allowed: mosi)"),
        (["mosi", "more"], "report: unexpected 'more' (allowed: STUDY, or registry NAME)"),
        (["mosi", "--out", "no/such/folder.html"], "--out no/such/folder.html: cannot be written"),
        (["mosi", "--name", "nobody"], "no registered model 'nobody'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    call: Call, studies: Path, write_study: WriteStudy, words: list[str], said: str
) -> None:
    write_study(studies, "mosi")
    answer = call("report", *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert said in answer.err
    assert [path.name for path in Path.cwd().iterdir()] == [".gapwise"]


def row(sequence: int, rate: str, decision: str, before: str | None, after: str | None) -> dict[str, Any]:
    time = f"2026-0{sequence}-01T08:00:00+00:00"
    told = {"sequence": sequence, "time": time, "who": "ann@host", "rate": rate, "decision": decision}
    return told | {"from": before, "to": after, "digest": f"{sequence}" * 64}


LEDGER: dict[str, Any] = {
    "name": "mosi",
    "entries": [
        row(1, "0.0", "promote", None, "1"),
        row(1, "0.5", "promote", None, "1"),
        row(2, "0.0", "hold", None, None),
        row(2, "0.5", "promote", "1", "2"),
        row(3, "0.5", "rollback", "2", "1"),
    ],
    "head": {"sequence": 3, "digest": "3" * 64},
    "problems": [],
}
SERVED = {"run_id": "r", "metric": "mae", "value": 0.9, "sd": 0.01, "trial": "prlf-3", "study": "one"}
CHAMPIONS: dict[str, Any] = {
    "name": "mosi",
    "champions": {rate: {"version": "1", **SERVED} for rate in ("0.0", "0.5")},
    "previous": {"0.5": {"version": "2"}},
}


def test_a_name_s_promotions_over_time() -> None:
    page = registry_page(LEDGER, CHAMPIONS, "a day")
    now, over_time, decisions = page.sections
    assert now.lead == ["1 version serves 2 missing rates."]
    assert list(now.tables[0].rows[1]) == ["0.5", "v1", "one prlf-3", "0.900 ± 0.010", "v2", "2026-03-01 08:00"]
    assert over_time.lead == ["4 moves of a champion, 1 decision held, 5 in all."]
    lines = {line.get_label(): list(line.get_ydata()) for line in over_time.charts[0].figure.axes[0].get_lines()}
    assert lines["rate 0.5"] == pytest.approx([1, 2, 1, 1], abs=0.1)
    assert lines["rate 0.0"] != pytest.approx([1, 1], abs=1e-9), "set apart"
    assert [line[0] for line in decisions.tables[0].rows] == ["3", "2", "2", "1", "1"]
    assert over_time.charts[0].figure.axes[0].get_xlabel() == "time of the decision (UTC, 2026-01-01 to 2026-03-01)"
    assert "Every decision" in render(page)


def test_a_ledger_that_does_not_hold_is_said_first() -> None:
    page = registry_page(LEDGER | {"problems": ["entry 2 was changed"]}, CHAMPIONS, "a day")
    assert page.notice == "The ledger does not hold: entry 2 was changed"


def test_decisions_of_one_moment_are_drawn_with_their_day() -> None:
    page = registry_page(LEDGER | {"entries": LEDGER["entries"][:2]}, CHAMPIONS, "a day")
    axes = page.charts[0].figure.axes[0]
    assert axes.get_xlabel() == "time of the decision (UTC, 2026-01-01)"
    assert "1" in render(page) and axes.xaxis.get_offset_text().get_text() == ""


def test_where_nothing_was_promoted_there_is_no_figure() -> None:
    held = LEDGER | {"entries": [row(1, "0.0", "hold", None, None)]}
    page = registry_page(held, {"name": "mosi", "champions": {}, "previous": {}}, "a day")
    assert page.charts == [] and "No missing rate has a champion" in render(page)
