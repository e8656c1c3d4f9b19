"""A study that trains nothing and is told to the tracking server like a real one: events on disk, and their delivery.

    python -m gapwise.testing.busy_study NAME DATA TRIALS EPOCHS

In a process of its own, with MLFLOW_TRACKING_URI and GAPWISE_HOME in its environment. All trials are in the air at
once, so that a delivery meets few epochs of each; the figures are made up from trial, metric and epoch, so that who
reads them back knows what they must be.
"""

import sys
from pathlib import Path
from typing import Any

from gapwise.data.store import open_dataset
from gapwise.spec.home import home
from gapwise.spec.search import SearchSpec
from gapwise.tracking.client import connect
from gapwise.tracking.study_run import StudyName, StudyRun
from gapwise.tuning.assignment import Assignment
from gapwise.tuning.delivery import Delivery, Patience
from gapwise.tuning.events import EventLog, events_beside
from gapwise.tuning.logbook import Logbook

RATES = ("0.0", "0.3", "0.5", "0.7", "0.9")
LOSSES = ("total", "task", "cross", "reliability")
PATIENCE = Patience(in_peace_seconds=120.0, after_error_seconds=5.0)


def events_file(root: Path, name: str) -> Path:
    return events_beside(root / "studies" / name / "journal.log")


def report(number: int, epoch: int) -> dict[str, Any]:
    """Eleven metrics."""
    return {
        "epoch": epoch,
        "cost": number + epoch / 100,
        "samples_per_second": 1000.0 + number,
        "curve": {rate: number + epoch / 100 + float(rate) for rate in RATES},
        "losses": {name: epoch + place / 10 for place, name in enumerate(LOSSES)},
    }


def run(name: str, data: Path, trials: int, epochs: int) -> None:
    space = SearchSpec.model_validate({"question": "does it all arrive?", "arms": {"prlf": None}})
    file = events_file(home().root, name)
    file.parent.mkdir(parents=True)
    study = StudyRun.begin(connect(home()), home(), StudyName(name, None), space, open_dataset(data), resume=False)
    assigned = [Assignment("search", "prlf", number, {"optimiser.lr": 0.001}, 0, number) for number in range(trials)]
    log = EventLog(file)
    with Delivery(file, Logbook(study, "mae"), patience=PATIENCE):
        for one in assigned:
            log.note("started", one, {})
        for epoch in range(1, epochs + 1):
            for one in assigned:
                log.note("reported", one, report(one.number, epoch))
        for one in assigned:
            last = report(one.number, epochs)
            body = {"state": "complete", "reason": "", "cost": last["cost"], "best_epoch": epochs}
            body["metrics"] = {"mae": last["curve"]}
            log.note("finished", one, body)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
