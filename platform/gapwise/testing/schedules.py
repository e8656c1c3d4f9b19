"""For tests of schedules: a record in memory that gives numbers as MLflow does, a clock that is set, and work that only
says that it was done.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gapwise.retraining.cron import checked
from gapwise.retraining.log import Attempt, Entry, Owner
from gapwise.retraining.policy import Drifted, Facts
from gapwise.retraining.tick import Desk, Lease, Result
from gapwise.spec.schedule import ScheduleSpec

MONDAY = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
"""A due instant of `desk_of`'s schedule."""
_processes = itertools.count(1)


class MemoryStore:
    """Numbers without gaps, each given once; `before_append` and `after_append` are a test's chances to interfere."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, str]] = []
        self.before_append: Callable[[str], object] = str
        self.after_append: Callable[[str], object] = str

    def read(self, newest: int | None = None) -> list[tuple[int, str]]:
        return self.kept[-newest:] if newest else list(self.kept)

    def append(self, text: str) -> int:
        self.before_append(text)
        number = len(self.kept) + 1
        self.kept.append((number, text))
        self.after_append(text)
        return number


@dataclass
class SetClock:
    """Stands still until it is moved."""

    now: datetime = MONDAY - timedelta(days=1)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


def _nobody_knows(owner: Owner) -> bool | None:  # noqa: ARG001
    return None


def _nothing(attempt: Attempt, lease: Lease) -> None:
    pass


@dataclass
class FakeWork:
    """Training takes no time and ends as `result` says; `during` is called in its middle."""

    data: str = "d1"
    code: str = "c1"
    result: Result = Result("promoted", "better", {})
    during: Callable[[Attempt, Lease], None] = _nothing
    drift: Drifted = Drifted((), "nothing moved")
    trained: list[Attempt] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)

    def facts(self) -> Facts:
        return Facts(self.data, self.code)

    def drifted(self, last: Entry) -> Drifted:  # noqa: ARG002
        return self.drift

    def begin(self, facts: Facts, tick: datetime, reason: str) -> dict[str, Any]:  # noqa: ARG002
        return {"data": facts.data, "code": facts.code, "study": f"s-{tick:%Y%m%d%H%M}"}

    def train(self, attempt: Attempt, lease: Lease) -> Result:
        self.trained.append(attempt)
        self.during(attempt, lease)
        lease.hold()
        return self.result

    def tell(self, event: str, body: dict[str, Any]) -> None:
        self.told.append((event, body["reason"]))


def desk_of(store: MemoryStore, clock: SetClock, work: FakeWork, **changed: Any) -> Desk:
    """A process that calls a weekly schedule; `changed` are keys of the schedule."""
    schedule = ScheduleSpec.model_validate({"name": "m", "cron": "0 3 * * 1", "data": "data", **changed})
    return Desk(
        schedule=schedule,
        cron=checked(schedule.cron, schedule.time_zone, "schedule"),
        store=store,
        work=work,
        owner=Owner(who="me@here", machine="here", process=next(_processes)),
        now=clock,
        lives=_nobody_knows,
    )


def another(desk: Desk, **changed: Any) -> Desk:
    """The same schedule, called from another process."""
    owner = Owner(who="you@there", machine="there", process=next(_processes))
    return replace(desk, **{"owner": owner, **changed})
