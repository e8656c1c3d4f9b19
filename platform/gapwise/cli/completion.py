"""What a shell offers for a name: local state only, and nothing heavy is imported, for it is asked at every Tab.

Studies are folders, registered names a table of the embedded store; a team's server is not asked. Nothing here raises:
where the home cannot be read, nothing is offered.
"""

from collections.abc import Callable, Iterable

from gapwise.data.presets import PRESETS
from gapwise.errors import SpecError
from gapwise.spec.home import Home, home, study_names
from gapwise.spec.protocol import FIELD_GRID, rate_key
from gapwise.tracking.local import registered_names

Complete = Callable[[str], list[str]]

PROTOCOLS = ("frames", "modalities", "random_rate", "block")
SPLITS = ("valid", "train", "test")
FORMATS = ("mmsa", "parquet", "npz")
_RATES = [rate_key(rate) for rate in FIELD_GRID]


def one_of(names: Iterable[str]) -> Complete:
    """A closed list."""
    known = list(names)

    def complete(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return complete


def rate_or(word: str) -> Complete:
    """Missing rates, and the word that may stand in place of one."""
    return one_of([word, *_RATES])


def studies(incomplete: str) -> list[str]:
    here = _home()
    return one_of(study_names(here.studies) if here else [])(incomplete)


def registered(incomplete: str) -> list[str]:
    here = _home()
    return one_of(registered_names(here.database) if here else [])(incomplete)


def reported(incomplete: str) -> list[str]:
    """What `gapwise report` takes: a study, `registry`, or the name behind it."""
    return [*studies(incomplete), *one_of(["registry"])(incomplete), *registered(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Runs of `gapwise train`, the newest first."""
    here = _home()
    found = sorted(here.runs.glob("*/"), key=lambda run: -run.stat().st_mtime) if here else []
    return one_of(run.name for run in found)(incomplete)


def models(incomplete: str) -> list[str]:
    """Registered names as URIs, then runs."""
    return [*one_of(f"models:/{name}@champion-mr30" for name in registered(""))(incomplete), *runs(incomplete)]


presets = one_of(PRESETS)


def _home() -> Home | None:
    try:
        return home()
    except SpecError:
        return None
