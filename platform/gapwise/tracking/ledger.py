"""The ledger in MLflow: a registered model `NAME-ledger`, one version an entry.

MLflow has no compare-and-swap, but it numbers versions itself, writes a version with its tags in one transaction and
never gives two writers one number. So an entry says which number it means to have, and one that gets another has lost
against somebody who was faster: it stays, and counts for nothing. Its run, in the experiment of the same name, keeps
the report.
"""

import tempfile
from pathlib import Path

from mlflow.exceptions import MlflowException

from gapwise.errors import RegistryError
from gapwise.spec.home import Home
from gapwise.tracking.client import Tracking, TrackingDown, TrackingRefused, every_page, experiment_id, first_line
from gapwise.tracking.local import LEDGER
from gapwise.tracking.registry import TAG, ensure
from gapwise.tracking.runs import end_run, log_file, start_run

_ENTRY, _DIGEST = f"{TAG}ledger.entry", f"{TAG}ledger.digest"
_SAYS = "Every decision on `{name}`, a version each, for `gapwise registry history {name}`. Not a model; leave it be."


def kept(tracking: Tracking, name: str) -> list[tuple[int, str, str]]:
    """(number, text, digest) of every entry; none where nothing was ever decided."""
    search, where = tracking.client.search_model_versions, f"name = '{name}{LEDGER}'"
    try:
        found = every_page(lambda token: search(where, max_results=1000, page_token=token))
    except MlflowException as error:
        raise RegistryError(f"not usable: {first_line(error)}", where=f"ledger of {name!r}") from error
    return [(int(one.version), one.tags.get(_ENTRY, ""), one.tags.get(_DIGEST, "")) for one in found]


def append(tracking: Tracking, name: str, text: str, digest: str, run_id: str) -> int:
    """Write an entry; returns the number that it got. `run_id` is the run that keeps the decision's report.

    A version without a run would be refused by MLflow's server.
    """
    try:
        ensure(tracking, f"{name}{LEDGER}", _SAYS.format(name=name))
        tags = {_ENTRY: text, _DIGEST: digest}
        made = tracking.client.create_model_version(f"{name}{LEDGER}", f"runs:/{run_id}", run_id=run_id, tags=tags)
    except MlflowException as error:
        raise RegistryError(f"not written: {first_line(error)}", where=f"ledger of {name!r}") from error
    return int(made.version)


def keep_report(tracking: Tracking, home: Home, name: str, title: str, files: list[Path]) -> str:
    """Put a decision's files into a run of its own, before its entry is written; returns the run's id."""
    try:
        experiment = experiment_id(tracking, home, f"{name}{LEDGER}")
        run_id = start_run(tracking, experiment, title, tags={"gapwise.kind": "decision"})
        for file in files:
            log_file(tracking, run_id, file)
        end_run(tracking, run_id, "FINISHED")
    except (MlflowException, TrackingDown, TrackingRefused) as error:
        raise RegistryError(f"the report is not kept: {first_line(error)}", where=f"ledger of {name!r}") from error
    return run_id


def kept_report(tracking: Tracking, name: str, run_id: str, file: str) -> str:
    """A decision's file, as text."""
    try:
        with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
            return Path(tracking.client.download_artifacts(run_id, file, temporary)).read_text()
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{file} cannot be fetched: {first_line(error)}", where=f"ledger of {name!r}") from error
