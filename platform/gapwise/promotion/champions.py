"""Who serves which rate now, read back from aliases and version tags."""

from typing import Any

from gapwise.tracking import aliases, registry
from gapwise.tracking.client import Tracking


def champions(tracking: Tracking, name: str) -> dict[str, Any]:
    """The keys of `registry show --json`. Raises RegistryError for a name that does not exist."""
    named = registry.aliases(tracking, name)
    present = aliases.champions(named)
    return {
        "name": name,
        "champions": {rate: _champion(tracking, name, rate, present[rate]) for rate in present},
        "previous": {
            rate: {"version": named[aliases.previous(rate)]} for rate in present if aliases.previous(rate) in named
        },
    }


def _champion(tracking: Tracking, name: str, rate: str, version: str) -> dict[str, Any]:
    found = registry.version_of(tracking, name, version)
    metric = found.facts.get("metric")
    figure = found.facts.get("over_seeds", {}).get(metric, {}).get(rate, {"mean": None, "sd": None})
    return {
        "version": version,
        "run_id": found.run_id,
        "metric": metric,
        "value": figure["mean"],
        "sd": figure["sd"],
        "trial": found.facts.get("trial"),
        "study": found.facts.get("study"),
    }
