"""A finished study into MLflow, beside its parent run: the result at once, then the report and every figure as a PNG.

The result goes with the study's events. The report takes seconds of drawing, so it comes after the result was printed
and the cluster let go, from the driver alone; each figure is laid out once, for the page and for its PNG. It is a
picture of what is recorded already: whatever goes wrong with it is one line, and the study stands.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from gapwise.reporting.notes import study_curves, study_note
from gapwise.spec.home import Home
from gapwise.tracking.client import Tracking
from gapwise.tracking.runs import log_file, log_folder
from gapwise.tracking.study_run import StudyRun
from gapwise.tuning.reading import read_study
from gapwise.tuning.result import StudyResult

REPORT_FILE, FIGURES = "report.html", "figures"


def log_result(run: StudyRun, result: StudyResult) -> None:
    """The result as artifacts, curves and note of the parent run: winners, Pareto fronts, diagnostics; no drawing.

    Raises TrackingDown or TrackingRefused; doing it again replaces what is there.
    """
    run.log_result(result.best, result.baseline)
    if result.objectives:
        fronts = {"front": result.front, "baseline_front": result.baseline_front, "search_front": result.search_front}
        run.log_front(fronts)
    run.log_diagnostics({model.trial: model.diagnostics for model in result.models})
    run.log_curves(result.objective.metric, study_curves(result))
    run.note(study_note(result))


def attach_report(tracking: Tracking, here: Home, result: StudyResult) -> str:
    """Draw the report and put it into the parent run; returns what went wrong, in a line, empty where nothing did.

    Doing it again replaces what is there.
    """
    try:
        _attach(tracking, here, result)
    except ModuleNotFoundError as error:
        return f"no report in MLflow: {error.name} is not installed"
    except Exception as error:  # noqa: BLE001 - the study is recorded: no fault of its picture may fail it
        said = (str(error).strip().splitlines() or [""])[0]
        return f"no report in MLflow ({type(error).__name__}: {said}); `gapwise report {result.study}` tries again"
    return ""


def _attach(tracking: Tracking, here: Home, result: StudyResult) -> None:
    from gapwise.reporting.drawing import save_png
    from gapwise.reporting.page import render
    from gapwise.reporting.study_facts import gather
    from gapwise.reporting.study_page import study_page
    from gapwise.reporting.words import now

    study = replace(read_study(here.studies, result.study), driver=None)
    page = study_page(gather(study), now())
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        folder = Path(temporary)
        (folder / FIGURES).mkdir()
        (folder / REPORT_FILE).write_text(render(page), encoding="utf-8")
        for chart in page.charts:
            save_png(chart.figure, folder / FIGURES / f"{chart.key}.png")
        log_folder(tracking, result.parent_run_id, folder / FIGURES, FIGURES)
        log_file(tracking, result.parent_run_id, folder / REPORT_FILE)
