"""The router in a fresh process: `mlflow.pyfunc.load_model` of `models:/NAME-router@champion`, rows in, answers out.

Faked: nothing but the size. Two versions of one model that was trained for one epoch serve two rates.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest

from gapwise.data.batch import hide
from gapwise.data.loading import as_tensors, samples_of
from gapwise.data.missing_rate import missing_rates
from gapwise.data.protocols import build_protocol
from gapwise.data.rows import from_rows, to_rows
from gapwise.data.store import Dataset, open_dataset, statistics
from gapwise.errors import CheckpointError, RegistryError
from gapwise.models.saved import ModelFolder, save_model
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.testing.datasets import in_classes, small_splits, write
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.tracking import registering, registry
from gapwise.tracking.client import Tracking, connect, experiment_id
from gapwise.tracking.router import Router
from gapwise.tracking.router_model import ensure_router
from gapwise.tracking.runs import start_run
from gapwise.tracking.served import answering
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

pytestmark = pytest.mark.slow

CONSUMER = """
import json, sys
import mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model("models:/small-router@champion")
for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = model.predict(pd.DataFrame(asked)).to_dict("list")
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print("ANSWER " + json.dumps(answer), flush=True)
"""


class Routed(NamedTuple):
    tracking: Tracking
    model: ModelFolder
    dataset: Dataset
    low: str
    """Serves 0.0."""
    high: str
    """Serves 0.6."""


@pytest.fixture(scope="module")
def routed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Routed:
    dataset = open_dataset(small)
    fields = {"model": {"name": "late_fusion", "width": 8, "heads": 2, "depth": 1}, "epochs": 1, "batch_size": 400}
    job = whole_job(TrainSpec.model_validate(fields), dataset, statistics(dataset.train))
    trained = fit(job, NoReporter(), NoSink())
    model = trained_model(job, trained, trained.kept.metrics)
    home = Home(tmp_path_factory.mktemp("home"))
    tracking = connect(home)
    run = start_run(tracking, experiment_id(tracking, home, "small"), "one", tags={})
    versions = []
    for number, rate in enumerate(("0.0", "0.6")):
        folder = tmp_path_factory.mktemp("refit") / f"{number}" / "model"
        save_model(folder, model)
        made = registering.register(tracking, "small", folder, run_id=run, facts={"number": number})
        registry.set_alias(tracking, "small", f"champion-mr{round(100 * float(rate)):02d}", made.version)
        versions.append(made.version)
    ensure_router(tracking, "small")
    ensure_router(tracking, "small")
    return Routed(tracking, model, dataset, *versions)


def rows(routed: Routed, rate: str, count: int = 20) -> dict[str, list[Any]]:
    """Validation samples with frames missing, each as long as it really is: a missing frame is null."""
    protocol, valid = routed.model.spec.protocol, routed.dataset.valid
    whole = valid.batch(np.arange(count))
    masks = build_protocol(protocol).evaluation(samples_of(valid.keys[:count], whole), split="valid", mask_seed=1)[rate]
    columns = to_rows(hide(whole, as_tensors(masks), mask_visible=True))
    return {
        name: [_as_json(cell, int(length)) for cell, length in zip(column, valid.lengths[name][:count], strict=True)]
        for name, column in columns.items()
    }


def _as_json(cell: Any, length: int) -> list[list[float] | None] | None:
    frames = [] if cell is None else [None if np.isnan(frame).all() else frame.tolist() for frame in cell]
    return [*frames, *[None] * (length - len(frames))] or None


@pytest.fixture(scope="module")
def answers(routed: Routed) -> dict[str, Any]:
    whole = rows(routed, "0.0", 4)
    names = list(whole)
    asked: dict[str, Any] = {
        "nothing missing": whole,
        "much missing": rows(routed, "0.7"),
        "one modality": {names[0]: whole[names[0]]},
        "none": {name: [None] * 2 for name in names},
        "told": {**whole, "missing_rate": [0.9, None, 0.0, 0.5]},
    }
    environment = {"MLFLOW_TRACKING_URI": routed.tracking.uri, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", CONSUMER],
        input="".join(json.dumps(one) + "\n" for one in asked.values()),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    lines = [line.removeprefix("ANSWER ") for line in ended.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(lines) == len(asked), ended.stderr
    return {name: json.loads(line) for name, line in zip(asked, lines, strict=True)}


def test_each_row_goes_to_the_champion_of_the_nearest_rate_and_the_answer_says_which(
    routed: Routed, answers: dict[str, Any]
) -> None:
    assert set(answers["nothing missing"]["version"]) == {routed.low}
    assert answers["nothing missing"]["missing_rate"] == [0.0] * 4
    versions, rates = answers["much missing"]["version"], answers["much missing"]["missing_rate"]
    assert versions == [routed.high if rate >= 0.3 else routed.low for rate in rates]
    assert np.mean(rates) == pytest.approx(0.7, abs=0.1)
    assert np.isfinite(answers["much missing"]["prediction"]).all()


def test_a_row_may_say_its_rate_itself(routed: Routed, answers: dict[str, Any]) -> None:
    told = answers["told"]
    assert told["version"] == [routed.high, routed.low, routed.low, routed.high]
    assert told["missing_rate"] == [0.9, 0.0, 0.0, 0.5]


def test_with_nothing_at_all_the_champion_of_the_most_missing_answers(routed: Routed, answers: dict[str, Any]) -> None:
    assert answers["none"]["version"] == [routed.high] * 2
    assert answers["none"]["missing_rate"] == [1.0] * 2
    assert np.isfinite(answers["none"]["prediction"]).all()


def test_an_absent_column_is_a_missing_modality(routed: Routed, answers: dict[str, Any]) -> None:
    modalities = len(routed.model.shape.modalities)
    assert answers["one modality"]["missing_rate"] == [pytest.approx(1 - 1 / modalities, abs=1e-4)] * 4


def test_rates_are_estimated_from_what_is_missing(routed: Routed) -> None:
    for rate in ("0.0", "0.3", "0.9"):
        batch = from_rows(rows(routed, rate, 100), routed.model.shape, mask_visible=False)
        assert missing_rates(batch, routed.model.shape).mean().item() == pytest.approx(float(rate), abs=0.06)


def test_the_tensor_path_answers_as_the_rows_do(routed: Routed) -> None:
    router, valid = Router(routed.tracking, "small"), routed.dataset.valid
    assert router.champions() == {"0.0": routed.low, "0.6": routed.high}
    whole = valid.batch(np.arange(20))
    told = np.where(np.arange(20) % 3 == 0, 0.9, np.nan)
    tensors = router.answer(whole, told)
    rowwise = router.answer_rows(to_rows(whole), told)
    assert tensors.versions.tolist() == [routed.high if row % 3 == 0 else routed.low for row in range(20)]
    assert (tensors.versions.tolist(), tensors.rates.tolist()) == (rowwise.versions.tolist(), rowwise.rates.tolist())
    assert tensors.predictions == pytest.approx(rowwise.predictions, abs=1e-5)
    lone = router.answer(whole, np.full(20, 0.9))
    assert tensors.predictions[::3] == pytest.approx(lone.predictions[::3], abs=1e-6)


def test_classes_are_routed_like_scores(tmp_path: Path) -> None:
    sizes = {"train": 96, "valid": 40, "test": 20}
    dataset = write(in_classes(small_splits(sizes)), tmp_path / "signs", task="classification")
    job, trained = trained_on(dataset, tiny_spec("prlf"))
    folder = tmp_path / "refit" / "model"
    save_model(folder, trained_model(job, trained, trained.kept.metrics))
    home = Home(tmp_path / "home")
    tracking = connect(home)
    run = start_run(tracking, experiment_id(tracking, home, "signs"), "one", tags={})
    made = registering.register(tracking, "signs", folder, run_id=run, facts={})
    registry.set_alias(tracking, "signs", "champion-mr30", made.version)
    ensure_router(tracking, "signs")
    batch = dataset.valid.batch(np.arange(12))
    lists = {name: [cell.tolist() for cell in column] for name, column in to_rows(batch).items()}
    found = mlflow.pyfunc.load_model("models:/signs-router@champion").predict(pd.DataFrame(lists))
    expected = answering(folder).answer(batch)
    assert found["prediction"].tolist() == expected.tolist() and set(expected.tolist()) <= {0, 1, 2}
    assert Router(tracking, "signs").answer(batch).predictions.tolist() == expected.tolist()
    assert set(found["version"]) == {made.version}


def test_a_model_that_answers_otherwise_than_when_it_was_registered_is_refused(routed: Routed, tmp_path: Path) -> None:
    folder = registry.download(routed.tracking, "models:/small@champion-mr00", tmp_path)
    answering(folder)
    golden = folder / "golden.json"
    kept = json.loads(golden.read_text())["outputs"]
    assert len(kept) == 4 and len({round(value, 6) for value in kept}) > 1
    golden.write_text(json.dumps({"outputs": [kept[0] + 0.1, *kept[1:]]}))
    with pytest.raises(CheckpointError, match=r"answers otherwise than when it was registered, by up to 0\.1"):
        answering(folder)


def test_an_artifact_that_was_changed_is_refused_by_name_before_it_is_read(routed: Routed, tmp_path: Path) -> None:
    version = registry.version_of(routed.tracking, "small", routed.low)
    artifacts = Path(routed.tracking.client.get_run(version.run_id).info.artifact_uri.removeprefix("file://"))
    (weights,) = artifacts.glob("models/0-*/artifacts/model/model.safetensors")
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + b"\x01")
        with pytest.raises(
            RegistryError, match=r"artifacts/model/model.safetensors was changed since it was registered"
        ):
            registry.download(routed.tracking, "models:/small@champion-mr00", tmp_path)
    finally:
        weights.write_bytes(before)
