"""From finished studies to champions, with a real SQLite MLflow and real (tiny) model folders in temporary folders.

Faked: the studies, whose figures are written by hand, and what models answer on the test split: each test says which
model errs by how much, so that the gate's arithmetic is real and its verdicts are known.
"""

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException

from gapwise.data.manifest import Manifest, write_manifest
from gapwise.data.store import Dataset, Split, open_dataset, statistics
from gapwise.errors import GateError, RegistryError, SpecError
from gapwise.models.saved import ModelFolder, load_model_folder, save_model
from gapwise.promotion.asked import Asked
from gapwise.promotion.champions import champions
from gapwise.promotion.gate import FLOOR, Answers
from gapwise.promotion.promote import Decided, promote
from gapwise.promotion.rollback import approve, roll_back
from gapwise.promotion.standing import settled, standing
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.gate import GateSpec
from gapwise.spec.home import Home
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import ObjectiveSpec, TrainSpec
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking, connect, experiment_id
from gapwise.tracking.ledger import kept_report
from gapwise.tracking.locate import locate
from gapwise.tracking.runs import start_run
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit
from gapwise.tuning.result import Best, RefitModel, Spread, StudyResult

RATES = ("0.0", "0.3")
SPEC = GateSpec(mask_seeds=2, yearly_alpha=1.0, decisions_per_year=20)
WRITES_BEFORE_THE_ENTRY = 13
"""Of a first promotion: two models with their registered name, the report's run, the ledger's name."""
Curve = dict[str, float]
Errors = Mapping[str, tuple[float, float]]
"""Mean absolute error at both rates, by a model's name."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def tracking(here: Home) -> Tracking:
    return connect(here)


@pytest.fixture(scope="module")
def trained(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a refit leaves: a winner and a baseline."""
    made, dataset = tmp_path_factory.mktemp("study"), open_dataset(small)
    for arm in ("prlf", "late_fusion"):
        model = {"name": arm, "width": 8, "heads": 2, "depth": 1, "summary_tokens": 1}
        protocol = {"rates": [float(rate) for rate in RATES]}
        spec = TrainSpec.model_validate({"model": model, "protocol": protocol, "epochs": 1, "batch_size": 400})
        job = whole_job(spec, dataset, statistics(dataset.train))
        found = fit(job, NoReporter(), NoSink())
        save_model(made / "refit" / f"{arm}-0" / "seed-1", trained_model(job, found, found.kept.metrics))
    return made


@pytest.fixture
def make_study(small: Path, trained: Path, here: Home, tracking: Tracking, name: str) -> Callable[..., StudyResult]:
    """A finished study with these validation means by rate, under a name of its own for each test."""

    def model(arm: str, curve: Curve) -> RefitModel:
        place = f"refit/{arm}-0/seed-1"
        return RefitModel(
            trial=f"{arm}-0",
            arm=arm,
            values={},
            spec_fingerprint=fingerprint(load_model_folder(trained / place).spec),
            epochs=1,
            seeds=[1],
            shipped_seed=1,
            folder=place,
            over_seeds={"mae": {rate: Spread(mean=value, sd=0.0) for rate, value in curve.items()}},
            shipped={},
        )

    def best(arm: str, curve: Curve) -> dict[str, Best]:
        return {rate: Best(trial=f"{arm}-0", metric="mae", mean=v, sd=0.0, seeds=1) for rate, v in curve.items()}

    def make(
        study: str, winner: tuple[float, float] = (1.0, 1.1), baseline: tuple[float, float] = (1.2, 1.3), **changes: Any
    ) -> StudyResult:
        own = f"{name}-{study}"
        shutil.copytree(trained, here.studies / own)
        curves = [dict(zip(RATES, figures, strict=True)) for figures in (winner, baseline)]
        fields: dict[str, Any] = {
            "study": own,
            "question": "which?",
            "task": "regression",
            "dataset": "synthetic-small",
            "data": str(small),
            "fingerprints": open_dataset(small).fingerprints(),
            "spec_fingerprint": "s",
            "protocol": ProtocolSpec(rates=tuple(float(rate) for rate in RATES)),
            "objective": ObjectiveSpec(metric="mae"),
            "mask_seeds": 2,
            "trials": {},
            "arms": {},
            "wall_seconds": 1.0,
            "search_seconds": 1.0,
            "train_seconds": 1.0,
            "best": best("prlf", curves[0]),
            "baseline": best("late_fusion", curves[1]),
            "floor": {"mae": 1.4},
            "models": [model("prlf", curves[0]), model("late_fusion", curves[1])],
            "parent_run_id": start_run(tracking, experiment_id(tracking, here, "small"), study, tags={}),
        }
        return StudyResult(**(fields | changes))

    return make


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^a-z0-9_]", "", request.node.name)


Act = Callable[..., Decided]


@pytest.fixture
def act(tracking: Tracking, here: Home, name: str, small: Path) -> Act:
    """Promote studies to the test's name, where every model on the test split errs as `errors` says."""

    def promoted(
        *results: StudyResult,
        errors: Errors,
        spec: GateSpec = SPEC,
        data: Path = small,
        fence: Callable[[], object] = lambda: None,
        **how: Any,
    ) -> Decided:
        asked = Asked(name, list(results), open_dataset(data), spec, **how)
        return promote(tracking, here, asked, judge=judging({FLOOR: (2.0, 2.0), **errors}), fence=fence)

    return promoted


def judging(errors: Errors) -> Callable[..., Answers]:
    """In place of `evidence.answers`: a model is known by the end of its name, such as prlf-0, or by its version."""

    def judge(
        models: Mapping[str, ModelFolder],
        dataset: Dataset,
        split: Split,
        protocol: ProtocolSpec,
        *,
        metric: str,
        mask_seeds: int,
    ) -> Answers:
        del protocol
        outputs = {}
        for index, one in enumerate([*models, FLOOR]):
            wanted = next(errors[known] for known in errors if one.endswith(known))
            noise = np.random.default_rng(index).normal(0.0, 0.02, (2, mask_seeds, len(split)))
            outputs[one] = (split.labels + np.asarray(wanted)[:, None, None] + noise).astype(np.float32)
        return Answers(metric, list(RATES), outputs, split.labels, split.groups, dataset.manifest.shape())

    return judge


WINS: Errors = {"prlf-0": (1.0, 1.0), "late_fusion-0": (1.5, 1.5)}


def decided(found: Decided) -> list[tuple[str, str, str | None]]:
    return [(row["rate"], row["decision"], row["version"]) for row in found.report["decisions"]]


def test_the_winner_of_every_rate_is_registered_once_and_the_baseline_lies_beside_it(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str
) -> None:
    found = act(make_study("one"), errors=WINS)
    versions = {one.facts["arm"]: one.version for one in registry.versions(tracking, name)}
    assert decided(found) == [("0.0", "promote", versions["prlf"]), ("0.3", "promote", versions["prlf"])]
    assert registry.aliases(tracking, name) == {
        "champion-mr00": versions["prlf"],
        "champion-mr30": versions["prlf"],
        "baseline": versions["late_fusion"],
    }
    assert found.entry is not None
    text = kept_report(tracking, name, str(found.entry.facts["run_id"]), "gate.json")
    assert found.entry.facts["gate"] == hashlib.sha256(text.encode()).hexdigest()
    assert json.loads(text) == json.loads(json.dumps(found.report))
    rivals = [one["rival"].split("/")[-1] for one in found.report["decisions"][0]["comparisons"]]
    assert rivals == ["late_fusion-0", FLOOR]


def test_what_an_alias_names_is_the_model_that_was_refitted_and_its_tags_say_where_it_is_from(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str, trained: Path
) -> None:
    result = make_study("one")
    act(result, errors=WINS)
    fetched = locate(tracking, f"models:/{name}@champion-mr30")
    kept = load_model_folder(trained / "refit" / "prlf-0" / "seed-1")
    assert all((fetched.weights[key] == value).all() for key, value in kept.weights.items())
    facts = registry.version_of(tracking, name, registry.aliases(tracking, name)["champion-mr30"]).facts
    assert (facts["study"], facts["trial"], facts["seeds"]) == (result.study, "prlf-0", [1])
    assert facts["train_fingerprint"] == result.fingerprints["train"]


def test_where_the_winner_cannot_be_shown_to_beat_the_baseline_that_one_serves(
    make_study: Callable[..., StudyResult], act: Act
) -> None:
    found = act(make_study("one"), errors={"prlf-0": (1.0, 1.5), "late_fusion-0": (1.5, 1.5)})
    assert [row["arm"] for row in found.report["decisions"]] == ["prlf", "late_fusion"]
    assert [row["decision"] for row in found.report["decisions"]] == ["promote", "promote"]
    assert any("is not shown to beat" in reason for reason in found.report["decisions"][1]["reasons"])


def test_validation_chooses_who_asks(make_study: Callable[..., StudyResult], act: Act) -> None:
    found = act(make_study("one", winner=(1.0, 1.4)), errors=WINS)
    assert [row["arm"] for row in found.report["decisions"]] == ["prlf", "late_fusion"]
    assert "does not beat late_fusion" in found.report["decisions"][1]["reasons"][0]


def test_a_dry_run_decides_on_validation_and_changes_nothing(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str, small: Path
) -> None:
    before = open_dataset(small).exposures()
    found = act(make_study("one"), errors=WINS, dry_run=True)
    assert decided(found) == [("0.0", "promote", None), ("0.3", "promote", None)]
    assert found.report["split"] == "valid"
    assert registry.aliases_if_any(tracking, name) is None
    assert registry.aliases_if_any(tracking, f"{name}-ledger") is None
    assert open_dataset(small).exposures() == before


def test_what_is_held_is_in_the_ledger_and_stays_a_challenger(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str
) -> None:
    found = act(make_study("one"), errors={"prlf-0": (2.0, 2.0), "late_fusion-0": (2.0, 2.0)})
    assert {row["decision"] for row in found.report["decisions"]} == {"hold"}
    version = found.report["decisions"][0]["version"]
    assert registry.aliases(tracking, name) == {"challenger-mr00": version, "challenger-mr30": version}
    assert [one.action for one in standing(tracking, name).ledger.entries] == ["hold"]


def test_promoting_a_study_twice_changes_nothing_and_says_the_same(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str
) -> None:
    result = make_study("one")
    first = act(result, errors=WINS)
    before = registry.aliases(tracking, name)
    second = act(
        result, errors={str(first.report["decisions"][0]["version"]): (1.0, 1.0), before["baseline"]: (1.5, 1.5)}
    )
    assert decided(second) == decided(first)
    assert (registry.aliases(tracking, name), second.entry) == (before, None)
    assert len(standing(tracking, name).ledger.entries) == 1


def test_a_better_study_takes_over_where_it_is_better_and_all_of_it_can_be_taken_back(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str
) -> None:
    old = act(make_study("old"), errors=WINS).report["decisions"][0]["version"]
    errors = {f"{name}-new/prlf-0": (0.8, 1.2), "late_fusion-0": (1.5, 1.5), str(old): (1.0, 1.0)}
    found = act(make_study("new"), errors=errors)
    new = found.report["decisions"][0]["version"]
    assert decided(found) == [("0.0", "promote", new), ("0.3", "hold", new)]
    assert [row["from"] for row in found.report["decisions"]] == [old, old]
    named = registry.aliases(tracking, name)
    assert (named["champion-mr00"], named["previous-mr00"]) == (new, old)
    assert (named["champion-mr30"], named["challenger-mr30"]) == (old, new)
    assert "previous-mr30" not in named
    assert champions(tracking, name)["previous"] == {"0.0": {"version": old}}

    roll_back(tracking, here, name, "0.0", None, "it stammers")
    named = registry.aliases(tracking, name)
    assert (named["champion-mr00"], named["challenger-mr00"]) == (old, new)
    assert "previous-mr00" not in named
    with pytest.raises(RegistryError, match="there is nothing to go back to"):
        roll_back(tracking, here, name, "0.0", None, "")
    roll_back(tracking, here, name, None, new, "all the same")
    assert settled(tracking, name).champions == dict.fromkeys(RATES, new)
    actions = [one.action for one in standing(tracking, name).ledger.entries]
    assert actions == ["promote", "promote", "rollback", "rollback"]


def test_of_several_studies_each_rate_has_its_best(make_study: Callable[..., StudyResult], act: Act, name: str) -> None:
    found = act(make_study("a", winner=(1.0, 1.2)), make_study("b", winner=(1.1, 1.1)), errors=WINS)
    assert [row["study"] for row in found.report["decisions"]] == [f"{name}-a", f"{name}-b"]
    assert len({row["version"] for row in found.report["decisions"]}) == 2


def test_studies_that_were_judged_on_other_data_are_not_compared(
    make_study: Callable[..., StudyResult], act: Act
) -> None:
    other = make_study("b", fingerprints={"dataset": "d", "train": "t", "valid": "v", "test": "e"})
    with pytest.raises(GateError, match=r"differs from study .*-a in its validation split"):
        act(make_study("a"), other, errors=WINS)


@pytest.mark.parametrize(
    "changes", [{"dataset": "other"}, {"protocol": ProtocolSpec(mask_visible=False, rates=(0.0, 0.3))}]
)
def test_a_name_belongs_to_one_dataset_and_protocol(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str, changes: dict[str, Any]
) -> None:
    act(make_study("one"), errors=WINS)
    before = registry.aliases(tracking, name)
    with pytest.raises((RegistryError, GateError), match=r"champions of another ground|the data is 'synthetic-small'"):
        act(make_study("two", **changes), errors=WINS)
    assert registry.aliases(tracking, name) == before


def test_a_test_split_is_not_asked_more_often_than_its_year_allows(
    make_study: Callable[..., StudyResult], act: Act, small: Path
) -> None:
    once = SPEC.model_copy(update={"decisions_per_year": 1, "yearly_alpha": 0.05})
    old = act(make_study("old"), errors=WINS, spec=once).report["decisions"][0]["version"]
    before = open_dataset(small).exposures()
    with pytest.raises(GateError, match="1 decisions were made on this test split within a year, and spent"):
        act(make_study("new"), errors={**WINS, str(old): (1.2, 1.2)}, spec=once)
    assert open_dataset(small).exposures() == before, "who is refused has not looked"


def test_decisions_on_a_test_split_count_for_what_grew_out_of_it(
    make_study: Callable[..., StudyResult], act: Act, small: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(small, grown)
    old = open_dataset(small).manifest
    step = {
        "parent": old.fingerprint,
        "parent_test": old.splits["test"].fingerprint,
        "source": {"file": "more.npz", "digest": "0" * 64},
        "added": {"train": 0, "valid": 0, "test": old.splits["test"].samples},
        "repaired": {},
        "shares": {"train": 1, "valid": 1, "test": 1},
    }
    parts = tuple(part.model_copy(update={"step": 1}) for part in old.splits["test"].parts)
    other = old.splits["test"].model_copy(update={"fingerprint": "1" * 64, "parts": parts})
    splits = {**old.splits, "test": other}
    manifest = Manifest.model_validate({**old.model_dump(), "format_version": 2, "growth": [step]})
    write_manifest(manifest.model_copy(update={"splits": splits, "fingerprint": "2" * 64}), grown)
    once = SPEC.model_copy(update={"decisions_per_year": 1, "yearly_alpha": 0.05})
    act(make_study("old"), errors=WINS, spec=once)

    with pytest.raises(GateError, match="1 decisions were made on this test split within a year, and spent"):
        act(make_study("new"), errors=WINS, spec=once, data=grown)


def test_whoever_lost_the_right_to_decide_writes_nothing(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str
) -> None:
    def lost() -> None:
        raise GateError("somebody else decides now")

    with pytest.raises(GateError, match="somebody else decides now"):
        act(make_study("one"), errors=WINS, fence=lost)

    assert standing(tracking, name).ledger.entries == []
    assert registry.aliases(tracking, name) == {}


def test_where_the_baseline_serves_a_winner_that_is_held_again_is_recorded_and_spends(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str
) -> None:
    act(make_study("one"), errors={"prlf-0": (1.5, 1.5), "late_fusion-0": (1.0, 1.0)})
    serving = registry.aliases(tracking, name)["champion-mr00"]
    assert registry.version_of(tracking, name, serving).facts["arm"] == "late_fusion"
    found = act(make_study("two"), errors={"two/prlf-0": (1.5, 1.5), "late_fusion-0": (1.0, 1.0), serving: (1.0, 1.0)})
    assert found.held and found.entry is not None and found.entry.action == "hold"
    assert [(row["arm"], row["rival"]) for row in found.report["decisions"]] == [("prlf", serving)] * 2
    assert [one.facts["alpha"] for one in standing(tracking, name).ledger.entries] == [SPEC.alpha] * 2


def test_other_weights_of_the_same_trial_are_another_version(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str
) -> None:
    result = make_study("one")
    old = act(result, errors=WINS).report["decisions"][0]["version"]
    folder = here.studies / result.study / "refit" / "prlf-0" / "seed-1"
    model = load_model_folder(folder)
    save_model(folder, model._replace(weights={key: value * 1.01 for key, value in model.weights.items()}))
    found = act(result, errors={"prlf-0": (0.5, 0.5), "late_fusion-0": (1.5, 1.5), "2": (1.5, 1.5), old: (1.0, 1.0)})
    assert found.report["decisions"][0]["version"] not in (None, old)
    assert [row["from"] for row in found.report["decisions"]] == [old, old]
    before = locate(tracking, f"models:/{name}/{old}").weights
    assert all((before[key] == value).all() for key, value in model.weights.items()), "nothing was written over them"


def test_a_year_s_alpha_is_spent_whatever_the_decisions_were_called(
    make_study: Callable[..., StudyResult], act: Act, name: str
) -> None:
    half = SPEC.model_copy(update={"yearly_alpha": 0.08, "decisions_per_year": 2})
    old = act(make_study("old"), errors=WINS, spec=half).report["decisions"][0]["version"]
    errors = {**WINS, str(old): (1.0, 1.0)}
    many = half.model_copy(update={"decisions_per_year": 100})
    assert act(make_study("new"), errors=errors, spec=half).held
    with pytest.raises(GateError, match=r"2 decisions .* spent 0\.08 of yearly_alpha 0\.08; this one needs 0\.0008"):
        act(make_study("newer"), errors=errors, spec=many)


def test_a_rate_without_a_champion_of_its_own_asks_for_more_than_its_neighbour_s(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str
) -> None:
    act(make_study("one"), errors={"prlf-0": (1.0, 2.5), "late_fusion-0": (1.5, 2.5)})
    assert list(settled(tracking, name).champions) == ["0.0"]
    errors = {"two/prlf-0": (1.0, 2.2), "two/late_fusion-0": (1.5, 2.6), "1": (1.0, 2.5), "2": (1.5, 2.5)}
    found = act(make_study("two"), errors=errors)
    second = found.report["decisions"][1]
    assert [one["rival"].split("/")[-1] for one in second["comparisons"][:3]] == ["1", "late_fusion-0", FLOOR]
    assert second["decision"] == "hold", "better than who answers there now, and worse than a constant"


def test_an_approval_that_was_overtaken_is_refused(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str
) -> None:
    act(make_study("one"), errors=WINS)
    act(
        make_study("two"),
        errors={"two/prlf-0": (0.5, 0.5), "late_fusion-0": (1.5, 1.5), "1": (1.0, 1.0)},
        approval=True,
    )
    roll_back(tracking, here, name, None, "2", "the baseline will do")
    with pytest.raises(GateError, match="no promotion waits for approval"):
        approve(tracking, here, name, "ada")


@pytest.mark.parametrize("metric", ["acc7", "accuracy", "smell"])
def test_a_metric_that_cannot_be_weighed_is_refused_before_the_test_split_is_read(
    make_study: Callable[..., StudyResult], act: Act, small: Path, metric: str
) -> None:
    before = open_dataset(small).exposures()
    with pytest.raises(SpecError, match=f"the gate cannot weigh '{metric}'"):
        act(make_study("one"), errors=WINS, spec=SPEC.model_copy(update={"also": {metric: 0.1}}))
    assert open_dataset(small).exposures() == before


def test_with_approval_nothing_moves_until_a_person_says_so(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str
) -> None:
    found = act(make_study("one"), errors=WINS, approval=True)
    version = found.report["decisions"][0]["version"]
    assert decided(found) == [("0.0", "ask", version), ("0.3", "ask", version)]
    assert registry.aliases(tracking, name) == {"challenger-mr00": version, "challenger-mr30": version}
    approved = approve(tracking, here, name, "ada")
    assert approved.facts["reason"] == "ada approved entry 1"
    assert settled(tracking, name).champions == dict.fromkeys(RATES, version)
    assert (
        registry.version_of(tracking, name, registry.aliases(tracking, name)["baseline"]).facts["arm"] == "late_fusion"
    )
    with pytest.raises(GateError, match="no promotion waits for approval"):
        approve(tracking, here, name, "ada")


class Dropping:
    """MLflow's client, whose connection drops at one write."""

    WRITES = ("create_", "log_", "set_", "update_", "delete_")

    def __init__(self, client: Any, writes: int) -> None:
        self._client, self.left = client, writes

    def __getattr__(self, called: str) -> Any:
        real = getattr(self._client, called)
        if not called.startswith(self.WRITES):
            return real

        def write(*args: Any, **keywords: Any) -> Any:
            self.left -= 1
            if self.left == -1:
                raise MlflowException("connection refused")
            return real(*args, **keywords)

        return write


@pytest.mark.parametrize("writes", range(0, 24, 2))
def test_a_connection_that_drops_at_any_write_leaves_nothing_half_promoted(
    make_study: Callable[..., StudyResult], tracking: Tracking, here: Home, name: str, small: Path, writes: int
) -> None:
    dropping = Dropping(tracking.client, writes)
    asked = Asked(name, [make_study("one")], open_dataset(small), SPEC)
    judge = judging({FLOOR: (2.0, 2.0), **WINS, "1": (1.0, 1.0), "2": (1.5, 1.5)})
    with pytest.raises(RegistryError):
        promote(tracking._replace(client=dropping), here, asked, judge=judge)
    decided_already = bool(standing(tracking, name).ledger.entries)
    promote(tracking, here, asked, judge=judge)
    now = standing(tracking, name)
    assert (now.ledger.problems, now.drift(), len(now.ledger.entries)) == ([], [], 1)
    arms = {one.version: one.facts["arm"] for one in registry.versions(tracking, name)}
    assert {rate: arms[version] for rate, version in now.champions.items()} == dict.fromkeys(RATES, "prlf")
    assert sorted(arms.values()) == ["late_fusion", "prlf"], "nothing is registered twice"
    assert registry.aliases(tracking, f"{name}-router")["champion"]
    assert decided_already == (writes >= WRITES_BEFORE_THE_ENTRY)


def test_of_promotions_at_once_one_wins_and_the_others_see_why(
    make_study: Callable[..., StudyResult], tracking: Tracking, here: Home, small: Path, name: str
) -> None:
    results = [make_study(study) for study in ("one", "two", "three")]
    weighing, plain = threading.Barrier(len(results)), judging({FLOOR: (2.0, 2.0), **WINS})

    def judge(*models: Any, **how: Any) -> Answers:
        weighing.wait(60)  # all of them have read the same ledger, and none has written to it
        return plain(*models, **how)

    def act(result: StudyResult) -> str:
        try:
            found = promote(connect(here), here, Asked(name, [result], open_dataset(small), SPEC), judge=judge)
        except GateError as error:
            return str(error)
        return f"entry {found.entry.sequence if found.entry else None}"

    with ThreadPoolExecutor(len(results)) as pool:
        said = sorted(pool.map(act, results))
    assert said[0] == "entry 1"
    assert all("decided first (promote, entry 1); nothing was changed" in one for one in said[1:]), said
    now = settled(tracking, name)
    assert [entry.sequence for entry in now.ledger.entries] == [1] and not now.ledger.problems
    winner = str(now.ledger.entries[0].facts["studies"][0])
    assert registry.version_of(tracking, name, now.champions["0.0"]).facts["study"] == winner


def test_weights_that_were_changed_since_the_refit_are_never_registered(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str
) -> None:
    result = make_study("one")
    weights = here.studies / result.study / "refit" / "prlf-0" / "seed-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Exception, match="the weights are not the ones described"):
        act(result, errors=WINS)
    assert registry.versions(tracking, name) == []


def test_the_very_same_question_is_answered_from_the_ledger_and_reads_and_spends_nothing(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str, small: Path
) -> None:
    result, errors = make_study("one"), {"prlf-0": (2.0, 2.0), "late_fusion-0": (2.0, 2.0)}
    first = act(result, errors=errors)
    reads = open_dataset(small).exposures()
    second = act(result, errors={})
    assert (second.report, second.entry, second.again) == (json.loads(json.dumps(first.report)), first.entry, True)
    assert open_dataset(small).exposures() == reads
    assert len(standing(tracking, name).ledger.entries) == 1
    third = act(result, errors={"1": (1.0, 1.0), "2": (1.5, 1.5)}, spec=SPEC.model_copy(update={"margin": 0.01}))
    assert not third.again, "another gate is another question"


def test_where_nothing_can_change_the_test_split_is_not_read(
    make_study: Callable[..., StudyResult], act: Act, small: Path
) -> None:
    result = make_study("one")
    act(result, errors=WINS)
    before = open_dataset(small).exposures()
    act(result, errors={})
    assert open_dataset(small).exposures() == before


def test_a_candidate_above_the_gate_s_limits_never_serves(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, name: str, trained: Path
) -> None:
    sizes = {
        arm: sum(one.numel() for one in load_model_folder(trained / "refit" / f"{arm}-0" / "seed-1").weights.values())
        for arm in ("prlf", "late_fusion")
    }
    assert sizes["late_fusion"] < sizes["prlf"]
    between = (sizes["late_fusion"] + sizes["prlf"]) // 2
    limits = GateSpec.model_validate({"mask_seeds": 2, "limits": {"parameters": {"max": between}}})
    found = act(make_study("one"), errors=WINS, spec=limits)
    assert [row["arm"] for row in found.report["decisions"]] == ["late_fusion", "late_fusion"]
    assert f"(at most {between:,})" in found.report["decisions"][0]["reasons"][1]
    nobody = GateSpec.model_validate({"mask_seeds": 2, "limits": {"parameters": {"max": 1}}})
    found = act(make_study("two"), errors=WINS, spec=nobody)
    assert found.held and found.entry is None
    assert len(standing(tracking, name).ledger.entries) == 1


def test_a_model_that_has_seen_test_samples_is_not_weighed(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str, small: Path
) -> None:
    result = make_study("one")
    folder = here.studies / result.study / "refit" / "prlf-0" / "seed-1"
    model, test = load_model_folder(folder), open_dataset(small).test(reason="a test of contamination")
    for keys in (test.keys, test.content_keys):
        seen = torch.cat([model.seen, torch.from_numpy(keys[[5, 7]].view(np.int64))])
        save_model(folder, model._replace(seen=seen))
        with pytest.raises(
            GateError, match=f"2 of {len(test)} test samples .* of .*prlf-0: {test.ids[5]}, {test.ids[7]}"
        ):
            act(result, errors=WINS)
    save_model(folder, model._replace(seen=model.seen[:0]))
    with pytest.raises(GateError, match="does not know which samples it was trained on"):
        act(result, errors=WINS)
    assert registry.aliases_if_any(tracking, name) is None


def test_what_a_model_has_seen_is_training_and_validation_and_nothing_else(small: Path, trained: Path) -> None:
    seen = load_model_folder(trained / "refit" / "prlf-0" / "seed-1").seen.numpy().view(np.uint64)
    dataset = open_dataset(small)
    test = dataset.test(reason="a test of contamination")
    for split, inside in ((dataset.train, True), (dataset.valid, True), (test, False)):
        assert (np.isin(split.keys, seen) == inside).all() and (np.isin(split.content_keys, seen) == inside).all()


def test_a_model_that_reads_other_rows_takes_over_only_for_a_reason(
    make_study: Callable[..., StudyResult], act: Act, here: Home
) -> None:
    old = act(make_study("old"), errors=WINS).report["decisions"][0]["version"]
    result = make_study("new")
    for arm in ("prlf", "late_fusion"):
        folder = here.studies / result.study / "refit" / f"{arm}-0" / "seed-1"
        model = load_model_folder(folder)
        first = sorted(model.shape.modalities)[0]
        shorter = model.shape.modalities[first].model_copy(update={"max_length": 1})
        shape = model.shape.model_copy(update={"modalities": {**model.shape.modalities, first: shorter}})
        places = f"of_{first}.positions"
        weights = {key: value[:1] if key.endswith(places) else value for key, value in model.weights.items()}
        save_model(folder, model._replace(shape=shape, weights=weights))
    errors = {"new/prlf-0": (0.5, 0.5), "late_fusion-0": (1.5, 1.5), str(old): (1.0, 1.0)}
    with pytest.raises(GateError, match=rf"reads other rows than champion version {old}: at most 1 frames of {first}"):
        act(result, errors=errors)
    found = act(result, errors=errors, spec=SPEC.model_copy(update={"other_rows": "rows are short since May"}))
    assert not found.held and found.entry is not None
    assert found.entry.facts["other_rows"] == "rows are short since May"


def test_the_router_is_there_as_soon_as_somebody_serves_and_only_then(
    make_study: Callable[..., StudyResult], act: Act, tracking: Tracking, here: Home, name: str
) -> None:
    act(make_study("one"), errors=WINS, approval=True)
    assert registry.aliases_if_any(tracking, f"{name}-router") is None
    approve(tracking, here, name, "ada")
    assert registry.aliases(tracking, f"{name}-router") == {"champion": "1"}
    roll_back(tracking, here, name, None, "2", "the baseline will do")
    assert registry.aliases(tracking, f"{name}-router") == {"champion": "1"}


def test_a_hook_hears_of_every_change_and_cannot_stop_one(
    make_study: Callable[..., StudyResult],
    act: Act,
    tracking: Tracking,
    here: Home,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = here.root / "hooks" / "promotion"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\n(echo $1; cat; echo) >> {tmp_path}/heard\necho no such channel >&2\nexit 4\n")
    hook.chmod(0o755)
    try:
        entry = act(make_study("one"), errors=WINS).entry
    finally:
        shutil.rmtree(hook.parent)
    assert entry is not None
    named, told = (tmp_path / "heard").read_text().splitlines()
    assert (named, json.loads(told)["digest"]) == (name, entry.digest)
    assert {move["rate"] for move in json.loads(told)["moves"]} == set(RATES)
    assert "exit code 4, no such channel; the decision stands" in caplog.text
    assert set(settled(tracking, name).champions) == set(RATES)
