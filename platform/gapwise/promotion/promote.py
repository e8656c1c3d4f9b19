"""From finished studies to champions by missing rate: candidates -> evidence -> gate -> ledger -> aliases."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gapwise
from gapwise.data.store import Split
from gapwise.errors import GateError, RegistryError, SpecError, nearest
from gapwise.evaluation.hearing import tell_stage
from gapwise.evaluation.paired import resampled_metrics
from gapwise.evaluation.routing import serving
from gapwise.promotion.announce import announce
from gapwise.promotion.asked import Asked
from gapwise.promotion.candidates import Candidate, candidates
from gapwise.promotion.chain import Entry, Move
from gapwise.promotion.contamination import refuse_contaminated, refuse_unknowing
from gapwise.promotion.contenders import Contenders, Wanted, fetch, folder_of, identity_of, names_of
from gapwise.promotion.evidence import answers
from gapwise.promotion.gate import Answers, Verdict, weigh
from gapwise.promotion.ground import ground_of, refuse_other_ground
from gapwise.promotion.report import Decision, gate_report, plot, reasons_of
from gapwise.promotion.spending import decisions_within_a_year, looked_at, refuse_spent
from gapwise.promotion.standing import Deed, Standing, record, settled
from gapwise.spec.home import Home
from gapwise.tracking import aliases, registering, registry
from gapwise.tracking.client import Tracking
from gapwise.tracking.ledger import keep_report, kept_report

REPORT, PLOT = "gate.json", "gate.svg"
Judge = Callable[..., Answers]
Fence = Callable[[], object]
"""Asked right before the ledger is written, for a schedule's tick; it raises where somebody else decides now."""


class Decided(NamedTuple):
    report: dict[str, Any]
    """See `gate_report`."""
    entry: Entry | None
    """None for a dry run, and where there was nothing to decide."""
    again: bool = False
    """The very same was asked before and held; the answer is that entry's, and nothing was read or spent."""

    @property
    def held(self) -> bool:
        return all(row["decision"] == "hold" for row in self.report["decisions"])


class _Desk(NamedTuple):
    """Where a decision is carried out."""

    tracking: Tracking
    here: Home
    asked: Asked
    now: Standing
    question: str
    """Digest of all that the decision depends on."""
    fence: Fence


def promote(
    tracking: Tracking, here: Home, asked: Asked, judge: Judge = answers, fence: Fence = lambda: None
) -> Decided:
    """Decide every rate; unless `dry_run`, register who asked, write the ledger and move the aliases.

    Raises GateError and RegistryError, and what `fence` does; nothing has moved then, or the next command carries it
    out.
    """
    wanted = candidates(asked.results)
    _refuse_other_metrics(asked)
    now = settled(tracking, asked.name, repair=not asked.dry_run)
    _refuse_other_ground(tracking, asked, now)
    names = names_of(tracking, here, asked.name, wanted)
    question = _question(asked, now, here, wanted)
    if not asked.dry_run:
        before = _answered_before(tracking, now, asked, question)
        if before is not None:
            return before
    spent = _spent(now, asked)
    found = fetch(tracking, here, asked, now.champions, wanted, names)
    split, verdicts = _weighed(asked, found, wanted, judge)
    decisions = [_decision(rate, some, verdicts, found, now, asked) for rate, some in wanted.items()]
    if verdicts and not asked.dry_run:
        return _carried_out(_Desk(tracking, here, asked, now, question, fence), wanted, split, decisions, spent)
    return Decided(gate_report(asked, split, decisions, spent), None)


def _refuse_other_metrics(asked: Asked) -> None:
    refuse_unknown_metrics([asked.metric, *asked.spec.also], asked.results[0].task)


def refuse_unknown_metrics(metrics: Sequence[str], task: str) -> None:
    """Raises SpecError for a metric that cannot be resampled, or that the task does not have."""
    known = resampled_metrics(task)
    unknown = [metric for metric in metrics if metric not in known]
    if unknown:
        raise SpecError(
            f"the gate cannot weigh {unknown[0]!r}{nearest(unknown[0], known)}", where="also", allowed=known
        )


def _refuse_other_ground(tracking: Tracking, asked: Asked, now: Standing) -> None:
    first = asked.results[0]
    mine = ground_of(first)
    if asked.dataset.manifest.name != mine["dataset"]:
        raise GateError(
            f"the data is {asked.dataset.manifest.name!r}",
            where=str(asked.dataset.folder),
            allowed=f"{mine['dataset']!r}, as in study {first.study}, or newer data of that name",
        )
    refuse_other_ground(tracking, asked.name, now.aliases, mine, f"study {first.study}")


def _question(asked: Asked, now: Standing, here: Home, wanted: Wanted) -> str:
    """Digest of all that an answer depends on: with the same, the same would be answered."""
    told = {
        "champions": now.champions,
        "candidates": {rate: [identity_of(here, one) for one in some] for rate, some in wanted.items()},
        "gate": asked.spec.model_dump(mode="json"),
        "approval": asked.approval,
        "data": asked.dataset.fingerprints(),
        "metric": asked.metric,
        "protocol": asked.protocol.model_dump(mode="json"),
        "code_version": gapwise.__version__,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _answered_before(tracking: Tracking, now: Standing, asked: Asked, question: str) -> Decided | None:
    """The entry of the very same question, where it was held or waits for approval. Latencies differ by noise."""
    if asked.spec.limits.latency_ms is not None:
        return None
    for entry in now.ledger.entries:
        if entry.action not in ("hold", "ask") or entry.facts.get("question") != question:
            continue
        try:
            text = kept_report(tracking, now.name, str(entry.facts["run_id"]), REPORT)
        except RegistryError:
            return None
        if hashlib.sha256(text.encode()).hexdigest() == entry.facts["gate"]:
            return Decided(json.loads(text), entry, True)
    return None


def _spent(now: Standing, asked: Asked) -> int:
    """Decisions of the last year on this test split. Raises GateError where nothing is left of the yearly alpha."""
    alphas = decisions_within_a_year(now.ledger.entries, looked_at(asked.dataset.manifest))
    if not asked.dry_run:
        refuse_spent(asked.name, alphas, asked.spec)
    return len(alphas)


def _weighed(asked: Asked, found: Contenders, wanted: Wanted, judge: Judge) -> tuple[Split, list[Verdict]]:
    """Reads the test split only where there is something to weigh."""
    contests = [(rate, called) for rate, some in wanted.items() for called in _asking(rate, some, found)]
    split: Split = asked.dataset.valid
    if not contests:
        return split, []
    if not asked.dry_run:
        refuse_unknowing(found.models)
        split = asked.dataset.test(reason=f"gate of {asked.name}: {', '.join(asked.studies)}")
        refuse_contaminated(found.models, split)
    spec = asked.spec
    seen = judge(found.models, asked.dataset, split, asked.protocol, metric=asked.metric, mask_seeds=spec.mask_seeds)
    baselines = {rate: found.names[some[-1].key] for rate, some in wanted.items()}
    tell_stage("weighing", 0)
    return split, weigh(seen, contests, found.champions, spec, baselines=baselines)


def _asking(rate: str, some: list[Candidate], found: Contenders) -> Iterator[str]:
    """Those before the first that answers here already; who comes after it could only be worse on validation."""
    for one in some:
        called = found.names[one.key]
        if called == serving(rate, found.champions):
            return
        if called not in found.barred:
            yield called


def _decision(
    rate: str, some: list[Candidate], verdicts: list[Verdict], found: Contenders, now: Standing, asked: Asked
) -> Decision:
    """The first candidate that passed or serves already; otherwise the first of all, held."""
    said = {(one.contest.rate, one.contest.challenger): one for one in verdicts}
    before = now.champions.get(rate)
    reasons: list[str] = []
    for one in some:
        called = found.names[one.key]
        verdict = said.get((rate, called))
        if called in found.barred:
            reasons += [one.reason, f"{one.model.trial} has {found.barred[called]}"]
        elif verdict is None:
            reasons += [one.reason, f"is version {called}, which answers here already"]
            if one is some[0]:
                return Decision(rate, "promote", one, called, called, None, reasons)
            break
        else:
            reasons += [one.reason, *reasons_of(verdict)]
            if verdict.passed:
                decision = "ask" if asked.approval and not asked.dry_run else "promote"
                return Decision(rate, decision, one, None, before, verdict, reasons)
    return Decision(rate, "hold", some[0], None, before, said.get((rate, found.names[some[0].key])), reasons)


def _carried_out(desk: _Desk, wanted: Wanted, split: Split, decisions: list[Decision], spent: int) -> Decided:
    name, baseline = desk.asked.name, list(wanted.values())[len(wanted) // 2][-1]
    tell_stage("registering and recording", 0)
    chosen = {one.key: one for one in [*(decision.candidate for decision in decisions), baseline]}
    versions = {key: _register(desk.tracking, desk.here, name, one) for key, one in chosen.items()}
    decisions = [one._replace(version=versions[one.candidate.key]) for one in decisions]
    report = gate_report(desk.asked, split, decisions, spent)
    deed = _deed(desk, decisions, report, versions[baseline.key])
    desk.fence()
    entry = record(desk.tracking, desk.now, deed)
    announce(desk.here, name, entry)
    return Decided(report, entry)


def _register(tracking: Tracking, here: Home, name: str, one: Candidate) -> str:
    result, model = one.result, one.model
    identity, metric = identity_of(here, one), result.objective.metric
    known = registry.find_version(tracking, name, identity)
    if known is not None:
        return known.version
    facts: dict[str, Any] = identity | {
        "code_version": gapwise.__version__,
        "train_fingerprint": result.fingerprints["train"],
        "valid_fingerprint": result.fingerprints["valid"],
        "protocol": result.protocol.model_dump(mode="json"),
        **ground_of(result),
        "metric": metric,
        "arm": model.arm,
        "seeds": model.seeds,
        "shipped_seed": model.shipped_seed,
        "over_seeds": {metric: {rate: figure.model_dump() for rate, figure in model.over_seeds[metric].items()}},
    }
    return registering.register(tracking, name, folder_of(here, one), run_id=result.parent_run_id, facts=facts).version


def _deed(desk: _Desk, decisions: list[Decision], report: Mapping[str, Any], baseline: str) -> Deed:
    """The entry of these decisions, after their report is in a run of its own.

    The studies' late_fusion stays at hand under an alias, so that `evaluate` can set it beside every champion.
    """
    changed: dict[str, str | None] = {}
    moves = []
    for one in decisions:
        if one.decision != "promote":
            changed[aliases.challenger(one.rate)] = one.version
        elif one.before != one.version:
            moves.append(Move(rate=one.rate, before=one.before, after=one.version))
            changed |= {aliases.champion(one.rate): one.version, aliases.challenger(one.rate): None}
            if one.before is not None:
                changed[aliases.previous(one.rate)] = one.before
    if moves:
        changed[aliases.BASELINE_ALIAS] = baseline
    wanted = {one.rate: one.version for one in decisions if one.decision == "ask"}
    action = "ask" if wanted else "promote" if moves else "hold"
    text = json.dumps(report, sort_keys=True, indent=1)
    with tempfile.TemporaryDirectory(prefix="gapwise-") as temporary:
        files = [Path(temporary) / REPORT, Path(temporary) / PLOT]
        files[0].write_text(text)
        files[1].write_text(plot(report))
        title = f"{desk.now.ledger.last_number + 1:04d} {action}"
        run_id = keep_report(desk.tracking, desk.here, desk.asked.name, title, files)
    facts: dict[str, Any] = {
        "studies": desk.asked.studies,
        "gate": hashlib.sha256(text.encode()).hexdigest(),
        "question": desk.question,
        "run_id": run_id,
        "alpha": desk.asked.spec.alpha,
        "test_fingerprint": desk.asked.test_fingerprint,
        "dataset_fingerprint": desk.asked.dataset.manifest.fingerprint,
        "code_version": gapwise.__version__,
        "decisions": {one.rate: one.decision for one in decisions},
        "why": {one.rate: reasons_of(one.verdict)[0] for one in decisions if one.verdict is not None},
        **({"asked": wanted, "champions": desk.now.champions, "baseline": baseline} if wanted else {}),
        **({"other_rows": desk.asked.spec.other_rows} if desk.asked.spec.other_rows else {}),
    }
    return Deed(action, moves, changed, facts, run_id)
