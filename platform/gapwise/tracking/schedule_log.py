"""A schedule's record in MLflow: a registered model `NAME-schedule`, one version an entry (as the ledger's).

MLflow numbers versions itself and never gives two writers one number, which is all the locking that a schedule needs.
Nothing here loads a model: most ticks only look.
"""

from mlflow.exceptions import MlflowException

from gapwise.errors import RegistryError
from gapwise.spec.home import Home
from gapwise.tracking.client import Tracking, every_page, experiment_id, first_line
from gapwise.tracking.local import SCHEDULE
from gapwise.tracking.registry import TAG, ensure
from gapwise.tracking.runs import end_run, find_run, start_run

_ENTRY = f"{TAG}schedule.entry"
_PAGE = 1000
_KIND = {"gapwise.kind": "schedule"}


class ScheduleLog:
    """The record of one registered name's schedule. Its methods raise RegistryError where the server does not say."""

    def __init__(self, tracking: Tracking, home: Home, name: str) -> None:
        self._tracking, self._home, self._name = tracking, home, f"{name}{SCHEDULE}"
        self._run = ""

    def read(self, newest: int | None = None) -> list[tuple[int, str]]:
        """(number, text) in order, all or only the newest so many."""
        search, where = self._tracking.client.search_model_versions, f"name = '{self._name}'"
        order = ["version_number DESC"]
        try:
            if newest is None:
                found = every_page(lambda token: search(where, max_results=_PAGE, order_by=order, page_token=token))
            else:
                found = search(where, max_results=newest, order_by=order)
        except MlflowException as error:
            raise RegistryError(
                f"not usable: {first_line(error)}", where=f"record of schedule {self._name!r}"
            ) from error
        return sorted((int(one.version), one.tags.get(_ENTRY, "")) for one in found)

    def append(self, text: str) -> int:
        """Keep an entry; returns the number it was given."""
        try:
            run_id = self._run = self._run or self._own_run()
            created = self._tracking.client.create_model_version(
                self._name, f"runs:/{run_id}", run_id=run_id, tags={_ENTRY: text}
            )
        except MlflowException as error:
            raise RegistryError(
                f"not written: {first_line(error)}", where=f"record of schedule {self._name!r}"
            ) from error
        return int(created.version)

    def _own_run(self) -> str:
        """A version without a run would be refused by MLflow's server; one run serves them all."""
        ensure(self._tracking, self._name, "What a retraining schedule did, a version each. Not a model.")
        experiment = experiment_id(self._tracking, self._home, self._name)
        known = find_run(self._tracking, experiment, _KIND)
        if known is not None:
            return known
        run_id = start_run(self._tracking, experiment, "record", tags=_KIND)
        end_run(self._tracking, run_id, "FINISHED")
        return run_id
