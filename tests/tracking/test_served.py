"""A registered model in a fresh process, as a consumer has it: `mlflow.pyfunc.load_model`, table rows in, answers out.

Faked: nothing but the size. The model is trained for one epoch and registered in a SQLite store; the rows are those of
the masked validation split. The other process gets the rows in a pickle that this test wrote, and may itself load no
pickled model: MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from gapwise.data.batch import hide
from gapwise.data.loading import as_tensors, samples_of
from gapwise.data.manifest import write_manifest
from gapwise.data.protocols import build_protocol
from gapwise.data.rows import to_rows
from gapwise.data.store import Dataset, open_dataset, statistics
from gapwise.models.saved import ModelFolder, load_model_folder, save_model
from gapwise.promotion.judge import judge
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.tracking import registering, registry
from gapwise.tracking.client import Tracking, connect, experiment_id
from gapwise.tracking.runs import start_run
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

pytestmark = pytest.mark.slow

MASK_SEEDS = 2
CONSUMER = """
import json, pickle, sys
import mlflow.pyfunc
frames = pickle.load(open(sys.argv[2], "rb"))
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = {}
for name, frame in frames.items():
    try:
        answers[name] = model.predict(frame)["prediction"].tolist()
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


class Registered(NamedTuple):
    tracking: Tracking
    model: ModelFolder
    folder: Path
    dataset: Dataset


@pytest.fixture(scope="module")
def registered(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Registered:
    dataset = open_dataset(small)
    model = {"name": "promise", "width": 8, "heads": 2, "depth": 1, "summary_tokens": 1}
    fields = {"model": model, "protocol": {"rates": [0.0, 0.3, 0.9]}, "epochs": 1, "batch_size": 400}
    job = whole_job(TrainSpec.model_validate(fields), dataset, statistics(dataset.train))
    trained = fit(job, NoReporter(), NoSink())
    folder = tmp_path_factory.mktemp("refit") / "model"
    save_model(folder, trained_model(job, trained, trained.kept.metrics))
    home = Home(tmp_path_factory.mktemp("home"))
    tracking = connect(home)
    run = start_run(tracking, experiment_id(tracking, home, "small"), "one", tags={})
    made = registering.register(tracking, "small", folder, run_id=run, facts={"trial": "promise-0"})
    registry.set_alias(tracking, "small", "champion-mr30", made.version)
    return Registered(tracking, load_model_folder(folder), folder, dataset)


def consume(registered: Registered, frames: dict[str, pd.DataFrame], work: Path) -> Any:
    (work / "rows.pkl").write_bytes(pickle.dumps(frames))
    environment = {
        "MLFLOW_TRACKING_URI": registered.tracking.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", CONSUMER, "models:/small@champion-mr30", "rows.pkl"]
    return subprocess.run(
        command, cwd=work, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )


def masked_rows(registered: Registered, rate: str, mask_seed: int) -> pd.DataFrame:
    protocol, valid = registered.model.spec.protocol, registered.dataset.valid
    whole = valid.batch(np.arange(len(valid)))
    samples = samples_of(valid.keys, whole)
    masks = build_protocol(protocol).evaluation(samples, split="valid", mask_seed=mask_seed)[rate]
    return pd.DataFrame(to_rows(hide(whole, as_tensors(masks), mask_visible=protocol.mask_visible)))


def tables(registered: Registered) -> dict[str, pd.DataFrame]:
    frames = {
        f"{rate} {seed}": masked_rows(registered, rate, seed)
        for rate in ("0.0", "0.3", "0.9")
        for seed in range(1, MASK_SEEDS + 1)
    }
    few = frames["0.0 1"].head(4)
    names = list(few.columns)
    return frames | {
        "few": few,
        "reordered": few[names[::-1]],
        "null": few.assign(**{names[0]: None}),
        "without the column": few.drop(columns=names[0]),
        "unknown column": few.assign(smell=[1.0] * 4),
        "wrong width": few.assign(**{names[0]: [[[1.0, 2.0]]] * 4}),
        "lists": few.map(lambda cell: cell.astype(float).tolist()),
    }


@pytest.fixture(scope="module")
def answers(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One fresh process for all tables: its start is what takes the time."""
    ended = consume(registered, tables(registered), tmp_path_factory.mktemp("consumer"))
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("rate", ["0.0", "0.3", "0.9"])
def test_a_fresh_process_reproduces_what_evaluate_says(
    registered: Registered, answers: dict[str, Any], rate: str
) -> None:
    valid, protocol = registered.dataset.valid, registered.model.spec.protocol
    said = judge(registered.model, None, registered.dataset, protocol, split=valid, mask_seeds=MASK_SEEDS)
    errors = [np.abs(np.array(answers[f"{rate} {seed}"]) - valid.labels).mean() for seed in range(1, MASK_SEEDS + 1)]
    assert float(np.mean(errors)) == pytest.approx(said["rates"][rate]["mae"]["mean"], abs=1e-4)


def test_the_order_of_columns_does_not_matter_and_lists_are_as_good_as_arrays(answers: dict[str, Any]) -> None:
    assert answers["reordered"] == pytest.approx(answers["few"], abs=1e-6)
    assert answers["lists"] == pytest.approx(answers["few"], abs=1e-6)


def test_a_null_modality_is_a_missing_one_and_so_is_a_column_that_is_not_there(answers: dict[str, Any]) -> None:
    assert np.isfinite(answers["null"]).all()
    assert answers["null"] == pytest.approx(answers["without the column"], abs=1e-6)
    assert answers["null"] != pytest.approx(answers["few"], abs=1e-6)


def test_a_column_that_the_signature_does_not_know_is_dropped_by_mlflow(answers: dict[str, Any]) -> None:
    assert answers["unknown column"] == pytest.approx(answers["few"], abs=1e-6)


def test_frames_of_another_width_are_refused_naming_row_and_modality(answers: dict[str, Any]) -> None:
    assert answers["wrong width"].startswith("DataError: row 0, ")
    assert "2 features a frame" in answers["wrong width"]


def test_weights_that_were_tampered_with_are_refused_when_the_model_is_loaded(
    registered: Registered, tmp_path: Path
) -> None:
    client = registered.tracking.client
    version = client.get_model_version_by_alias("small", "champion-mr30")
    stored = Path(version.source.removeprefix("file://")) / "artifacts" / "model" / "model.safetensors"
    whole = stored.read_bytes()
    try:
        stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        ended = consume(registered, {}, tmp_path)
    finally:
        stored.write_bytes(whole)
    assert ended.returncode != 0
    assert "the weights are not the ones described" in ended.stderr


def test_nothing_pickled_is_stored_with_a_registered_model(registered: Registered) -> None:
    version = registered.tracking.client.get_model_version_by_alias("small", "champion-mr30")
    stored = Path(version.source.removeprefix("file://"))
    endings = {file.suffix for file in stored.rglob("*") if file.is_file()}
    assert endings <= {"", ".py", ".json", ".yaml", ".yml", ".txt", ".safetensors", ".zip"}
    for archive in stored.rglob("*.zip"):
        assert {Path(name).suffix for name in zipfile.ZipFile(archive).namelist()} == {".py"}


def test_a_model_is_not_judged_on_data_of_another_kind(registered: Registered, tmp_path: Path) -> None:
    manifest = registered.dataset.manifest
    shutil.copytree(registered.dataset.folder, tmp_path / "other")
    first = sorted(manifest.modalities)[0]
    wider = manifest.modalities[first].model_copy(update={"dim": manifest.modalities[first].dim + 1})
    changed = manifest.model_copy(update={"modalities": {**manifest.modalities, first: wider}})
    write_manifest(changed, tmp_path / "other")
    other = open_dataset(tmp_path / "other")
    with pytest.raises(Exception, match=r"regression on .*allowed: the model's regression on "):
        judge(
            registered.model,
            None,
            other,
            registered.model.spec.protocol,
            split=registered.dataset.valid,
            mask_seeds=1,
        )
