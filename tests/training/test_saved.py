"""Model folders on disk: what is written can be read, and nothing else is. No Ray, no MLflow."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.store import open_dataset, statistics
from gapwise.errors import CheckpointError
from gapwise.models.saved import DESCRIPTION, WEIGHTS, load_model_folder, rebuild, save_model
from gapwise.spec.train import TrainSpec
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

REDUCED = {"name": "prlf", "encoder": "statistics", "components": 3, "readout": "experts"}
"""Rests on directions and label values that were found in the training data."""


@pytest.fixture(
    scope="module",
    params=[{"name": "late_fusion"}, {"name": "promise"}, {"name": "prlf"}, REDUCED],
    ids=["late_fusion", "promise", "prlf", "reduced"],
)
def saved(request: pytest.FixtureRequest, small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    dataset = open_dataset(small)
    model = {**request.param, "width": 16, "heads": 2, "depth": 1, "summary_tokens": 2}
    spec = TrainSpec.model_validate({"model": model, "protocol": {"rates": [0.0]}, "epochs": 1, "batch_size": 200})
    job = whole_job(spec, dataset, statistics(dataset.train))
    trained = fit(job, NoReporter(), NoSink())
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, trained_model(job, trained, trained.kept.metrics))
    return folder, trained


def test_a_saved_model_answers_as_the_trained_one(saved: tuple[Path, object], small: Path) -> None:
    folder, trained = saved
    batch = open_dataset(small).valid.batch(np.arange(20))
    loaded = load_model_folder(folder)
    with torch.inference_mode():
        ours = rebuild(loaded).predict(batch, loaded.state).output
        theirs = trained.model.predict(batch, trained.state).output
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # memory alignment changes the last bits


def test_a_saved_model_keeps_what_it_was_trained_on(saved: tuple[Path, object], small: Path) -> None:
    dataset = open_dataset(small)
    loaded = load_model_folder(saved[0])
    assert loaded.fingerprints["train"] == dataset.manifest.splits["train"].fingerprint
    assert loaded.shape == dataset.manifest.shape()
    moments = statistics(dataset.train).modalities["text"]
    np.testing.assert_array_equal(loaded.statistics.modalities["text"].mean, moments.mean)


def test_nothing_but_safetensors_and_json_is_written(saved: tuple[Path, object]) -> None:
    assert sorted(file.name for file in saved[0].iterdir()) == [DESCRIPTION, WEIGHTS]
    assert [entry.name for entry in saved[0].parent.iterdir()] == ["model"]


def test_diagnostics_are_kept_and_an_older_folder_has_none(saved: tuple[Path, object], tmp_path: Path) -> None:
    said = {"dominant_none": {"0.0": 0.25}}
    save_model(tmp_path / "model", load_model_folder(saved[0])._replace(diagnostics=said))
    assert load_model_folder(tmp_path / "model").diagnostics == said

    described = json.loads((tmp_path / "model" / DESCRIPTION).read_text())
    del described["diagnostics"]
    (tmp_path / "model" / DESCRIPTION).write_text(json.dumps(described))
    assert load_model_folder(tmp_path / "model").diagnostics == {}


def _copy(folder: Path, into: Path) -> Path:
    into.mkdir()
    for file in folder.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    return into


def test_weights_that_are_not_those_described_are_refused(saved: tuple[Path, object], tmp_path: Path) -> None:
    broken = _copy(saved[0], tmp_path / "broken")
    content = bytearray((broken / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (broken / WEIGHTS).write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="not the ones described"):
        load_model_folder(broken)


def test_a_newer_format_is_refused(saved: tuple[Path, object], tmp_path: Path) -> None:
    newer = _copy(saved[0], tmp_path / "newer")
    described = json.loads((newer / DESCRIPTION).read_text())
    (newer / DESCRIPTION).write_text(json.dumps(described | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="model format 99"):
        load_model_folder(newer)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no readable model here"):
        load_model_folder(tmp_path)
