"""The compiled step of a fused group: what it comes to, when it is compiled, and what happens where it cannot be.

Faked: the back end, which compiles nothing, so that only what torch traces and guards is real, and how long compiling
takes; one test has the real one.
"""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gapwise.data.store import Dataset, statistics
from gapwise.spec.train import TrainSpec
from gapwise.testing.datasets import small_splits, write
from gapwise.testing.runs import TINY
from gapwise.training.checkpoint import NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.fused import epochs, program
from gapwise.training.fused.group import FusedGroup
from gapwise.training.fused.program import Mode
from gapwise.training.job import Job, Trained, whole_job

JobOf = Callable[..., Job]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    sizes = {"train": 100, "valid": 40, "test": 20}  # the last batch is smaller
    return write(small_splits(sizes), tmp_path_factory.mktemp("program") / "small")


@pytest.fixture
def job_of(dataset: Dataset) -> JobOf:
    moments = statistics(dataset.train)

    def made(model: str, seed: int, **changes: Any) -> Job:
        fields = {"model": {**TINY, "name": model, "dropout": 0.1}, "protocol": {"rates": [0.0, 0.5]}, "epochs": 3}
        fields |= {"batch_size": 32, "patience": 0, "seed": seed}
        return whole_job(TrainSpec.model_validate(fields | changes), dataset, moments)

    return made


class Backend:
    """Runs what was traced as it is; counts the forward and backward programs that it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.common import aot_autograd

        self.asked += 1
        return aot_autograd(fw_compiler=lambda traced, _: traced.forward)(graph, inputs)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    made = Backend()
    monkeypatch.setattr(program, "_BACKEND", made)
    torch._dynamo.reset()  # torch keeps what other tests compiled of the same function
    return made


def trained(jobs: list[Job], compiles: Mode) -> dict[str, Trained]:
    """Three at once; whoever ends makes room for the next."""
    group, ended, waiting = FusedGroup(compiles=compiles), {}, dict(enumerate(jobs))
    while waiting or group.names:
        while waiting and len(group.names) < 3:
            number = min(waiting)
            group.admit(str(number), waiting.pop(number), NoReporter(), NoSink())
        for name, outcome in group.step_epoch():
            assert isinstance(outcome, Trained), outcome
            ended[name] = outcome
    return ended


def curves(found: dict[str, Trained]) -> dict[str, list[float]]:
    return {name: [one.losses["total"] for one in run.history] for name, run in found.items()}


@pytest.mark.parametrize("model", ["late_fusion", "prlf", "promise"])
def test_one_program_serves_trials_that_come_and_go_and_trains_what_is_trained_without(
    job_of: JobOf, backend: Backend, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(epochs, "MASKED_FRAMES", 1)  # a window of batches is one: strides are those of longer tensors
    jobs = [job_of(model, seed, epochs=2 + seed % 2) for seed in range(5)]
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = trained(jobs, True)
    assert backend.asked == 1
    expected = curves(trained(jobs, False))
    for name, curve in curves(found).items():
        assert curve == pytest.approx(expected[name], rel=1e-3), name


@pytest.mark.slow
def test_the_real_compiler_comes_to_the_same(job_of: JobOf) -> None:
    jobs = [job_of("late_fusion", seed) for seed in range(3)]
    found = curves(trained(jobs, True))
    for name, curve in curves(trained(jobs, False)).items():
        assert found[name] == pytest.approx(curve, rel=1e-3), name


def test_where_nothing_can_be_compiled_it_goes_on_without_and_says_so_once(
    job_of: JobOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(program, "_BACKEND", broken)
    jobs = [job_of("late_fusion", seed) for seed in range(3)]
    with caplog.at_level(logging.WARNING, "gapwise"):
        found = curves(trained(jobs, True))
    (said,) = [one.getMessage() for one in caplog.records]
    assert "no C++ compiler" in said and said.endswith("goes on without")
    assert found == curves(trained(jobs, False))


@pytest.mark.parametrize(("cost", "asked"), [(0.0, 1), (1e9, 0)])
def test_auto_compiles_after_an_epoch_where_enough_is_left(
    job_of: JobOf, backend: Backend, monkeypatch: pytest.MonkeyPatch, cost: float, asked: int
) -> None:
    monkeypatch.setattr(program, "COMPILER_SECONDS", cost)
    trained([job_of("late_fusion", seed) for seed in range(3)], "auto")
    assert backend.asked == asked


def test_auto_leaves_a_group_that_is_not_full_any_more_alone(
    job_of: JobOf, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "COMPILER_SECONDS", 0.0)
    trained([job_of("late_fusion", seed, epochs=3 if seed else 1) for seed in range(3)], "auto")
    assert backend.asked == 0


@pytest.mark.parametrize(("seconds", "stays"), [(8.9, True), (9.1, False)])
def test_auto_drops_a_program_that_is_no_faster(
    job_of: JobOf, monkeypatch: pytest.MonkeyPatch, seconds: float, stays: bool
) -> None:
    one = program.Program(torch.nn.Linear(1, 1), job_of("late_fusion", 0), "auto")  # type: ignore[arg-type]
    one.after_epoch(3, 10.0, [1000] * 3)
    assert one._compiled is not None, "1000 epochs of 10 s are left"
    one._shape = (3, 32, 5)
    for each in (300.0, seconds):
        one.after_epoch(3, each, [1000] * 3)
    assert (one._compiled is not None) == stays
