"""A retraining schedule (design decision 13): when to look, what makes it train, how, and what decides.

It is checked as a whole when it is read: a cron expression that never fires or a time zone that nobody knows would
otherwise be found out by nothing happening.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gapwise.spec.base import Spec
from gapwise.spec.gate import GateSpec

Level = Annotated[float, Field(gt=0.0, lt=0.5)]


class TriggersSpec(Spec):
    """What makes a due tick train; where nothing of this holds it is skipped, and the reason is kept.

    The very first tick of a schedule trains, whatever is here.
    """

    new_data: bool = True
    """The data's fingerprint differs from the one that was last trained on."""
    code: bool = True
    """gapwise itself, or what this schedule asks for, differs from what last trained."""
    max_age_days: Annotated[float, Field(gt=0.0)] | None = None
    """So long after the last training it trains again, though nothing changed."""
    input_drift: Level | None = None
    """Level of the test whether samples that came since the last training look different from its training data; looked
    at where `new_data` is off."""
    error_drift: Level | None = None
    """Level of the test whether champions err more on held-out samples that came since than on those before; looked at
    where `new_data` is off."""


class RefitSpec(Spec):
    """The champions' configurations, and the baseline's, trained again on the data of now."""

    kind: Literal["refit"] = "refit"
    """No search."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    """Of each configuration; what ships is the median one."""
    mask_seeds: Annotated[int, Field(ge=1, le=1000)] = 20
    """Masks behind each validation figure."""


class StudySpec(Spec):
    """A search that begins with what earlier studies found."""

    kind: Literal["study"]
    """A whole study a tick."""
    space: str
    """Search space file, beside the schedule's own file where it is no absolute path."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """Trials of each model; by default the space's."""
    time_budget_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """No search trial starts later than this."""
    warm_start: bool = True
    """Whether the best of the champions' studies, where they are at hand, are tried first."""


class ScheduleSpec(Spec):
    """One schedule: one registered name."""

    name: str
    """The registered model whose champions are challenged."""
    cron: str
    """Five fields: minute, hour, day of month, month, day of week. As Debian's cron: what the clocks' change skips runs
    right after it, what it repeats runs once."""
    time_zone: str = "UTC"
    """Of `cron`, by its IANA name."""
    data: str
    """A dataset folder, or the URI of one (s3://BUCKET/PATH, or any of pyarrow's file systems), to which producers
    append."""
    triggers: TriggersSpec = TriggersSpec()
    """What makes a due tick train."""
    mode: Annotated[RefitSpec | StudySpec, Field(discriminator="kind")] = RefitSpec()
    """How it trains."""
    gate: GateSpec = GateSpec()
    """What the result must show; `decisions_per_year` should be the ticks that may train in a year."""
    notify: tuple[str, ...] = ()
    """A command and its arguments; it gets JSON on standard input when something was promoted, held or failed, and for
    an alert."""
    alert_after: Annotated[int, Field(ge=1)] = 3
    """Due ticks in a row without a success that raise an alert. A skip for want of a trigger is a success."""
    lease_minutes: Annotated[float, Field(ge=1.0, le=1440.0)] = 30.0
    """So long after its last sign of life a tick counts as dead and is taken over; it gives one every third of this."""
    attempts: Annotated[int, Field(ge=1)] = 3
    """Failures of a tick before it is given up; deaths and interruptions count as a quarter of one."""
    retry_minutes: Annotated[float, Field(ge=0.0)] = 15.0
    """Between a failure and the next attempt."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Runs at once; by default as many as fit."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Among studies on one cluster, as for `gapwise tune --priority`."""
    storage: str = "journal"
    """Where a study's trials are recorded, as for `gapwise tune --storage`."""

    @field_validator("storage")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "journal" and not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("must be journal, sqlite:///FILE or postgresql://USER@HOST/DATABASE")
        return value

    @field_validator("data", "cron", "time_zone")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value
