"""Ray Train for real, on one session-wide local cluster: worker counts, resuming, and the user's errors.

Nothing is faked. Tiny models, one or two epochs, dropout 0 where runs are compared.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gapwise.data.store import open_dataset
from gapwise.data.synth import synthesise
from gapwise.distributed.launch import run_workers
from gapwise.distributed.progress import told
from gapwise.distributed.train import MODEL, PROGRESS, check_train, train_run, train_worker
from gapwise.errors import CheckpointError, DataError, SpecError
from gapwise.evaluation.objective import settled
from gapwise.models.saved import ModelFolder, load_model_folder
from gapwise.spec.train import TrainSpec
from gapwise.testing.runs import trained_on
from gapwise.training.checkpoint import trained_model
from gapwise.training.validation import diagnostic_curves

pytestmark = pytest.mark.ray
MODELS = ("late_fusion", "promise", "prlf")


def spec_of(model: str, **changes: Any) -> TrainSpec:
    fields = {
        "model": {"name": model, "width": 16, "heads": 2, "depth": 1, "summary_tokens": 2, "dropout": 0.0},
        "protocol": {"rates": [0.0, 0.5]},
        "epochs": 2,
        "batch_size": 130,
        "patience": 0,
    }
    return TrainSpec.model_validate(fields | changes)


def run(spec: TrainSpec, data: Path, folder: Path, workers: int) -> tuple[ModelFolder, list[dict[str, Any]]]:
    epochs: list[dict[str, Any]] = []
    model = train_run(spec, data, folder, workers=workers, each_epoch=epochs.append)
    return model, epochs


def alone(spec: TrainSpec, data: Path) -> tuple[ModelFolder, dict[str, float]]:
    """The same training in this process, and the losses of its last epoch."""
    dataset = open_dataset(data)
    job, trained = trained_on(dataset, settled(spec, dataset.manifest.shape(), dataset.valid.labels))
    model = trained_model(job, trained, trained.kept.metrics)
    return model._replace(diagnostics=diagnostic_curves(job, trained)), trained.history[-1].losses


@pytest.mark.slow
def test_two_workers_train_what_one_process_trains(ray_cluster: None, small: Path, tmp_path: Path) -> None:
    """One model after the other in one Ray Train run, whose start takes longer than all of them."""

    def each(config: dict[str, Any]) -> None:
        for one in config["runs"]:
            train_worker(one)

    dataset, folders = open_dataset(small), {model: tmp_path / model for model in MODELS}
    where = {"data": str(small), "fingerprint": dataset.manifest.fingerprint}
    specs = {model: settled(spec_of(model), dataset.manifest.shape(), dataset.valid.labels) for model in MODELS}
    runs = [{"spec": specs[model], "folder": str(folder), **where} for model, folder in folders.items()]
    run_workers(each, {"runs": runs}, workers=2, name="each", storage=tmp_path / "ray")
    for model, folder in folders.items():
        two, epochs = load_model_folder(folder / MODEL), told(folder / PROGRESS)
        one, losses = alone(spec_of(model), small)
        assert epochs[-1]["losses"] == pytest.approx(losses, abs=1e-4)
        assert bool(one.diagnostics) == (model != "late_fusion"), "rank 0 answers for all rows"
        check_alike(two, one)


def check_alike(two: ModelFolder, one: ModelFolder) -> None:
    for metric, curve in one.validation.items():
        assert curve == pytest.approx(two.validation[metric], abs=1e-2 if metric != "mae" else 1e-3)
    assert set(two.diagnostics) == set(one.diagnostics)
    for name, weight in one.weights.items():
        torch.testing.assert_close(two.weights[name], weight, rtol=1e-3, atol=2e-4)
    for name, value in one.state.items():
        torch.testing.assert_close(two.state[name], value, rtol=1e-3, atol=1e-3)


def test_a_run_is_reported_epoch_by_epoch_and_leaves_a_model(ray_cluster: None, small: Path, tmp_path: Path) -> None:
    model, epochs = run(spec_of("late_fusion"), small, tmp_path / "run", 1)
    here, losses = alone(spec_of("late_fusion"), small)
    assert epochs[-1]["losses"] == pytest.approx(losses, abs=1e-6)
    for name, weight in here.weights.items():
        torch.testing.assert_close(model.weights[name], weight, rtol=1e-6, atol=1e-7)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert model.trained["epochs"] == 2
    assert not list((tmp_path / "run").glob("resume*"))


def test_what_cannot_be_continued_is_refused_before_anything_is_written(small: Path, tmp_path: Path) -> None:
    dataset = open_dataset(small)
    spec = settled(spec_of("late_fusion"), dataset.manifest.shape(), dataset.valid.labels)
    synthesise("small", tmp_path / "other", 1)
    folder = tmp_path / "run"
    with pytest.raises(CheckpointError, match="there is no run to continue"):
        check_train(spec, dataset, workers=1, resume=folder)
    folder.mkdir()
    record = {"spec": spec.model_dump(mode="json"), "dataset": dataset.manifest.fingerprint}
    (folder / "run.json").write_text(json.dumps(record))
    check_train(spec, dataset, workers=1, resume=folder)
    with pytest.raises(CheckpointError, match="another spec"):
        check_train(spec_of("late_fusion", seed=5), dataset, workers=1, resume=folder)
    with pytest.raises(CheckpointError, match="another dataset"):
        check_train(spec, open_dataset(tmp_path / "other"), workers=1, resume=folder)
    (folder / "model").mkdir()
    with pytest.raises(CheckpointError, match="this run is finished"):
        check_train(spec, dataset, workers=1, resume=folder)
    with pytest.raises(SpecError, match="200 workers leave one without samples"):
        check_train(spec, dataset, workers=200, resume=None)


def test_a_users_error_in_a_worker_stays_a_users_error(ray_cluster: None, small: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in small.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "dataset.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(DataError, match="99"):
        run(spec_of("late_fusion"), broken, tmp_path / "run", 1)
