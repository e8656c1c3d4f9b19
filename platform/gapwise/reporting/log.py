"""A finished study's pictures and report into MLflow, as artifacts of its parent run."""

import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from gapwise.errors import StudyError
from gapwise.reporting.page import Page, render
from gapwise.reporting.study_facts import gather
from gapwise.reporting.study_page import study_page
from gapwise.spec.home import Home
from gapwise.tracking.client import Tracking
from gapwise.tracking.runs import log_file
from gapwise.tracking.study_run import StudyRun
from gapwise.tuning.reading import read_study
from gapwise.tuning.result import StudyResult

REPORT_FILE = "report.html"
_DOTS = 120
"""An inch of a PNG."""


def finished_page(home: Home, name: str) -> Page | None:
    """The report of a study whose driver, this process, has just finished it; the registry is not asked.

    None for a refit alone, which searched nothing and so may have left no journal to tell of.
    """
    try:
        study = replace(read_study(home.studies, name), driver=None)
    except StudyError:
        return None
    return study_page(gather(study), now())


def now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")


def log_study(tracking: Tracking, run: StudyRun, result: StudyResult, page: Page | None) -> None:
    """The result as artifacts of the parent run: winners, Pareto fronts, diagnostics, the report, and its figures.

    Raises TrackingDown or TrackingRefused; doing it again replaces what is there.
    """
    run.log_result(result.best, result.baseline)
    if result.objectives:
        fronts = {"front": result.front, "baseline_front": result.baseline_front, "search_front": result.search_front}
        run.log_front(fronts)
    run.log_diagnostics({model.trial: model.diagnostics for model in result.models})
    if page is not None:
        _log_page(tracking, run.run_id, page)


def _log_page(tracking: Tracking, run_id: str, page: Page) -> None:
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        report = Path(temporary) / REPORT_FILE
        report.write_text(render(page), encoding="utf-8")
        log_file(tracking, run_id, report)
        for chart in page.charts:
            file = Path(temporary) / f"{chart.key}.png"
            chart.figure.savefig(file, dpi=_DOTS, facecolor="white")
            log_file(tracking, run_id, file, "figures")
