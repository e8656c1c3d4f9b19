"""The training loop on the real synthetic `small` dataset, in this process: no Ray.

Faked: the reporter and the sink, to stop runs and to interrupt them at chosen batches.
"""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from gapwise.data.store import open_dataset, statistics
from gapwise.errors import CheckpointError
from gapwise.spec.train import TrainSpec
from gapwise.testing.runs import DyingSink, Interrupted
from gapwise.training.checkpoint import DirectorySink, NoSink
from gapwise.training.job import Diverged, Job, Trained, whole_job
from gapwise.training.loop import fit
from gapwise.training.optimiser import FINAL_SHARE, learning_rate
from gapwise.training.protocols import EpochReport, Position

MODELS = ["late_fusion", "promise", "prlf"]


class Listener:
    def __init__(self, stop_at: int | None = None) -> None:
        self.heard: list[EpochReport] = []
        self._stop_at = stop_at

    def report(self, epoch: EpochReport) -> bool:
        self.heard.append(epoch)
        return epoch.epoch == self._stop_at


def spec_of(model: str, **changes: object) -> TrainSpec:
    fields = {
        "model": {"name": model, "width": 16, "heads": 2, "depth": 1, "summary_tokens": 2, "dropout": 0.2},
        "protocol": {"rates": [0.0, 0.5]},
        "epochs": 3,
        "batch_size": 100,
        "patience": 0,
    }
    return TrainSpec.model_validate(fields | changes)


@pytest.fixture(scope="module")
def job(small: Path) -> Job:
    dataset = open_dataset(small)
    return whole_job(spec_of("late_fusion"), dataset, statistics(dataset.train))


def weights(trained: Trained) -> list[torch.Tensor]:
    kept = trained.model.state_dict() | trained.state
    return [kept[name] for name in sorted(kept)]


@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_in_the_middle_of_an_epoch_continues_to_the_same_weights(
    job: Job, model: str, tmp_path: Path
) -> None:
    job = replace(job, spec=spec_of(model))
    whole = fit(job, Listener(), NoSink())
    with pytest.raises(Interrupted):
        fit(job, Listener(), DyingSink(tmp_path, job.spec, Position(1, 2)))
    listener = Listener()
    resumed = fit(job, listener, DirectorySink(tmp_path, job.spec))
    assert [one.epoch for one in listener.heard] == [2, 3]
    assert [one.cost for one in resumed.history] == [one.cost for one in whole.history]
    assert resumed.history[1].losses == pytest.approx(whole.history[1].losses, abs=1e-6)
    for ours, theirs in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_a_snapshot_carries_the_queue_and_what_is_shipped_does_not(job: Job, tmp_path: Path) -> None:
    job = replace(job, spec=spec_of("promise"))
    with pytest.raises(Interrupted):
        fit(job, Listener(), DyingSink(tmp_path, job.spec, Position(1, 1)))
    snapshot = DirectorySink(tmp_path, job.spec).load()
    assert snapshot is not None
    assert snapshot.tensors["state"]["queue_valid"][0].sum() == len(job.train) + 100
    assert "best_state" not in snapshot.tensors
    assert fit(job, Listener(), NoSink()).state == {}


def test_of_several_workers_one_keeps_snapshots(tmp_path: Path) -> None:
    spec = TrainSpec(checkpoint_every=1, checkpoint_steps=2)
    asked = [Position(0, 2), Position(1, 0)]
    assert [DirectorySink(tmp_path, spec).wants(one) for one in asked] == [True, True]
    assert [DirectorySink(tmp_path, spec, rank=1).wants(one) for one in asked] == [False, False]


def test_a_truncated_snapshot_is_one_clear_error(job: Job, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(job, Listener(), DyingSink(tmp_path, job.spec, Position(1, 0)))
    file = tmp_path / "resume.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"resume\.safetensors: cannot be read"):
        fit(job, Listener(), DirectorySink(tmp_path, job.spec))


def test_the_same_spec_gives_the_same_run_and_another_seed_another(job: Job) -> None:
    first, second = fit(job, Listener(), NoSink()), fit(job, Listener(), NoSink())
    other = fit(replace(job, spec=spec_of("late_fusion", seed=1)), Listener(), NoSink())
    assert [one.losses for one in first.history] == [one.losses for one in second.history]
    assert first.kept.cost != other.kept.cost


def test_training_leaves_the_global_random_state_alone(job: Job) -> None:
    before = torch.random.get_rng_state()
    fit(replace(job, spec=spec_of("prlf", epochs=1)), Listener(), NoSink())
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_kept_weights_are_those_of_the_best_validation_epoch(job: Job) -> None:
    trained = fit(replace(job, spec=spec_of("late_fusion", epochs=6)), Listener(), NoSink())
    best = min(trained.history, key=lambda one: one.cost)
    assert trained.kept.epoch == best.epoch
    assert trained.history[-1].best_cost == best.cost


def test_patience_ends_a_run_that_no_longer_improves(job: Job) -> None:
    frozen = spec_of("late_fusion", epochs=20, patience=2, optimiser={"lr": 1e-12})
    trained = fit(replace(job, spec=frozen), Listener(), NoSink())
    assert len(trained.history) <= 6
    assert not trained.stopped


def test_the_reporter_can_stop_a_run(job: Job) -> None:
    trained = fit(job, Listener(stop_at=2), NoSink())
    assert trained.stopped
    assert len(trained.history) == 2


def test_a_refit_trains_every_epoch_and_keeps_the_last(job: Job) -> None:
    frozen = spec_of("late_fusion", epochs=6, patience=1, optimiser={"lr": 1e-12})
    stopped = fit(replace(job, spec=frozen), Listener(), NoSink())
    refitted = fit(replace(job, spec=frozen, keep_last=True), Listener(), NoSink())
    assert stopped.kept.epoch < len(stopped.history) < 6, "validation ends the one"
    assert refitted.kept.epoch == len(refitted.history) == 6, "and not the other"


def test_a_loss_that_is_not_finite_fails_the_run(job: Job) -> None:
    class Broken(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *batch: object) -> object:
            loss = self.model(*batch)
            return loss._replace(total=loss.total * math.nan)

    with pytest.raises(Diverged, match="not finite after epoch 1"):
        fit(replace(job, wrap=Broken), Listener(), NoSink())


def test_learning_rate_warms_up_to_the_peak_and_falls_to_a_tenth() -> None:
    spec = spec_of("late_fusion").optimiser
    rates = [learning_rate(spec, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(spec.lr / 10)
    assert max(rates) == pytest.approx(spec.lr)
    assert rates[-1] == pytest.approx(spec.lr * FINAL_SHARE, rel=0.02)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
