"""From finished studies to champions by missing rate: candidates -> evidence -> gate -> ledger -> aliases."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import gapwise
from gapwise.data.store import Dataset, Split
from gapwise.errors import GateError, RegistryError
from gapwise.models.saved import ModelFolder, load_model_folder
from gapwise.promotion.candidates import Candidate, candidates
from gapwise.promotion.chain import Entry, Move
from gapwise.promotion.evidence import answers
from gapwise.promotion.gate import Answers, Verdict, weigh
from gapwise.promotion.report import Decision, gate_report, reasons_of
from gapwise.promotion.standing import Deed, Standing, record, settled
from gapwise.spec.gate import GateSpec
from gapwise.spec.home import Home
from gapwise.spec.protocol import ProtocolSpec
from gapwise.tracking import aliases, registry
from gapwise.tracking.client import Tracking, experiment_id
from gapwise.tracking.locate import locate
from gapwise.tracking.router import ensure_router
from gapwise.tracking.runs import end_run, log_file, start_run
from gapwise.tuning.result import RefitModel, StudyResult

REPORT = "gate.json"
_YEAR = timedelta(days=365)
_READ_TEST = ("promote", "hold", "ask")
"""Actions whose decision looked at a test split."""
Judge = Callable[..., Answers]


class Asked(NamedTuple):
    """A promotion as somebody asked for it."""

    name: str
    results: list[StudyResult]
    dataset: Dataset
    spec: GateSpec
    dry_run: bool = False
    """Decide on validation, and change nothing."""
    approval: bool = False
    """Ask a person before anything moves."""

    @property
    def metric(self) -> str:
        return self.results[0].objective.metric

    @property
    def protocol(self) -> ProtocolSpec:
        return self.results[0].protocol


class Decided(NamedTuple):
    decisions: list[Decision]
    report: dict[str, Any]
    entry: Entry | None
    """None for a dry run, and where there was nothing to decide."""

    @property
    def text(self) -> str:
        """The report as it is kept."""
        return json.dumps(self.report, sort_keys=True, indent=1)

    @property
    def digest(self) -> str:
        """Of the report, as the ledger has it."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def promote(tracking: Tracking, here: Home, asked: Asked, judge: Judge = answers) -> Decided:
    """Decide every rate; unless `dry_run`, register who asked, write the ledger and move the aliases.

    Raises GateError and RegistryError; nothing has moved then, or the next command carries it out.
    """
    wanted = candidates(asked.results)
    now = settled(tracking, asked.name)
    _refuse_other_ground(tracking, asked, now)
    spent = _spent(now, asked)
    known = _registered(tracking, asked.name, wanted)
    models = _models(tracking, here, now, wanted, known)
    split = _split(asked)
    seen = judge(models, asked.dataset, split, asked.protocol, metric=asked.metric, mask_seeds=asked.spec.mask_seeds)
    names = {one.key: known.get(one.key, one.key) for some in wanted.values() for one in some}
    verdicts = weigh(
        seen,
        [(rate, names[one.key]) for rate, some in wanted.items() for one in some],
        now.champions,
        asked.spec,
        baselines={rate: names[some[-1].key] for rate, some in wanted.items()},
    )
    decisions = [_decision(rate, some, verdicts, names, now, asked) for rate, some in wanted.items()]
    decided = Decided(decisions, gate_report(asked.name, split, decisions, asked.spec, asked.metric, spent), None)
    if asked.dry_run or not any(one.verdict or one.before != one.version for one in decisions):
        return decided
    made = {one.candidate.key: _register(tracking, here, asked.name, one.candidate) for one in decisions}
    baseline = list(wanted.values())[len(wanted) // 2][-1]
    made[baseline.key] = _register(tracking, here, asked.name, baseline)
    decided = decided._replace(decisions=[one._replace(version=made[one.candidate.key]) for one in decisions])
    entry = record(tracking, now, _deed(tracking, here, asked, now, decided, made[baseline.key]))
    _describe(tracking, asked.name, entry)
    if entry.moves:
        ensure_router(tracking, asked.name, next(iter(models.values())).shape, asked.results[0].parent_run_id)
    return decided._replace(entry=entry)


def _split(asked: Asked) -> Split:
    if asked.dry_run:
        return asked.dataset.valid
    studies = ", ".join(result.study for result in asked.results)
    return asked.dataset.test(reason=f"gate of {asked.name}: {studies}")


def _refuse_other_ground(tracking: Tracking, asked: Asked, now: Standing) -> None:
    """A registered name belongs to one dataset, task and protocol, for good; the data may grow under its name."""
    mine = _ground(asked.results[0])
    if asked.dataset.manifest.name != mine["dataset"]:
        raise GateError(
            f"the data is {asked.dataset.manifest.name!r}",
            where=str(asked.dataset.folder),
            allowed=f"{mine['dataset']!r}, as in study {asked.results[0].study}, or newer data of that name",
        )
    for version in sorted(set(now.aliases.values()), key=int):
        facts = registry.version_of(tracking, asked.name, version).facts
        different = [key for key, value in mine.items() if facts.get(key, value) != value]
        if different:
            theirs = ", ".join(f"{key} {facts[key]!r}" for key in different)
            raise RegistryError(
                f"{asked.name!r} has champions of another {' and '.join(different)}"
                f" than study {asked.results[0].study}",
                where=f"version {version}",
                allowed=f"a study with {theirs}, or another --name",
            )


def _ground(result: StudyResult) -> dict[str, Any]:
    protocol = result.protocol.model_dump(mode="json", exclude={"rates", "incomplete_share"})
    return {"dataset": result.dataset, "task": result.task, "ground": protocol}


def _spent(now: Standing, asked: Asked) -> int:
    """Decisions of the last year on this test split. Raises GateError where there are no more to make."""
    test, since = asked.dataset.fingerprints()["test"], datetime.now(UTC) - _YEAR
    times = [
        one.time for one in now.ledger.entries if one.action in _READ_TEST and one.facts.get("test_fingerprint") == test
    ]
    spent = sum(datetime.fromisoformat(time) > since for time in times)
    if spent >= asked.spec.decisions_per_year and not asked.dry_run:
        raise GateError(
            f"{spent} decisions were made on this test split within a year, and the gate allows"
            f" {asked.spec.decisions_per_year} (yearly_alpha {asked.spec.yearly_alpha:g})",
            where=f"gate of {now.name!r}",
            allowed="new test data, a later date, or more decisions_per_year, each of them stricter",
        )
    return spent


def _registered(tracking: Tracking, name: str, wanted: Mapping[str, list[Candidate]]) -> dict[str, str]:
    """{candidate: version} of those that are registered, so that promoting a study twice registers nothing twice."""
    found = {}
    for one in {one.key: one for some in wanted.values() for one in some}.values():
        version = registry.find_version(tracking, name, identity_of(one.result, one.model))
        if version is not None:
            found[one.key] = version.version
    return found


def _models(
    tracking: Tracking, here: Home, now: Standing, wanted: Mapping[str, list[Candidate]], known: Mapping[str, str]
) -> dict[str, ModelFolder]:
    """Everybody who is compared, by version or, before it has one, by study and trial."""
    found = {
        version: locate(tracking, f"models:/{now.name}/{version}") for version in sorted(set(now.champions.values()))
    }
    for one in {one.key: one for some in wanted.values() for one in some}.values():
        name = known.get(one.key, one.key)
        if name not in found:
            found[name] = load_model_folder(here.studies / one.result.study / one.model.folder)
    return found


def _decision(
    rate: str,
    some: list[Candidate],
    verdicts: list[Verdict],
    names: Mapping[str, str],
    now: Standing,
    asked: Asked,
) -> Decision:
    """The first candidate that passed, otherwise the first of all, held."""
    said = {(one.contest.rate, one.contest.challenger): one for one in verdicts}
    before = now.champions.get(rate)
    held: list[str] = []
    for one in some:
        verdict = said.get((rate, names[one.key]))
        if verdict is None:
            reasons = [*held, one.reason, f"is version {names[one.key]}, which serves this rate already"]
            return Decision(rate, "promote", one, names[one.key], before, None, reasons)
        held += [one.reason, *reasons_of(verdict)]
        if verdict.passed:
            decision = "ask" if asked.approval and not asked.dry_run else "promote"
            return Decision(rate, decision, one, None, before, verdict, held)
    return Decision(rate, "hold", some[0], None, before, said[rate, names[some[0].key]], held)


def identity_of(result: StudyResult, model: RefitModel) -> dict[str, str]:
    """What makes a version the same version."""
    return {
        "study": result.study,
        "trial": model.trial,
        "spec_fingerprint": model.spec_fingerprint,
        "dataset_fingerprint": result.fingerprints["dataset"],
    }


def _register(tracking: Tracking, here: Home, name: str, one: Candidate) -> str:
    result, model = one.result, one.model
    identity, metric = identity_of(result, model), result.objective.metric
    known = registry.find_version(tracking, name, identity)
    if known is not None:
        return known.version
    facts: dict[str, Any] = identity | {
        "code_version": gapwise.__version__,
        "train_fingerprint": result.fingerprints["train"],
        "valid_fingerprint": result.fingerprints["valid"],
        "protocol": result.protocol.model_dump(mode="json"),
        **_ground(result),
        "metric": metric,
        "arm": model.arm,
        "seeds": model.seeds,
        "shipped_seed": model.shipped_seed,
        "over_seeds": {metric: {rate: figure.model_dump() for rate, figure in model.over_seeds[metric].items()}},
    }
    folder = here.studies / result.study / model.folder
    return registry.register(tracking, name, folder, run_id=result.parent_run_id, facts=facts).version


def _deed(tracking: Tracking, here: Home, asked: Asked, now: Standing, decided: Decided, baseline: str) -> Deed:
    """The entry of these decisions, after their report is in a run of its own.

    The studies' late_fusion stays at hand under an alias, so that `evaluate` can set it beside every champion.
    """
    changed: dict[str, str | None] = {}
    moves = []
    for one in decided.decisions:
        if one.decision != "promote":
            changed[aliases.challenger(one.rate)] = one.version
        elif one.before != one.version:
            moves.append(Move(rate=one.rate, before=one.before, after=one.version))
            changed |= {aliases.champion(one.rate): one.version, aliases.challenger(one.rate): None}
            if one.before is not None:
                changed[aliases.previous(one.rate)] = one.before
    if moves:
        changed[aliases.BASELINE_ALIAS] = baseline
    wanted = {one.rate: one.version for one in decided.decisions if one.decision == "ask"}
    action = "ask" if wanted else "promote" if moves else "hold"
    facts: dict[str, Any] = {
        "studies": [result.study for result in asked.results],
        "gate": decided.digest,
        "test_fingerprint": asked.dataset.fingerprints()["test"],
        "dataset_fingerprint": asked.dataset.manifest.fingerprint,
        "code_version": gapwise.__version__,
        "decisions": {one.rate: one.decision for one in decided.decisions},
        **({"asked": wanted} if wanted else {}),
    }
    run_id = _kept(tracking, here, f"{now.ledger.last_number + 1:04d} {action}", now.name, decided.text)
    return Deed(action, moves, changed, facts, run_id)


def _kept(tracking: Tracking, here: Home, title: str, name: str, report: str) -> str:
    experiment = experiment_id(tracking, here, f"{name}{registry.LEDGER}")
    run_id = start_run(tracking, experiment, title, tags={"gapwise.kind": "decision"})
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        file = Path(temporary) / REPORT
        file.write_text(report)
        log_file(tracking, run_id, file)
    end_run(tracking, run_id, "FINISHED")
    return run_id


def _describe(tracking: Tracking, name: str, entry: Entry) -> None:
    """The note that MLflow's UI shows beside a version."""
    for version in {move.after for move in entry.moves if move.after}:
        rates = ", ".join(move.rate for move in entry.moves if move.after == version)
        text = f"champion at missing rates {rates} by entry {entry.sequence} of {name}{registry.LEDGER}"
        registry.describe(tracking, name, version, text)
