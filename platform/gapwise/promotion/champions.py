"""Who serves which rate now, read back from aliases and version tags."""

from typing import Any

from gapwise.promotion import aliases
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking


def champions(tracking: Tracking, name: str) -> dict[str, Any]:
    """The keys of `registry show --json`. Raises RegistryError for a name that does not exist."""
    named = registry.aliases(tracking, name)
    present = {rate: version for alias, version in named.items() if (rate := aliases.rate_of(alias)) is not None}
    return {
        "name": name,
        "champions": {rate: _champion(tracking, name, rate, present[rate]) for rate in sorted(present, key=float)},
        "previous": {
            rate: {"version": named[aliases.previous(rate)]}
            for rate in sorted(present, key=float)
            if aliases.previous(rate) in named
        },
    }


def _champion(tracking: Tracking, name: str, rate: str, version: str) -> dict[str, Any]:
    found = registry.version_of(tracking, name, version)
    metric = found.facts["metric"]
    figure = found.facts["over_seeds"][metric][rate]
    return {
        "version": version,
        "run_id": found.run_id,
        "metric": metric,
        "value": figure["mean"],
        "sd": figure["sd"],
        "trial": found.facts["trial"],
        "study": found.facts["study"],
    }
