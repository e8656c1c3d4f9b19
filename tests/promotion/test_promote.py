"""Acting on decisions, with a real SQLite MLflow and real (tiny) model folders in temporary folders.

Faked: the study. Its winner and baseline are trained for one epoch each, in this process, and the figures of its result
are written by hand, so that each test decides what beats what. One store serves the file; every test takes its own
registered name.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import open_dataset, statistics
from gapwise.errors import RegistryError
from gapwise.models.saved import load_model_folder, save_model
from gapwise.promotion.champions import champions
from gapwise.promotion.promote import promote
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.home import Home
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import ObjectiveSpec, TrainSpec
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking, connect, experiment_id
from gapwise.tracking.locate import locate
from gapwise.tracking.runs import start_run
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import Job
from gapwise.training.loop import fit
from gapwise.tuning.result import Best, RefitModel, Spread, StudyResult

RATES = ("0.0", "0.3")
Curve = dict[str, float]
MakeResult = Callable[..., StudyResult]


def job(small: Path, arm: str) -> Job:
    dataset = open_dataset(small)
    model = {"name": arm, "width": 8, "heads": 2, "depth": 1, "summary_tokens": 1}
    protocol = {"rates": [float(rate) for rate in RATES]}
    return Job(
        spec=TrainSpec.model_validate({"model": model, "protocol": protocol, "epochs": 1, "batch_size": 400}),
        train=dataset.train,
        valid=dataset.valid,
        shape=dataset.manifest.shape(),
        statistics=statistics(dataset.train),
        fingerprints=dataset.fingerprints(),
    )


@pytest.fixture(scope="module")
def folder(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with a refitted winner and a refitted baseline."""
    made = tmp_path_factory.mktemp("study")
    for arm in ("prlf", "late_fusion"):
        one = job(small, arm)
        trained = fit(one, NoReporter(), NoSink())
        save_model(made / "refit" / f"{arm}-0" / "seed-1", trained_model(one, trained, trained.kept.metrics))
    return made


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return connect(Home(tmp_path_factory.mktemp("home")))


@pytest.fixture
def make_result(small: Path, folder: Path, tracking: Tracking) -> MakeResult:
    """A finished study with these validation means by rate; the floor is 1.4."""

    def model(arm: str, curve: Curve) -> RefitModel:
        place = f"refit/{arm}-0/seed-1"
        return RefitModel(
            trial=f"{arm}-0",
            arm=arm,
            values={},
            spec_fingerprint=fingerprint(load_model_folder(folder / place).spec),
            epochs=1,
            seeds=[1],
            shipped_seed=1,
            folder=place,
            over_seeds={"mae": {rate: Spread(mean=value, sd=0.0) for rate, value in curve.items()}},
            shipped={},
        )

    def best(arm: str, curve: Curve) -> dict[str, Best]:
        return {rate: Best(trial=f"{arm}-0", metric="mae", mean=v, sd=0.0, seeds=1) for rate, v in curve.items()}

    def make(study: str, winner: Curve, baseline: Curve, **changes: Any) -> StudyResult:
        home = Home(Path(tracking.uri.removeprefix("sqlite:///")).parent)
        fields: dict[str, Any] = {
            "study": study,
            "question": "which?",
            "task": "regression",
            "dataset": "small",
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
            "best": best("prlf", winner),
            "baseline": best("late_fusion", baseline),
            "floor": {"mae": 1.4},
            "models": [model("prlf", winner), model("late_fusion", baseline)],
            "parent_run_id": start_run(tracking, experiment_id(tracking, home, "small"), study, tags={}),
        }
        return StudyResult(**(fields | changes))

    return make


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^a-z0-9_]", "", request.node.name)


WINS, LOSES = {"0.0": 1.0, "0.3": 1.1}, {"0.0": 1.2, "0.3": 1.3}
MIXED = {"0.0": 1.0, "0.3": 1.35}


def test_every_rate_gets_the_model_that_won_it_and_each_model_is_registered_once(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    promotions = promote(tracking, make_result("one", MIXED, LOSES), folder, name, dry_run=False)
    assert [one.decision.trial for one in promotions] == ["prlf-0", "late_fusion-0"]
    versions = {one.facts["trial"]: one.version for one in registry.versions(tracking, name)}
    assert len(versions) == len(registry.versions(tracking, name)) == 2
    assert registry.aliases(tracking, name) == {
        "champion-mr00": versions["prlf-0"],
        "champion-mr30": versions["late_fusion-0"],
        "baseline": versions["late_fusion-0"],
    }
    assert [one.version for one in promotions] == [versions["prlf-0"], versions["late_fusion-0"]]
    assert [one.replaced for one in promotions] == [None, None]


def test_a_model_may_be_champion_of_several_rates_and_the_baseline_lies_beside_it(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    promote(tracking, make_result("one", WINS, LOSES), folder, name, dry_run=False)
    named = registry.aliases(tracking, name)
    assert named["champion-mr00"] == named["champion-mr30"] != named["baseline"]


def test_a_version_says_in_its_tags_where_it_comes_from(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str, small: Path
) -> None:
    result = make_result("one", WINS, LOSES)
    promote(tracking, result, folder, name, dry_run=False)
    version = registry.version_of(tracking, name, registry.aliases(tracking, name)["champion-mr30"])
    prints = open_dataset(small).fingerprints()
    assert version.run_id == result.parent_run_id
    expected = {
        "study": "one",
        "trial": "prlf-0",
        "arm": "prlf",
        "metric": "mae",
        "seeds": [1],
        "dataset_fingerprint": prints["dataset"],
        "train_fingerprint": prints["train"],
        "valid_fingerprint": prints["valid"],
        "protocol": result.protocol.model_dump(mode="json"),
        "over_seeds": {"mae": {"0.0": {"mean": 1.0, "sd": 0.0}, "0.3": {"mean": 1.1, "sd": 0.0}}},
    }
    assert {key: version.facts[key] for key in expected} == expected


def test_what_an_alias_names_is_the_model_that_was_refitted(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    promote(tracking, make_result("one", WINS, LOSES), folder, name, dry_run=False)
    fetched = locate(tracking, f"models:/{name}@champion-mr30")
    kept = load_model_folder(folder / "refit" / "prlf-0" / "seed-1")
    assert fetched.spec == kept.spec
    assert all((fetched.weights[key] == value).all() for key, value in kept.weights.items())


def test_a_dry_run_decides_alike_and_registers_nothing(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    result = make_result("one", MIXED, LOSES)
    dry = promote(tracking, result, folder, name, dry_run=True)
    assert registry.versions(tracking, name) == []
    assert registry.aliases_if_any(tracking, name) is None
    real = promote(tracking, result, folder, name, dry_run=False)
    assert [one.decision for one in dry] == [one.decision for one in real]
    assert [one.version for one in dry] == [None, None]


def test_where_every_rate_is_held_nothing_is_registered(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    hopeless = {"0.0": 1.5, "0.3": 1.5}
    promotions = promote(tracking, make_result("one", hopeless, hopeless), folder, name, dry_run=False)
    assert {one.decision.decision for one in promotions} == {"hold"}
    assert registry.aliases_if_any(tracking, name) is None


def test_promoting_a_study_twice_changes_nothing_and_says_the_same(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    result = make_result("one", MIXED, LOSES)
    first = promote(tracking, result, folder, name, dry_run=False)
    before = registry.aliases(tracking, name), registry.versions(tracking, name)
    second = promote(tracking, result, folder, name, dry_run=False)
    assert (registry.aliases(tracking, name), registry.versions(tracking, name)) == before
    assert [one.version for one in second] == [one.version for one in first]
    assert [one.decision.decision for one in second] == ["promote", "promote"]


def test_a_better_study_takes_over_and_the_champion_before_it_stays_at_hand(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    old = promote(tracking, make_result("old", WINS, LOSES), folder, name, dry_run=False)
    better_at_one = {"0.0": 0.9, "0.3": 1.15}
    new = promote(tracking, make_result("new", better_at_one, LOSES), folder, name, dry_run=False)
    assert [one.decision.decision for one in new] == ["promote", "hold"]
    assert new[0].replaced == old[0].version
    named = registry.aliases(tracking, name)
    assert named["champion-mr00"] == new[0].version
    assert named["previous-mr00"] == old[0].version
    assert named["champion-mr30"] == old[1].version
    assert "previous-mr30" not in named
    shown = champions(tracking, name)
    assert shown["champions"]["0.0"]["value"] == 0.9
    assert shown["champions"]["0.3"]["study"] == "old"
    assert shown["previous"] == {"0.0": {"version": old[0].version}}


def test_the_same_study_on_other_data_is_another_version(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str
) -> None:
    promote(tracking, make_result("one", WINS, LOSES), folder, name, dry_run=False)
    elsewhere = {"dataset": "d2", "train": "t2", "valid": "v2", "test": "e2"}
    new = promote(tracking, make_result("one", WINS, LOSES, fingerprints=elsewhere), folder, name, dry_run=False)
    assert registry.version_of(tracking, name, str(new[0].version)).facts["valid_fingerprint"] == "v2"


@pytest.mark.parametrize(
    "changes", [{"dataset": "other"}, {"protocol": ProtocolSpec(mask_visible=False, rates=(0.0, 0.3))}]
)
def test_a_name_belongs_to_one_dataset_and_protocol(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str, changes: dict[str, Any]
) -> None:
    promote(tracking, make_result("one", WINS, LOSES), folder, name, dry_run=False)
    before = registry.aliases(tracking, name)
    with pytest.raises(RegistryError, match=r"has champions of another (dataset|ground)"):
        promote(tracking, make_result("two", WINS, LOSES, **changes), folder, name, dry_run=False)
    assert registry.aliases(tracking, name) == before


def test_weights_that_were_changed_since_the_refit_are_never_registered(
    make_result: MakeResult, tracking: Tracking, folder: Path, name: str, tmp_path: Path
) -> None:
    copy = tmp_path / "study"
    shutil.copytree(folder, copy)
    weights = copy / "refit" / "prlf-0" / "seed-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Exception, match="the weights are not the ones described"):
        promote(tracking, make_result("one", WINS, LOSES), copy, name, dry_run=False)
    assert registry.versions(tracking, name) == []
