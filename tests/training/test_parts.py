"""Batches in parts: the cut itself, and runs on the real synthetic `small` dataset, in this process.

Faked: nothing. Two real workers under gloo are in `tests/models/test_two_workers.py`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.store import open_dataset
from gapwise.models.catalogue import MODELS
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.train import TrainSpec
from gapwise.testing.runs import DyingSink, Interrupted, job_on, tiny_spec, trained_on
from gapwise.training.checkpoint import DirectorySink, NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.job import Trained
from gapwise.training.loop import fit
from gapwise.training.parts import in_parts, smaller
from gapwise.training.protocols import Position


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("most", [None, 1, 2, 3, 4, 50])
@pytest.mark.parametrize("samples", [3, 9, 10, 41])
def test_parts_cover_every_share_once_and_no_worker_is_left_out(samples: int, most: int | None, world: int) -> None:
    rows = [np.arange(rank, samples, world) for rank in range(world)]
    cut = [in_parts(samples, (rank, world), most) for rank in range(world)]
    assert len({len(parts) for parts in cut}) == 1
    for own, parts in zip(rows, cut, strict=True):
        assert np.concatenate([own[part.rows] for part in parts]).tolist() == own.tolist()
    for index in range(len(cut[0])):
        sizes = [len(own[parts[index].rows]) for own, parts in zip(rows, cut, strict=True)]
        assert min(sizes) >= 1
        assert cut[0][index].weight == sum(sizes) / samples
        assert most is None or max(sizes) <= most + (world > 1)
    assert sum(part.weight for part in cut[0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "world", "next_one"),
    [(64, None, 1, 16), (64, None, 2, 8), (64, 16, 1, 4), (8, 64, 1, 2), (64, 3, 1, 1), (64, 1, 1, None)],
)
def test_a_retry_passes_a_quarter_of_the_samples(
    batch_size: int, micro_batch: int | None, world: int, next_one: int | None
) -> None:
    assert smaller(TrainSpec(batch_size=batch_size, micro_batch=micro_batch), world) == next_one


def test_a_whole_batch_goes_unsaid_so_that_older_runs_keep_their_fingerprint() -> None:
    assert "micro_batch" not in TrainSpec().model_dump(mode="json")
    assert TrainSpec(micro_batch=8).model_dump()["micro_batch"] == 8
    assert TrainSpec.model_validate(TrainSpec(micro_batch=8).model_dump()) == TrainSpec(micro_batch=8)
    assert fingerprint(TrainSpec()) == "e852153e4c17b5adff50330627f0e3a1aaf6f57c7ac9a150d1948fa839efdf6a"
    assert fingerprint(TrainSpec(micro_batch=8)) != fingerprint(TrainSpec())


def quiet(model: str) -> TrainSpec:
    """Without dropout, whose noise is drawn part by part."""
    spec = tiny_spec(model, batch_size=100, protocol={"rates": [0.0, 0.5]})
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dropout": 0.0})})


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.model.state_dict())


def largest_difference(one: Trained, other: Trained) -> float:
    return max(float((weights(one)[name] - value).abs().max()) for name, value in weights(other).items())


@pytest.mark.parametrize("model", MODELS)
def test_a_run_in_parts_is_the_run_of_whole_batches_just_where_the_loss_is_separable(small: Path, model: str) -> None:
    dataset = open_dataset(small)
    _, whole = trained_on(dataset, quiet(model))
    _, parts = trained_on(dataset, quiet(model).model_copy(update={"micro_batch": 30}))
    figures = [[epoch.cost, *epoch.losses.values()] for epoch in parts.history]
    same = figures == [pytest.approx([epoch.cost, *epoch.losses.values()], rel=1e-6) for epoch in whole.history]
    assert same == MODELS[model].separable


@pytest.mark.parametrize("model", MODELS)
def test_a_run_in_parts_that_was_killed_goes_on_to_the_same_weights(small: Path, model: str, tmp_path: Path) -> None:
    job = job_on(open_dataset(small), tiny_spec(model, batch_size=100, micro_batch=30, protocol={"rates": [0.0, 0.5]}))
    whole = fit(job, NoReporter(), NoSink())
    with pytest.raises(Interrupted):
        fit(job, NoReporter(), DyingSink(tmp_path, job.spec, Position(1, 2)))
    assert largest_difference(fit(job, NoReporter(), DirectorySink(tmp_path, job.spec)), whole) == 0.0


def test_no_pass_is_larger_than_the_micro_batch_in_validation_neither(small: Path) -> None:
    job = job_on(open_dataset(small), tiny_spec("late_fusion", epochs=1, micro_batch=7))
    sizes: list[int] = []

    def watch(model: torch.nn.Module) -> torch.nn.Module:
        model.encoders.register_forward_pre_hook(lambda _, views: sizes.append(views[0].size))
        return model

    fit(replace(job, wrap=watch), NoReporter(), NoSink())
    assert max(sizes) == 7
