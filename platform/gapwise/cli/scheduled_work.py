"""What a tick does to the world: snapshots, studies, the gate, notifications. Heavy libraries load when it trains."""

import hashlib
import time
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapwise.cli.output import say
from gapwise.cli.work_view import WorkView
from gapwise.data.source import drop, manifest_at, peek, snapshot, snapshots, snapshots_to_drop
from gapwise.errors import GapwiseError
from gapwise.promotion.hook import run_hook
from gapwise.retraining.here import code_fingerprint
from gapwise.retraining.log import Attempt, Entry
from gapwise.retraining.policy import Drifted, Facts
from gapwise.retraining.tick import Lease, Result
from gapwise.spec.fingerprint import canonical
from gapwise.spec.home import STUDY_FILE, Home
from gapwise.spec.loader import load_spec, validate
from gapwise.spec.schedule import ScheduleSpec, StudySpec
from gapwise.spec.search import SearchSpec
from gapwise.tracking.client import Tracking

if TYPE_CHECKING:
    from gapwise.promotion.chain import Entry as LedgerEntry
    from gapwise.tuning.result import StudyResult

_SNAPSHOTS_KEPT = 3


class RealWork:
    """The work of one schedule in one home."""

    def __init__(self, schedule: ScheduleSpec, file: Path, tracking: Tracking, here: Home, address: str | None) -> None:
        self._schedule, self._tracking, self._here, self._address = schedule, tracking, here, address
        self._beside = file.absolute().parent
        self._store = here.root / "snapshots" / schedule.name
        self._data = schedule.data if "://" in schedule.data else str(self._beside / schedule.data)

    def facts(self) -> Facts:
        asked = {
            "mode": self._schedule.mode.model_dump(mode="json"),
            "gate": self._schedule.gate.model_dump(mode="json"),
            "space": self._space,
        }
        code = hashlib.sha256(code_fingerprint().encode() + canonical(asked)).hexdigest()
        return Facts(peek(self._data), code)

    @cached_property
    def _space(self) -> dict[str, Any] | None:
        """The search space as the file says now; None for a refit."""
        mode = self._schedule.mode
        if not isinstance(mode, StudySpec):
            return None
        settings = (f"trials={mode.trials}",) if mode.trials else ()
        return load_spec(SearchSpec, self._beside / mode.space, settings).model_dump(
            mode="json", exclude={"train": {"model"}}
        )

    def drifted(self, last: Entry) -> Drifted:
        from gapwise.retraining.moved import moved

        folder = snapshot(self._data, self._store)
        return moved(self._tracking, self._schedule.name, folder, str(last.facts["data"]), self._schedule.triggers)

    def begin(self, facts: Facts, tick: datetime, reason: str) -> dict[str, Any]:
        from gapwise.retraining.champions import serving, studies_behind

        name, mode = self._schedule.name, self._schedule.mode
        claimed: dict[str, Any] = {"data": facts.data, "code": facts.code, "mode": mode.model_dump(mode="json")}
        self._refuse_in_vain()
        space = self._space
        if space is None:
            claimed["versions"] = serving(self._tracking, name)
        else:
            earlier = studies_behind(self._tracking, name, self._here.studies) if claimed["mode"]["warm_start"] else []
            if earlier:
                space = {**space, "warm_start": {**(space.get("warm_start") or {}), "studies": earlier}}
            claimed["space"] = space
        wish = hashlib.sha256(canonical(claimed)).hexdigest()[:6]  # what asks for something else is another study
        why = f"Schedule of {name}, tick of {tick:%Y-%m-%d %H:%M} UTC: {reason}"
        seed = int(tick.timestamp()) // 60  # of a refit
        return claimed | {"study": f"{name}-{tick:%Y%m%dT%H%M%S}-{wish}", "question": why, "seed": seed}

    def _refuse_in_vain(self) -> None:
        """What the gate would refuse after the training, whatever comes of it."""
        from gapwise.promotion.promote import refuse_unknown_metrics
        from gapwise.promotion.spending import decisions_within_a_year, looked_at, refuse_spent
        from gapwise.promotion.standing import settled

        name, gate, manifest = self._schedule.name, self._schedule.gate, manifest_at(self._data)
        refuse_unknown_metrics(list(gate.also), manifest.task)
        entries = settled(self._tracking, name).ledger.entries
        refuse_spent(name, decisions_within_a_year(entries, looked_at(manifest)), gate)

    def train(self, attempt: Attempt, lease: Lease) -> Result:
        from gapwise.data.store import open_dataset
        from gapwise.evaluation.hearing import heard_by
        from gapwise.promotion.asked import Asked
        from gapwise.promotion.promote import promote

        study = str(attempt.facts["study"])
        say(f"tick of {self._schedule.name}: 1 of 3, a copy of the data in {self._store}")
        dataset = open_dataset(self._frozen(attempt))
        known = {"data": dataset.manifest.fingerprint}
        decided = self._decided_before(study)
        if decided is not None:
            return _result(decided, known)
        say(f"tick of {self._schedule.name}: 2 of 3, study {study}")
        result = self._studied(attempt, dataset.folder)
        lease.hold()
        decided = self._decided_before(study)  # by an owner that was suspended between its last look and the ledger
        if decided is not None:
            return _result(decided, known)
        say(f"tick of {self._schedule.name}: 3 of 3, the gate")
        asked = Asked(self._schedule.name, [result], dataset, self._schedule.gate)
        with WorkView(f"gate of {self._schedule.name}") as view, heard_by(view):
            entry = promote(self._tracking, self._here, asked, fence=lease.hold).entry
        try:
            self._tidy(dataset.manifest.fingerprint)
        except (GapwiseError, OSError) as error:  # the decision stands
            say(f"snapshots were not tidied: {error}")
        if entry is None:
            return Result("held", "every candidate serves already", known)
        return _result(entry, known)

    def _frozen(self, attempt: Attempt) -> Path:
        """The data that the study was begun on, or was to be; what is there now where nobody made a copy in time."""
        from gapwise.tuning.record import recorded_study

        study = self._here.studies / str(attempt.facts["study"])
        begun = (study / STUDY_FILE).exists()
        wanted = self._store / str(recorded_study(study)["data_fingerprint"] if begun else attempt.facts["data"])
        return wanted if wanted.is_dir() else snapshot(self._data, self._store)

    def _decided_before(self, study: str) -> "LedgerEntry | None":
        """An attempt may have died between the decision and its record; each study of a schedule is decided once."""
        from gapwise.promotion.standing import settled

        entries = settled(self._tracking, self._schedule.name).ledger.entries
        return next((one for one in entries if one.facts.get("studies") == [study]), None)

    def _studied(self, attempt: Attempt, folder: Path) -> "StudyResult":
        from gapwise.cli.progress import StudyDisplay
        from gapwise.tuning.again import refit_space, refit_winners, run_refit
        from gapwise.tuning.result import RESULT_FILE, load_result
        from gapwise.tuning.storage import checked_storage
        from gapwise.tuning.study import run_study
        from gapwise.verbs.tune import Act, Audience, Wish, add_report, conduct

        study = str(attempt.facts["study"])
        mode = ScheduleSpec.model_validate({**self._schedule.model_dump(), "mode": attempt.facts["mode"]}).mode
        home = self._here.studies / study
        if (home / RESULT_FILE).exists():
            return load_result(self._here.studies, study)
        question = attempt.facts["question"]
        act: Act = run_study
        budget, resume = None, (home / STUDY_FILE).exists()
        if isinstance(mode, StudySpec):
            space = validate(SearchSpec, {**attempt.facts["space"], "question": question}, where=mode.space)
            budget = mode.time_budget_minutes and mode.time_budget_minutes * 60
        else:
            from gapwise.retraining.champions import trained_as

            specs = trained_as(self._tracking, self._schedule.name, list(attempt.facts["versions"]))
            seeds = {"seeds": mode.seeds, "mask_seeds": mode.mask_seeds, "seed": attempt.facts["seed"]}
            space = refit_space(specs, question, **seeds)
            act = partial(run_refit, winners=refit_winners(specs))
        say(f"attempt {attempt.number}: {question}")
        ended = conduct(
            Wish(
                name=study,
                space=space,
                data=folder,
                concurrency=self._schedule.concurrency,
                storage=checked_storage(self._schedule.storage),
                address=self._address,
                priority=self._schedule.priority,
                began=time.perf_counter(),
                search_budget_seconds=budget,
                resume=resume,
                retry_failed=resume,
            ),
            Audience(say, StudyDisplay),
            act,
        )
        add_report(ended, say)
        return ended.result

    def _tidy(self, fingerprint: str) -> None:
        """Copies that neither the newest studies nor a champion were trained on may go."""
        from gapwise.tracking import aliases, registry

        named = registry.aliases_if_any(self._tracking, self._schedule.name) or {}
        facts = [
            registry.version_of(self._tracking, self._schedule.name, version).facts
            for version in set(aliases.champions(named).values())
        ]
        in_use = {fingerprint, *(str(one.get("dataset_fingerprint")) for one in facts)}
        drop(self._store, snapshots_to_drop(snapshots(self._store), _SNAPSHOTS_KEPT, in_use))

    def tell(self, event: str, body: dict[str, Any]) -> None:
        if self._schedule.notify:
            told = {"schedule": self._schedule.name, "event": event, **body}
            run_hook(self._schedule.notify, told, stands="the record stands")


def _result(entry: "LedgerEntry", known: dict[str, Any]) -> Result:
    told = entry.facts.get("decisions")
    said = told if isinstance(told, dict) else {}
    moved = [move.rate for move in entry.moves]
    facts = {**known, "entry": entry.sequence, "digest": entry.digest, "decisions": said}
    if moved:
        return Result("promoted", f"promoted at {', '.join(moved)} by ledger entry {entry.sequence}", facts)
    return Result("held", f"held at every rate by ledger entry {entry.sequence}", facts)
