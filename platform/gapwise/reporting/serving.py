"""Who answered each missing rate before a study did: read from the registry, as the models were registered."""

from typing import NamedTuple

from gapwise.errors import RegistryError
from gapwise.promotion.champions import champions
from gapwise.promotion.in_use import in_use
from gapwise.spec.home import Home
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking, connect
from gapwise.tuning.reading import Study


class Served(NamedTuple):
    """A version that serves, or served, a missing rate."""

    version: str
    trial: str
    study: str
    value: float | None
    """The metric it was registered with, on the validation split of its own study."""
    alias: str
    """champion, or previous where the champion is from this very study."""


class Serving(NamedTuple):
    """Who answered before this study did."""

    name: str
    before: dict[str, Served]
    """By missing rate."""
    here: dict[str, str]
    """{rate: "TRIAL (vVERSION)"} where a model of this study is champion now."""


def serving_of(study: Study, home: Home, name: str = "") -> tuple[Serving | None, tuple[str, ...]]:
    """Who served before, of the registered `name` or, without one, of the name that the study serves or its data have.

    Also what could not be asked, in words; for a `name` that is given, that is a RegistryError. Nothing is made where
    there is no registry yet.
    """
    if home.tracking_uri == home.embedded_uri and not home.database.exists():
        if name:
            raise RegistryError(f"no registered model {name!r}", where=str(home.root), allowed="after gapwise promote")
        return None, ()
    try:
        tracking = connect(home)
        called = name or _called(tracking, study)
        return (_asked(tracking, called, study) if called else None), ()
    except RegistryError as error:
        if name:
            raise
        return None, (f"the registry: {error}",)


def _called(tracking: Tracking, study: Study) -> str:
    """The name that a model of the study serves, else the one that is called like its data; empty for neither."""
    serves = [one.name for one in in_use(tracking) if one.study == study.name]
    known = registry.names(tracking)
    return serves[0] if serves else study.dataset if study.dataset in known else ""


def _asked(tracking: Tracking, name: str, study: Study) -> Serving:
    body = champions(tracking, name)
    before, here = {}, {}
    for rate, one in body["champions"].items():
        version, alias = one["version"], "champion"
        if one["study"] == study.name:
            here[rate] = f"{one['trial']} (v{version})"
            if rate not in body["previous"]:
                continue
            version, alias = body["previous"][rate]["version"], "previous"
        before[rate] = _served(tracking, name, version, rate, alias)
    return Serving(name, before, here)


def _served(tracking: Tracking, name: str, version: str, rate: str, alias: str) -> Served:
    facts = registry.version_of(tracking, name, version).facts
    figure = facts.get("over_seeds", {}).get(facts.get("metric"), {}).get(rate, {})
    return Served(version, facts.get("trial", ""), facts.get("study", ""), figure.get("mean"), alias)
