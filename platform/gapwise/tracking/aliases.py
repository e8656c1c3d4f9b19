"""The names by which a registry knows who serves a missing rate, and what a version's files are called."""

import re
from collections.abc import Mapping

BASELINE_ALIAS = "baseline"
ARTIFACT = "model"
"""The model folder among the artifacts of a version."""


def champion(rate: str) -> str:
    """ "0.3" -> "champion-mr30"."""
    return f"champion-mr{_percent(rate)}"


def previous(rate: str) -> str:
    """ "0.3" -> "previous-mr30"."""
    return f"previous-mr{_percent(rate)}"


def challenger(rate: str) -> str:
    """ "0.3" -> "challenger-mr30"."""
    return f"challenger-mr{_percent(rate)}"


def ours(alias: str) -> bool:
    """Whether the ledger speaks for an alias; any other one is a person's own."""
    return alias == BASELINE_ALIAS or bool(re.fullmatch(r"(champion|previous|challenger)-mr\d{2,3}", alias))


def rate_of(alias: str) -> str | None:
    """ "champion-mr30" -> "0.3"; None for any other alias."""
    head, _, percent = alias.partition("-mr")
    if head != "champion" or not percent.isdigit():
        return None
    rate = int(percent) / 100
    return f"{rate:.1f}" if int(percent) % 10 == 0 else f"{rate:.2f}"


def champions(named: Mapping[str, str]) -> dict[str, str]:
    """{rate: version} by ascending rate, of {alias: version}."""
    found = {rate: version for alias, version in named.items() if (rate := rate_of(alias)) is not None}
    return dict(sorted(found.items(), key=lambda item: float(item[0])))


def _percent(rate: str) -> str:
    return f"{round(float(rate) * 100):02d}"
