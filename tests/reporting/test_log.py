"""What a finished study leaves in a real SQLite MLflow: result, curves, note, the report and its figures.

Faked: the study, which is as `write_study` leaves it, and failures, by functions that raise.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import open_dataset
from gapwise.reporting import log
from gapwise.reporting.drawing import as_svg, save_png
from gapwise.reporting.log import attach_report, log_result
from gapwise.reporting.notes import study_note
from gapwise.reporting.study_page import study_page
from gapwise.spec.home import Home
from gapwise.tracking.client import Tracking, connect
from gapwise.tracking.study_run import StudyName, StudyRun
from gapwise.tuning.journal import JOURNAL_FILE
from gapwise.tuning.reading import read_study
from gapwise.tuning.result import StudyResult, load_result, save_result


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def tracking(here: Home) -> Tracking:
    return connect(here)


@pytest.fixture
def finished(
    here: Home, tracking: Tracking, small: Path, write_study: Callable[..., Path], request: pytest.FixtureRequest
) -> tuple[StudyRun, StudyResult]:
    """A finished study and its parent run."""
    name = request.node.name
    folder = write_study(here.studies, name)
    dataset, space = open_dataset(small), read_study(here.studies, name).space
    run = StudyRun.begin(tracking, here, StudyName(name, None), space, dataset, resume=False)
    result = load_result(here.studies, name).model_copy(update={"parent_run_id": run.run_id})
    save_result(folder, result)
    return run, result


def artifacts(tracking: Tracking, run_id: str, folder: str | None = None) -> list[str]:
    return sorted(one.path for one in tracking.client.list_artifacts(run_id, folder))


def test_the_result_is_a_note_curves_by_rate_and_files(
    tracking: Tracking, finished: tuple[StudyRun, StudyResult]
) -> None:
    run, result = finished
    for _ in range(2):
        log_result(run, result)
    found = tracking.client.get_run(run.run_id).data
    assert found.tags["mlflow.note.content"] == study_note(result)
    winners = tracking.client.get_metric_history(run.run_id, "mae/winners")
    assert [(one.step, one.value) for one in winners] == [(0, 0.9), (50, 1.4)], "told twice, there once"
    assert (found.metrics["mae/winners_mean"], found.metrics["mae/late_fusion_mean"]) == pytest.approx((1.15, 1.35))
    assert artifacts(tracking, run.run_id) == ["baseline.json", "best.json"]


def test_a_note_says_the_question_the_answer_and_how_to_go_on(finished: tuple[StudyRun, StudyResult]) -> None:
    result = finished[1]
    lines = study_note(result).splitlines()
    assert lines[0] == "**which?**"
    assert lines[2] == "Best: prlf-3 at 0.0, 0.5. On validation, mean mae 1.150 against late_fusion's 1.350."
    assert "- 0.5: **prlf-3** 1.400 ± 0.010 (late_fusion 1.600 ± 0.010)" in lines
    assert f"- `gapwise compare {result.study}/late_fusion-0 {result.study}`" in lines
    alone = study_note(result.model_copy(update={"best": {}}))
    assert "Best: late_fusion-0 at 0.0, 0.5." in alone and "gapwise compare" not in alone
    assert "A refit: nothing was searched." in study_note(result.model_copy(update={"trials": {}}))


def test_the_report_and_every_figure_are_beside_the_parent_run(
    tracking: Tracking, here: Home, finished: tuple[StudyRun, StudyResult], tmp_path: Path
) -> None:
    run, result = finished
    assert attach_report(tracking, here, result) == ""
    assert artifacts(tracking, run.run_id) == ["figures", "report.html"]
    html = Path(tracking.client.download_artifacts(run.run_id, "report.html", str(tmp_path))).read_text()
    figures = artifacts(tracking, run.run_id, "figures")
    assert "figures/robustness.png" in figures and len(figures) == html.count("<svg ") > 5
    assert "Partial" not in html


def test_a_refit_without_a_journal_a_failure_and_a_missing_library_are_a_line_each(
    tracking: Tracking, here: Home, finished: tuple[StudyRun, StudyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, result = finished

    def fails(error: Exception) -> Callable[..., None]:
        def fail(*_: Any) -> None:
            raise error

        return fail

    (here.studies / result.study / JOURNAL_FILE).unlink()
    said = attach_report(tracking, here, result)
    assert "no report in MLflow (StudyError:" in said and "there is no journal" in said and "\n" not in said
    monkeypatch.setattr(log, "_attach", fails(ZeroDivisionError("of\ntwo lines")))
    assert attach_report(tracking, here, result).startswith(
        "no report in MLflow (ZeroDivisionError: of); `gapwise report"
    )
    monkeypatch.setattr(log, "_attach", fails(ModuleNotFoundError("No module named 'x'", name="matplotlib")))
    assert attach_report(tracking, here, result) == "no report in MLflow: matplotlib is not installed"
    assert artifacts(tracking, run.run_id) == []


def test_a_figure_is_laid_out_once_for_the_page_and_its_picture(
    lively_facts: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart = study_page(lively_facts(), "a day").charts[0]
    engine = chart.figure.get_layout_engine()
    assert engine is not None
    executed = []
    execute = engine.execute
    monkeypatch.setattr(engine, "execute", lambda figure: (executed.append(figure), execute(figure)))
    svg = as_svg(chart.figure, "k", title="t", text="d")
    save_png(chart.figure, tmp_path / "it.png")
    assert (len(executed), svg.count("<svg ")) == (1, 1)
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
