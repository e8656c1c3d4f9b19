"""Who is compared: the champions of now and the studies' candidates, under one name each, and who is barred and why."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gapwise.data.store import Dataset
from gapwise.errors import GateError
from gapwise.models.saved import ModelFolder, load_model_folder, rebuild, weights_digest
from gapwise.promotion.asked import Asked
from gapwise.promotion.candidates import Candidate
from gapwise.promotion.compatible import what_changed
from gapwise.promotion.judge import reads
from gapwise.spec.gate import GateSpec
from gapwise.spec.home import Home
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.locate import locate
from gapwise.training.footprint import measured
from gapwise.tuning.limits import broken

Wanted = Mapping[str, list[Candidate]]
"""{rate: candidates}"""


class Contenders(NamedTuple):
    """Everybody by the name that the gate knows them by: a version, or, before there is one, study and trial."""

    champions: dict[str, str]
    """{rate: name}"""
    names: dict[str, str]
    """{candidate: name}"""
    barred: dict[str, str]
    """{name: reason} of candidates that must not serve, however well they answer."""
    models: dict[str, ModelFolder]


def folder_of(here: Home, one: Candidate) -> Path:
    return here.studies / one.result.study / one.model.folder


def identity_of(here: Home, one: Candidate) -> dict[str, str]:
    """What makes a version the same version. Raises CheckpointError where the refit's folder is gone."""
    return {
        "study": one.result.study,
        "trial": one.model.trial,
        "spec_fingerprint": one.model.spec_fingerprint,
        "dataset_fingerprint": one.result.fingerprints["dataset"],
        "weights": weights_digest(folder_of(here, one)),
    }


def each(wanted: Wanted) -> Iterator[Candidate]:
    """Every candidate once, though it may ask for several rates."""
    yield from {one.key: one for some in wanted.values() for one in some}.values()


def names_of(tracking: Tracking, here: Home, name: str, wanted: Wanted) -> dict[str, str]:
    """{candidate: its version, or study and trial where it is not registered yet}."""
    found = {}
    for one in each(wanted):
        version = registry.find_version(tracking, name, identity_of(here, one))
        found[one.key] = one.key if version is None else version.version
    return found


def fetch(
    tracking: Tracking,
    here: Home,
    asked: Asked,
    champions: dict[str, str],
    wanted: Wanted,
    names: dict[str, str],
) -> Contenders:
    """All models, loaded and checked. Raises GateError for a candidate that reads other rows than a champion does.

    Where other rows are allowed, a champion that cannot read the dataset any more is no rival: its rates stand empty.
    """
    serving = {one: locate(tracking, f"models:/{asked.name}/{one}") for one in sorted(set(champions.values()))}
    if asked.spec.other_rows:
        serving = {one: model for one, model in serving.items() if reads(model, asked.dataset)}
        champions = {rate: one for rate, one in champions.items() if one in serving}
    models, barred = dict(serving), {}
    for one in each(wanted):
        called = names[one.key]
        if called in models:
            continue
        models[called] = load_model_folder(folder_of(here, one))
        _refuse_other_rows(called, models[called], serving, asked.spec)
        reason = _over_limits(models[called], asked.dataset, asked.spec)
        if reason:
            barred[called] = reason
    return Contenders(champions, names, barred, models)


def _refuse_other_rows(called: str, model: ModelFolder, serving: Mapping[str, ModelFolder], spec: GateSpec) -> None:
    for version, champion in serving.items():
        changed = what_changed(champion.shape, model.shape)
        if changed and not spec.other_rows:
            raise GateError(
                f"{called} reads other rows than champion version {version}: {changed}",
                where=f"study {called.partition('/')[0]}",
                allowed="a model that reads what they read, another --name, or a reason as other_rows in --gate",
            )


def _over_limits(model: ModelFolder, dataset: Dataset, spec: GateSpec) -> str:
    if not spec.limits.limits():
        return ""
    return broken(measured(rebuild(model), model.state, dataset.valid.reading(model.shape), spec.limits), spec.limits)
