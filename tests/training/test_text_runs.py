"""Whole runs on token ids, without Ray: learning rates, resuming, model folders, and judging what was saved.

Faked: the pretrained encoder, a BERT of width 16 with random weights; the sink that dies in the middle of an epoch.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.rows import from_rows, to_rows
from gapwise.data.store import Dataset, statistics
from gapwise.errors import CheckpointError, SpecError
from gapwise.models.catalogue import build_model
from gapwise.models.saved import DESCRIPTION, WEIGHTS, load_model_folder, read_tensors, rebuild, save_model
from gapwise.promotion.judge import judge
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import TrainSpec
from gapwise.testing.runs import DyingSink, Interrupted
from gapwise.testing.texts import spoken, tiny_encoder
from gapwise.training.checkpoint import DirectorySink, NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import Job, Trained, whole_job
from gapwise.training.loop import fit
from gapwise.training.optimiser import build_optimiser, set_learning_rate
from gapwise.training.protocols import Position

MODELS = ("late_fusion", "promise", "prlf")
MODES = ("frozen", "prompted", "finetuned")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "encoder")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return spoken(tmp_path_factory.mktemp("spoken") / "d")


def job_of(dataset: Dataset, encoder: Path, model: str, mode: str, **changes: object) -> Job:
    text = {"mode": mode, "path": str(encoder), "lr": 1e-4}
    fields = {
        "model": {
            "name": model,
            "width": 16,
            "heads": 2,
            "depth": 1,
            "summary_tokens": 2,
            "dropout": 0.2,
            "text": text,
        },
        "protocol": {"rates": [0.0, 0.5]},
        "epochs": 2,
        "batch_size": 16,
        "patience": 0,
    }
    spec = TrainSpec.model_validate(fields | changes)
    return whole_job(spec, dataset, statistics(dataset.train))


def weights(trained: Trained) -> list[torch.Tensor]:
    kept = trained.model.state_dict() | trained.state
    return [kept[name] for name in sorted(kept)]


@pytest.mark.parametrize(("model", "mode"), [*((model, "finetuned") for model in MODELS), ("promise", "prompted")])
def test_a_run_killed_in_the_middle_of_an_epoch_continues_to_the_same_weights(dataset, encoder, tmp_path, model, mode):
    job = job_of(dataset, encoder, model, mode)
    before = torch.random.get_rng_state()
    whole = fit(job, NoReporter(), NoSink())
    with pytest.raises(Interrupted):
        fit(job, NoReporter(), DyingSink(tmp_path / "run", job.spec, Position(1, 2)))

    resumed = fit(job, NoReporter(), DirectorySink(tmp_path / "run", job.spec))

    assert [one.cost for one in resumed.history] == [one.cost for one in whole.history]
    for ours, theirs in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(before, torch.random.get_rng_state())


class TestOptimiser:
    def test_a_finetuned_encoder_moves_at_its_own_rate_on_the_common_schedule(self, dataset, encoder):
        job = job_of(dataset, encoder, "late_fusion", "finetuned")
        model = build_model(job.spec.model, job.shape, job.statistics, 0)
        optimiser = build_optimiser(model, job.spec.optimiser)
        names = {id(part): name for name, part in model.named_parameters()}

        set_learning_rate(optimiser, job.spec.optimiser.lr / 2)

        seen = []
        for group in optimiser.param_groups:
            for part in group["params"]:
                name = names[id(part)]
                seen.append(name)
                peak = 1e-4 if ".pretrained." in name else job.spec.optimiser.lr
                assert group["lr"] == pytest.approx(peak / 2)
                assert group["weight_decay"] == (job.spec.optimiser.weight_decay if part.ndim >= 2 else 0.0)
        assert sorted(seen) == sorted(names.values())

    def test_training_changes_a_finetuned_encoder_and_no_frozen_one(self, dataset, encoder):
        changed = {}
        for mode in MODES:
            job = job_of(dataset, encoder, "late_fusion", mode, epochs=1)
            fresh = build_model(job.spec.model, job.shape, job.statistics, job.spec.seed)
            trained = fit(job, NoReporter(), NoSink()).model
            changed[mode] = [
                not torch.equal(*pair) for pair in zip(_pretrained(fresh), _pretrained(trained), strict=True)
            ]

        assert not any(changed["frozen"]) and not any(changed["prompted"])
        assert all(changed["finetuned"])


def _pretrained(model: torch.nn.Module) -> list[torch.Tensor]:
    part = model.encoders.encoders["of_text"].pretrained
    return list(part._held[0].parameters() if hasattr(part, "_held") else part.parameters())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", MODELS)
class TestFolders:
    def saved(self, dataset: Dataset, encoder: Path, model: str, mode: str, folder: Path) -> Trained:
        job = job_of(dataset, encoder, model, mode, epochs=1)
        trained = fit(job, NoReporter(), NoSink())
        save_model(folder, trained_model(job, trained, trained.kept.metrics))
        return trained

    def test_a_saved_model_answers_as_the_trained_one(self, dataset, encoder, tmp_path, model, mode):
        trained = self.saved(dataset, encoder, model, mode, tmp_path / "model")
        loaded = load_model_folder(tmp_path / "model")
        batch = dataset.valid.reading(loaded.shape).batch(np.arange(20))
        rows = from_rows(to_rows(batch), loaded.shape, mask_visible=True)

        with torch.inference_mode():
            theirs = trained.model.predict(batch, trained.state).output
            for asked in (batch, rows):
                ours = rebuild(loaded).predict(asked, loaded.state).output
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

    def test_what_is_judged_again_is_what_validation_said(self, dataset, encoder, tmp_path, model, mode):
        trained = self.saved(dataset, encoder, model, mode, tmp_path / "model")
        loaded = load_model_folder(tmp_path / "model")

        body = judge(loaded, None, dataset, ProtocolSpec(rates=(0.0, 0.5)), split=dataset.valid, mask_seeds=2)

        assert body["rates"]["0.0"]["mae"]["mean"] == pytest.approx(trained.kept.metrics["mae"]["0.0"], abs=1e-5)

    def test_a_frozen_encoder_is_kept_by_path_and_digest_a_finetuned_one_whole(
        self, dataset, encoder, tmp_path, model, mode
    ):
        self.saved(dataset, encoder, model, mode, tmp_path / "model")
        tensors, _ = read_tensors(tmp_path / "model" / WEIGHTS)
        described = json.loads((tmp_path / "model" / DESCRIPTION).read_text())

        assert any(".pretrained." in name for name in tensors) == (mode == "finetuned")
        assert described["spec"]["model"]["text"]["path"] == str(encoder)
        assert described["shape"]["modalities"]["text"]["tokens"]["unknown"] == 1

        other = tiny_encoder(tmp_path / "other", seed=5)
        (other / "model.safetensors").replace(encoder / "model.safetensors")
        loaded = load_model_folder(tmp_path / "model")
        if mode == "finetuned":
            rebuild(loaded)
            return
        with pytest.raises(CheckpointError, match="not the encoder's weights that the model was trained with"):
            rebuild(loaded)
        (encoder / "config.json").unlink()
        with pytest.raises(SpecError, match="no model at"):
            rebuild(loaded)
