"""One line of `gapwise doctor`, as every layer that knows something to look at answers it."""

from typing import Literal, NamedTuple

Status = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """What was looked at, how it stands, and what mends it."""

    name: str
    status: Status
    detail: str
    mend: str = ""
    """Empty where there is nothing to mend."""


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, "ok", detail)


def warn(name: str, detail: str, mend: str) -> Check:
    """Works, and may hurt later."""
    return Check(name, "warn", detail, mend)


def fail(name: str, detail: str, mend: str) -> Check:
    """Does not work, or must not be so."""
    return Check(name, "fail", detail, mend)
