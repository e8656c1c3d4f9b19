"""When a schedule is due: cron expressions in a time zone, by the library cronsim; instants are UTC outside of here."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from gapwise.errors import SpecError

_CLEAR = timedelta(hours=4)
"""Longer than any change of the clocks, within which one wall time may stand for two instants or for none."""


class Cron(NamedTuple):
    """A checked expression."""

    expression: str
    zone: ZoneInfo

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Due instants later than this one, ascending, each once."""
        before = None
        for local in CronSim(self.expression, (instant - _CLEAR).astimezone(self.zone)):
            due = local.astimezone(UTC)
            if due > instant and due != before:
                yield due
                before = due

    def next(self, instant: datetime) -> datetime:
        return next(self.after(instant))

    def latest(self, instant: datetime) -> datetime | None:
        """The last due instant that is not later; None where there was none within the library's fifty years."""
        start = (instant - _CLEAR).astimezone(self.zone)
        earlier = next(CronSim(self.expression, start, reverse=True), None)
        found = earlier.astimezone(UTC) if earlier is not None else None
        for due in self.after(instant - 2 * _CLEAR):
            if due > instant:
                break
            found = due
        return found

    def between(self, first: datetime, last: datetime, most: int) -> list[datetime]:
        """Due instants with first < due < last, at most so many of them."""
        found = []
        for due in islice(self.after(first), most):
            if due >= last:
                break
            found.append(due)
        return found


def checked(expression: str, zone: str, where: str) -> Cron:
    """Raises SpecError for an expression that cannot be read or never fires, and for an unknown time zone."""
    try:
        known = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = [name for name in sorted(available_timezones()) if zone.lower() in name.lower()][:3]
        allowed = ", ".join(near) or "an IANA name such as UTC or Europe/Berlin"
        raise SpecError(f"unknown time zone {zone!r}", where=f"{where}: time_zone", allowed=allowed) from error
    if len(expression.split()) != 5:
        _refuse(expression, "needs five fields", where)
    cron = Cron(expression, known)
    try:
        cron.next(datetime.now(UTC))
    except CronSimError as error:
        _refuse(expression, str(error).lower(), where)
    except (StopIteration, RuntimeError):
        _refuse(expression, "never fires", where)
    return cron


def _refuse(expression: str, why: str, where: str) -> None:
    raise SpecError(
        f"{expression!r} {why}",
        where=f"{where}: cron",
        allowed="minute hour day-of-month month day-of-week, such as '0 3 * * 1' for Mondays at three",
    )
