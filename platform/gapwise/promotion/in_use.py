"""Which studies' models somebody relies on: every registered version that an alias names, whatever the alias."""

from typing import NamedTuple

from gapwise.tracking import registry
from gapwise.tracking.client import Tracking


class InUse(NamedTuple):
    """An alias (champion, challenger, previous, baseline, or a person's own) and where its model is from."""

    name: str
    alias: str
    version: str
    study: str
    trial: str


def in_use(tracking: Tracking) -> list[InUse]:
    """Versions that no study made are left out. Raises RegistryError where the server does not say."""
    found = []
    for name in registry.names(tracking):
        for alias, version in registry.aliases(tracking, name).items():
            facts = registry.version_of(tracking, name, version).facts
            if "study" in facts and "trial" in facts:
                found.append(InUse(name, alias, version, facts["study"], facts["trial"]))
    return found
