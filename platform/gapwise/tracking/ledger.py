"""The ledger in MLflow: a registered model `NAME-ledger`, one version an entry.

MLflow has no compare-and-swap, but it numbers versions itself, writes a version with its tags in one transaction and
never gives two writers one number. So an entry says which number it means to have, and one that gets another has lost
against somebody who was faster: it stays, and counts for nothing. Its run, in the experiment of the same name, keeps
the report.
"""

from mlflow.exceptions import MlflowException

from gapwise.errors import RegistryError
from gapwise.tracking.client import Tracking, first_line
from gapwise.tracking.registry import LEDGER, TAG, ensure

_ENTRY, _DIGEST = f"{TAG}ledger.entry", f"{TAG}ledger.digest"


def kept(tracking: Tracking, name: str) -> list[tuple[int, str, str]]:
    """(number, text, digest) of every entry; none where nothing was ever decided."""
    try:
        found = tracking.client.search_model_versions(f"name = '{name}{LEDGER}'", max_results=10_000)
    except MlflowException as error:
        raise RegistryError(f"not usable: {first_line(error)}", where=f"ledger of {name!r}") from error
    return [(int(one.version), one.tags.get(_ENTRY, ""), one.tags.get(_DIGEST, "")) for one in found]


def append(tracking: Tracking, name: str, text: str, digest: str, run_id: str | None = None) -> int:
    """Write an entry; returns the number that it got. `run_id` is the run that keeps the decision's report."""
    try:
        ensure(tracking, f"{name}{LEDGER}")
        source, tags = f"runs:/{run_id}" if run_id else "ledger", {_ENTRY: text, _DIGEST: digest}
        made = tracking.client.create_model_version(f"{name}{LEDGER}", source, run_id=run_id, tags=tags)
    except MlflowException as error:
        raise RegistryError(f"not written: {first_line(error)}", where=f"ledger of {name!r}") from error
    return int(made.version)
