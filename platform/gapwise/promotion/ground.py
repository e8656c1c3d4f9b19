"""A registered name belongs to one dataset, task and protocol, for good; the data may grow under its name."""

from typing import Any

from gapwise.errors import RegistryError
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking
from gapwise.tuning.result import StudyResult

_GROUND = ("dataset", "task", "ground")


def ground_of(result: StudyResult) -> dict[str, Any]:
    """What a version's tags say of it."""
    protocol = result.protocol.model_dump(mode="json", exclude={"rates", "incomplete_share"})
    return {"dataset": result.dataset, "task": result.task, "ground": protocol}


def refuse_other_ground(
    tracking: Tracking, name: str, aliases: dict[str, str], facts: dict[str, Any], who: str
) -> None:
    """Raises RegistryError where a version that has an alias in `name` stands on other ground than `facts` say."""
    for version in sorted(set(aliases.values()), key=int):
        theirs = registry.version_of(tracking, name, version).facts
        different = [key for key in _GROUND if theirs.get(key, facts[key]) != facts[key]]
        if different:
            raise RegistryError(
                f"{name!r} has champions of another {' and '.join(different)} than {who}",
                where=f"version {version}",
                allowed=f"{', '.join(f'{key} {theirs[key]!r}' for key in different)}, or another name",
            )
