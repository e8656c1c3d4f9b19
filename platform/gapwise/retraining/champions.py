"""What a schedule starts from: the champions of its name, and the baseline beside them."""

from pathlib import Path

from gapwise.errors import RegistryError, StudyError
from gapwise.spec.train import TrainSpec
from gapwise.tracking import aliases, registry
from gapwise.tracking.client import Tracking
from gapwise.tuning.result import load_result


def serving(tracking: Tracking, name: str) -> list[str]:
    """Versions to train again: every champion's, then the baseline's. Raises RegistryError where there are none."""
    named = registry.aliases_if_any(tracking, name) or {}
    champions = aliases.champions(named)
    if not champions or aliases.BASELINE_ALIAS not in named:
        raise RegistryError(
            "there are no champions to train again",
            where=f"registered model {name!r}",
            allowed="a name that a study was promoted to, or mode: {kind: study}",
        )
    return list(dict.fromkeys([*champions.values(), named[aliases.BASELINE_ALIAS]]))


def trained_as(tracking: Tracking, name: str, versions: list[str]) -> dict[str, TrainSpec]:
    """{version: what it was trained as}, from the registered files, checked."""
    from gapwise.tracking.locate import locate  # torch, which most ticks do without

    return {version: locate(tracking, f"models:/{name}/{version}").spec for version in versions}


def studies_behind(tracking: Tracking, name: str, studies: Path) -> list[str]:
    """The champions' studies that are at hand with trials in them, for a warm start; none is no error."""
    champions = aliases.champions(registry.aliases_if_any(tracking, name) or {})
    facts = [registry.version_of(tracking, name, version).facts for version in dict.fromkeys(champions.values())]
    found = dict.fromkeys(str(one["study"]) for one in facts if "study" in one)
    return [study for study in found if _searched(studies, study)]


def _searched(studies: Path, name: str) -> bool:
    """Whether it is a finished study with a search: a refit has no trials to start from."""
    try:
        return load_result(studies, name).trials["complete"] > 0
    except StudyError:
        return False
