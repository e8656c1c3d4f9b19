"""Acting on decisions: versions first, then aliases, so that an alias never names what is not there."""

from pathlib import Path
from typing import Any, NamedTuple

import gapwise
from gapwise.errors import RegistryError
from gapwise.promotion import aliases
from gapwise.promotion.decision import Decision, Present, decide, identity_of
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking
from gapwise.tuning.result import RefitModel, StudyResult


class Promotion(NamedTuple):
    """A decision with the version it made, and the one it replaced."""

    decision: Decision
    version: str | None
    replaced: str | None


def promote(tracking: Tracking, result: StudyResult, folder: Path, name: str, *, dry_run: bool) -> list[Promotion]:
    """Decide every rate; unless `dry_run`, register what won and point the aliases at it.

    `folder` is the study's. Raises GateError and RegistryError.
    """
    present = _present(tracking, name)
    champions = {rate: one for alias, one in present.items() if (rate := aliases.rate_of(alias)) is not None}
    _refuse_other_ground(result, name, present)
    decisions = decide(result, champions)
    if dry_run:
        return [_outcome(one, None, champions) for one in decisions]
    wanted = {one.trial for one in decisions if one.decision == "promote"}
    numbers = {trial: _register(tracking, result, folder, name, result.model(trial)) for trial in sorted(wanted)}
    if wanted:
        _register_baseline(tracking, result, folder, name)
    for one in decisions:
        if one.decision == "promote":
            _point(tracking, name, one.rate, numbers[one.trial], champions)
    _describe(tracking, name, decisions, numbers)
    return [_outcome(one, numbers.get(one.trial), champions) for one in decisions]


def _refuse_other_ground(result: StudyResult, name: str, present: dict[str, Present]) -> None:
    """A registered name belongs to one dataset, task and protocol, for good; the data may grow under its name."""
    for one in present.values():
        different = [key for key, value in _ground(result).items() if one.facts.get(key, value) != value]
        if different:
            theirs = ", ".join(f"{key} {one.facts[key]!r}" for key in different)
            raise RegistryError(
                f"{name!r} has champions of another {' and '.join(different)} than study {result.study}",
                where=f"version {one.version}",
                allowed=f"a study with {theirs}, or another --name",
            )


def _ground(result: StudyResult) -> dict[str, Any]:
    protocol = result.protocol.model_dump(mode="json", exclude={"rates", "incomplete_share"})
    return {"dataset": result.dataset, "task": result.task, "ground": protocol}


def _outcome(decision: Decision, version: str | None, champions: dict[str, Present]) -> Promotion:
    replaced = champions[decision.rate].version if decision.rate in champions else None
    return Promotion(decision, version if decision.decision == "promote" else None, replaced)


def _present(tracking: Tracking, name: str) -> dict[str, Present]:
    named = registry.aliases_if_any(tracking, name) or {}
    known = {version: registry.version_of(tracking, name, version).facts for version in set(named.values())}
    return {alias: Present(version, known[version]) for alias, version in named.items()}


def _register(tracking: Tracking, result: StudyResult, folder: Path, name: str, model: RefitModel) -> str:
    identity = identity_of(result, model)
    known = registry.find_version(tracking, name, identity)
    if known is not None:
        return known.version
    facts: dict[str, Any] = identity | {
        "code_version": gapwise.__version__,
        "train_fingerprint": result.fingerprints["train"],
        "valid_fingerprint": result.fingerprints["valid"],
        "protocol": result.protocol.model_dump(mode="json"),
        **_ground(result),
        "metric": result.objective.metric,
        "arm": model.arm,
        "seeds": model.seeds,
        "shipped_seed": model.shipped_seed,
        "over_seeds": {
            result.objective.metric: {
                rate: figure.model_dump() for rate, figure in model.over_seeds[result.objective.metric].items()
            }
        },
    }
    made = registry.register(tracking, name, folder / model.folder, run_id=result.parent_run_id, facts=facts)
    return made.version


def _register_baseline(tracking: Tracking, result: StudyResult, folder: Path, name: str) -> None:
    """Keep the study's best late_fusion at hand, so that `evaluate` can set it beside every champion."""
    middle = sorted(result.baseline, key=float)[len(result.baseline) // 2]
    version = _register(tracking, result, folder, name, result.model(result.baseline[middle].trial))
    registry.set_alias(tracking, name, aliases.BASELINE_ALIAS, version)


def _point(tracking: Tracking, name: str, rate: str, version: str, champions: dict[str, Present]) -> None:
    if rate in champions and champions[rate].version != version:
        registry.set_alias(tracking, name, aliases.previous(rate), champions[rate].version)
    registry.set_alias(tracking, name, aliases.champion(rate), version)


def _describe(tracking: Tracking, name: str, decisions: list[Decision], numbers: dict[str, str]) -> None:
    for trial, version in numbers.items():
        rates = [one.rate for one in decisions if one.trial == trial and one.decision == "promote"]
        text = f"{trial}: champion at missing rates {', '.join(rates)}"
        registry.describe(tracking, name, version, text)
