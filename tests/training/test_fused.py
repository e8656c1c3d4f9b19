"""Fused trials against the unfused loop, on samples of the synthetic `small` dataset, in this process.

Faked: float64 (the package computes in float32; here models and samples are converted where they are made), reporters
that stop runs and sinks that interrupt them. Nothing of the fused loop is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gapwise.data.batch import ModalityBatch
from gapwise.data.store import Dataset, Split, statistics
from gapwise.models.catalogue import MODELS, build_model
from gapwise.models.fusing import TOGETHER, hyperparameters
from gapwise.models.interface import MultimodalModel
from gapwise.spec.model import LateFusionSpec, PrlfSpec, PromiseSpec
from gapwise.spec.text import TextSpec
from gapwise.spec.train import TrainSpec
from gapwise.testing.datasets import in_classes, small_splits, write
from gapwise.testing.runs import TINY, DyingSink, Interrupted
from gapwise.training.checkpoint import DirectorySink, NoSink
from gapwise.training.decision import NoReporter
from gapwise.training.fused import adamw, epochs
from gapwise.training.fused.adamw import Rows
from gapwise.training.fused.group import FusedGroup
from gapwise.training.fused.grouping import fusion_key, why_alone
from gapwise.training.job import Diverged, Job, Trained, whole_job
from gapwise.training.loop import fit
from gapwise.training.protocols import CheckpointSink, EpochReport, Position, Reporter

SIZES = {"train": 128, "valid": 60, "test": 20}
EIGHT = range(8)
Fields = dict[str, Any]

HYPERPARAMETERS: dict[str, Callable[[int], Fields]] = {
    "late_fusion": lambda k: {},
    "late_fusion experts": lambda k: {"encoder": "statistics", "components": 2, "readout": "experts"},
    "prlf": lambda k: {
        **{"tau_rel": 0.2 + 0.2 * k, "fisher_lambda": k / 7, "w_uni": 0.1 * k, "w_nll": 0.5 + 0.1 * k},
        **{"w_conf": 0.05 * k, "w_align": 0.1 * k, "w_cons": 0.3 - 0.04 * k, "statistics_momentum": 0.05 + 0.05 * k},
    },
    "prlf ema": lambda k: {"fisher": "ema", "fisher_every": 1 + k % 3, "tau_rel": 0.2 + 0.2 * k},
    "promise": lambda k: {
        **{"prompt_length": (3, 0, 8, 1, 3, 5, 2, 8)[k], "tau_cross": 0.05 + 0.05 * k, "tau_intra": 0.4 - 0.04 * k},
        **{"w_cross": 0.05 * k, "w_intra": 0.3 - 0.04 * k, "w_rec": 0.1 * k, "label_bandwidth": 0.5 + 0.2 * k},
        "queue": 48,
    },
    "promise of one prompt length": lambda k: {"prompt_length": 3, "tau_cross": 0.05 + 0.05 * k, "queue": 48},
}


class Listener:
    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at

    def report(self, epoch: EpochReport) -> bool:
        return epoch.epoch == self.stop_at


def spec_of(case: str, k: int, *, dropout: float = 0.0, **changes: Any) -> TrainSpec:
    """The k-th of different configurations of a case that may be fused."""
    fields = {
        "model": {**TINY, "name": case.split()[0], "dropout": dropout, **HYPERPARAMETERS[case](k)},
        "protocol": {"rates": [0.0, 0.5]},
        "optimiser": {"lr": 0.001 * (1 + k), "weight_decay": 0.01 * k, "clip": 0.2 + 0.3 * k, "warmup": 0.05 * k},
        "epochs": 5,
        "batch_size": 32,
        "patience": 0,
        "seed": k,
    }
    return TrainSpec.model_validate(fields | changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(small_splits(SIZES), tmp_path_factory.mktemp("fused") / "small")


@pytest.fixture(scope="module")
def job_of(dataset: Dataset) -> Callable[[TrainSpec], Job]:
    moments = statistics(dataset.train)
    return lambda spec: whole_job(spec, dataset, moments)


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Split.batch

    def batch(split: Split, rows: Any) -> ModalityBatch:
        found = read(split, rows)
        values = {name: value.double() for name, value in found.values.items()}
        return found._replace(values=values, labels=found.labels.double())

    def build(*given: Any) -> MultimodalModel:
        return build_model(*given).double()

    monkeypatch.setattr(Split, "batch", batch)
    monkeypatch.setattr("gapwise.training.loop.build_model", build)
    monkeypatch.setattr("gapwise.training.fused.stack.build_model", build)


def fused(
    jobs: Mapping[str, Job],
    reporters: Mapping[str, Reporter] | None = None,
    sinks: Mapping[str, CheckpointSink] | None = None,
) -> dict[str, Trained | Exception]:
    """All of them to their ends."""
    group = FusedGroup()
    for name, job in jobs.items():
        group.admit(name, job, (reporters or {}).get(name, NoReporter()), (sinks or {}).get(name, NoSink()))
    return to_the_end(group)


def to_the_end(group: FusedGroup) -> dict[str, Trained | Exception]:
    ended: dict[str, Trained | Exception] = {}
    while group.names:
        ended |= dict(group.step_epoch())
    return ended


def alike(ours: Trained | Exception, theirs: Trained, tolerance: float = 1e-5) -> None:
    """Curves, losses and weights of two runs; what differs in time is left out."""
    assert isinstance(ours, Trained), ours
    assert [one.epoch for one in ours.history] == [one.epoch for one in theirs.history]
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=tolerance, abs=tolerance)
        assert one.metrics.keys() == other.metrics.keys()
        for metric, curve in one.metrics.items():
            assert curve == pytest.approx(other.metrics[metric], rel=tolerance, abs=tolerance, nan_ok=True)
    assert ours.kept.epoch == theirs.kept.epoch
    assert ours.stopped == theirs.stopped
    kept, known = (run.model.state_dict() | run.state for run in (ours, theirs))
    assert {name: value.shape for name, value in kept.items()} == {name: value.shape for name, value in known.items()}


@pytest.mark.slow
@pytest.mark.parametrize("case", HYPERPARAMETERS)
@pytest.mark.usefixtures("in_double")
def test_eight_fused_trials_train_as_each_of_them_does_alone(job_of: Callable[[TrainSpec], Job], case: str) -> None:
    jobs = {str(k): job_of(spec_of(case, k)) for k in EIGHT}
    together = fused(jobs)
    for name, job in jobs.items():
        alone = fit(job, NoReporter(), NoSink())
        alike(together[name], alone, tolerance=1e-6)
        losses = [one.losses for one in together[name].history]  # type: ignore[union-attr]
        for ours, theirs in zip(losses, alone.history, strict=True):
            assert ours == pytest.approx(theirs.losses, rel=1e-9, abs=1e-9), "20 steps"


def test_classes_are_fused_like_scores(tmp_path: Path) -> None:
    dataset = write(in_classes(small_splits(SIZES)), tmp_path / "signs", task="classification")
    jobs = {str(k): whole_job(spec_of("prlf", k, epochs=2), dataset, statistics(dataset.train)) for k in range(2)}
    together = fused(jobs)
    for name, job in jobs.items():
        alike(together[name], fit(job, NoReporter(), NoSink()), tolerance=1e-3)


@pytest.mark.parametrize("case", ["late_fusion", "prlf", "promise"])
def test_on_a_cpu_each_trial_drops_what_it_would_drop_alone(job_of: Callable[[TrainSpec], Job], case: str) -> None:
    jobs = {str(k): job_of(spec_of(case, k, dropout=(0.0, 0.2, 0.4)[k], epochs=1)) for k in range(3)}
    together = fused(jobs)
    for name, job in jobs.items():
        alike(together[name], fit(job, NoReporter(), NoSink()), tolerance=1e-4)


def test_a_trial_that_is_not_finite_fails_alone(job_of: Callable[[TrainSpec], Job]) -> None:
    jobs = {str(k): job_of(spec_of("promise", k, epochs=2)) for k in range(3)}
    sick = spec_of("promise", 3)
    sick = sick.model_copy(update={"model": sick.model.model_copy(update={"w_cross": 1e39})})
    together = fused(jobs | {"sick": job_of(sick)})
    assert isinstance(together["sick"], Diverged)
    assert "not finite after epoch 1" in str(together["sick"])
    healthy = fused(jobs)
    for name in jobs:
        alike(together[name], healthy[name], tolerance=1e-5)  # type: ignore[arg-type]


def test_a_trial_that_is_stopped_leaves_and_its_neighbours_train_on(job_of: Callable[[TrainSpec], Job]) -> None:
    jobs = {str(k): job_of(spec_of("prlf", k, epochs=3)) for k in range(3)}
    together = fused(jobs, reporters={"1": Listener(stop_at=2)})
    alike(together["1"], fit(jobs["1"], Listener(stop_at=2), NoSink()))
    assert together["1"].stopped  # type: ignore[union-attr]
    for name in ("0", "2"):
        alike(together[name], fit(jobs[name], NoReporter(), NoSink()))


@pytest.mark.usefixtures("in_double")
def test_patience_and_the_number_of_epochs_are_each_trial_s_own(job_of: Callable[[TrainSpec], Job]) -> None:
    plans = [{"epochs": 2}, {"epochs": 8, "patience": 2, "optimiser": {"lr": 1e-12}}, {"epochs": 5}]
    jobs = {str(k): job_of(spec_of("late_fusion", k, **plan)) for k, plan in enumerate(plans)}
    jobs["refit"] = replace(jobs["1"], keep_last=True)
    together = fused(jobs)
    for name, job in jobs.items():
        alike(together[name], fit(job, NoReporter(), NoSink()))
    assert len(together["1"].history) < len(together["refit"].history) == 8  # type: ignore[union-attr]


def test_a_freed_slot_is_refilled_at_the_end_of_an_epoch_as_a_fresh_start(job_of: Callable[[TrainSpec], Job]) -> None:
    group, ended = FusedGroup(), {}
    jobs = {str(k): job_of(spec_of("promise", k, epochs=3)) for k in range(4)}
    for name in ("0", "1", "2"):
        group.admit(name, jobs[name], Listener(stop_at=1 if name == "2" else None), NoSink())
    ended |= dict(group.step_epoch())
    assert group.names == ["0", "1"]
    group.admit("3", jobs["3"], NoReporter(), NoSink())
    ended |= to_the_end(group)
    for name in ("0", "1", "3"):
        alike(ended[name], fit(jobs[name], NoReporter(), NoSink()))


@pytest.mark.parametrize("case", ["late_fusion", "prlf ema", "promise"])
def test_a_trial_resumes_unfused_what_was_trained_fused(
    job_of: Callable[[TrainSpec], Job], case: str, tmp_path: Path
) -> None:
    jobs = {str(k): job_of(spec_of(case, k, dropout=0.2, epochs=3)) for k in range(3)}
    sinks = {"1": DyingSink(tmp_path, jobs["1"].spec, Position(1, 2))}
    together = fused(jobs, sinks=sinks)
    assert isinstance(together["1"], Interrupted)
    resumed = fit(jobs["1"], NoReporter(), DirectorySink(tmp_path, jobs["1"].spec))
    alike(resumed, fit(jobs["1"], NoReporter(), NoSink()), tolerance=1e-3)
    alike(together["2"], fit(jobs["2"], NoReporter(), NoSink()), tolerance=1e-3)


@pytest.mark.parametrize("position", [Position(1, 0), Position(1, 2)], ids=["between epochs", "within one"])
@pytest.mark.parametrize("case", ["late_fusion", "prlf ema", "promise"])
def test_a_trial_resumes_fused_what_was_trained_unfused(
    job_of: Callable[[TrainSpec], Job], case: str, position: Position, tmp_path: Path
) -> None:
    jobs = {str(k): job_of(spec_of(case, k, dropout=0.2, epochs=3)) for k in range(3)}
    with pytest.raises(Interrupted):
        fit(jobs["1"], NoReporter(), DyingSink(tmp_path, jobs["1"].spec, position))
    together = fused(jobs, sinks={"1": DirectorySink(tmp_path, jobs["1"].spec)})
    for name, job in jobs.items():
        alike(together[name], fit(job, NoReporter(), NoSink()), tolerance=1e-3)


@pytest.mark.parametrize("case", ["late_fusion", "prlf ema", "promise"])
def test_snapshots_of_both_loops_hold_the_same(job_of: Callable[[TrainSpec], Job], case: str, tmp_path: Path) -> None:
    jobs = {str(k): job_of(spec_of(case, k, dropout=0.2)) for k in range(2)}
    sinks = {name: DyingSink(tmp_path / name, job.spec, Position(1, 2)) for name, job in jobs.items()}
    fused(jobs, sinks=sinks)
    for name, job in jobs.items():
        with pytest.raises(Interrupted):
            fit(job, NoReporter(), DyingSink(tmp_path / f"alone {name}", job.spec, Position(1, 2)))
        ours, theirs = (DirectorySink(tmp_path / one, job.spec).load() for one in (name, f"alone {name}"))
        assert ours is not None
        assert theirs is not None
        assert ours.progress.position == theirs.progress.position
        assert ours.tensors.keys() == theirs.tensors.keys()
        for group, tensors in ours.tensors.items():
            known = theirs.tensors[group]
            assert tensors.keys() == known.keys(), group
            assert all(value.dtype == known[one].dtype for one, value in tensors.items()), group
            torch.testing.assert_close(
                tensors["total"] if group == "losses" else 0, known.get("total", 0), atol=1e-3, rtol=1e-3
            )
            assert all(value.shape == known[one].shape for one, value in tensors.items()), group


def test_a_trial_with_nothing_left_to_train_ends_with_what_it_had(
    job_of: Callable[[TrainSpec], Job], tmp_path: Path
) -> None:
    job = job_of(spec_of("late_fusion", 0))
    whole = fit(job, NoReporter(), DirectorySink(tmp_path, job.spec))
    shorter = replace(job, spec=job.spec.model_copy(update={"epochs": 4}))
    ended = fused({"done": shorter}, sinks={"done": DirectorySink(tmp_path, job.spec)})
    assert [one.cost for one in ended["done"].history] == [one.cost for one in whole.history[:4]]  # type: ignore[union-attr]


def test_whatever_a_reporter_or_sink_raises_ends_its_own_trial(job_of: Callable[[TrainSpec], Job]) -> None:
    class Deaf:
        def report(self, epoch: EpochReport) -> bool:
            raise ConnectionError(f"epoch {epoch.epoch}")

    jobs = {str(k): job_of(spec_of("late_fusion", k)) for k in range(2)}
    together = fused(jobs, reporters={"0": Deaf()})
    assert isinstance(together["0"], ConnectionError)
    alike(together["1"], fit(jobs["1"], NoReporter(), NoSink()))


def test_a_training_split_too_large_for_memory_is_read_step_by_step(
    job_of: Callable[[TrainSpec], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {str(k): job_of(spec_of("prlf", k, epochs=2)) for k in range(2)}
    resident = fused(jobs)
    monkeypatch.setattr(epochs, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(epochs, "MASKED_FRAMES", 1)
    read = fused(jobs)
    for name in jobs:
        alike(read[name], resident[name], tolerance=0.0)  # type: ignore[arg-type]


def test_training_leaves_the_global_random_state_alone(job_of: Callable[[TrainSpec], Job]) -> None:
    before = torch.random.get_rng_state()
    fused({str(k): job_of(spec_of("promise", k, dropout=0.2, epochs=1)) for k in range(2)})
    assert torch.equal(before, torch.random.get_rng_state())


APART: list[Fields] = [
    *({"model": {name: value}} for name, value in {"width": 32, "heads": 4, "depth": 1, "summary_tokens": 1}.items()),
    *({"model": {name: value}} for name, value in {"steps": 1, "fisher": "ema", "likelihood": "gaussian"}.items()),
    *({"model": {name: value}} for name, value in {"encoder": "statistics", "task_loss": "mse"}.items()),
    {"batch_size": 65},
    {"protocol": {"name": "block"}},
    {"precision": "bf16"},
]
TOO: list[Fields] = [
    {"seed": 5},
    {"epochs": 50},
    {"patience": 3},
    {"checkpoint_every": 3},
    {"optimiser": {"lr": 0.5, "weight_decay": 1.0, "clip": 3.0, "warmup": 0.5}},
    {"objective": {"reduce": "worst"}},
    *({"model": {name: 0.123}} for name in sorted(TOGETHER["prlf"] - {"fisher_every"})),
    {"model": {"fisher_every": 3}},
]


def changed(fields: Fields) -> TrainSpec:
    model = {"name": "prlf", "width": 16, "heads": 2, **fields.get("model", {})}
    return TrainSpec.model_validate(fields | {"model": model})


@pytest.mark.parametrize("fields", APART, ids=str)
def test_what_changes_shapes_or_the_flow_of_control_keeps_trials_apart(fields: Fields) -> None:
    assert fusion_key(changed(fields)) != fusion_key(changed({}))


@pytest.mark.parametrize("fields", TOO, ids=str)
def test_what_only_changes_numbers_does_not(fields: Fields) -> None:
    assert changed(fields) != changed({})
    assert fusion_key(changed(fields)) == fusion_key(changed({}))


def test_models_are_never_fused_with_each_other() -> None:
    keys = {fusion_key(TrainSpec(model=spec)) for spec in (LateFusionSpec(), PrlfSpec(), PromiseSpec())}
    assert len(keys) == 3


def test_what_cannot_be_fused_says_why() -> None:
    text = TextSpec(modality="text", path="anywhere")
    assert why_alone(TrainSpec()) is None
    assert "text encoder" in str(why_alone(TrainSpec(model=LateFusionSpec(text=text))))
    assert "micro_batch 8" in str(why_alone(TrainSpec(micro_batch=8)))


def test_jobs_that_do_not_fit_are_told_from_those_that_do(job_of: Callable[[TrainSpec], Job], tmp_path: Path) -> None:
    group, job = FusedGroup(), job_of(spec_of("prlf", 0))
    assert group.fits(job)
    group.admit("0", job, NoReporter(), NoSink())
    other = write(small_splits(SIZES | {"train": 64}), tmp_path / "other")
    assert group.fits(job_of(spec_of("prlf", 1)))
    assert not group.fits(job_of(spec_of("prlf", 1, batch_size=64)))
    assert not group.fits(job_of(spec_of("prlf", 1, micro_batch=8)))
    assert not group.fits(whole_job(spec_of("prlf", 1), other, statistics(other.train)))


@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_that_trials_may_differ_in_are_those_that_a_model_keeps_as_buffers(
    job_of: Callable[[TrainSpec], Job], name: str
) -> None:
    job = job_of(spec_of(name, 0))
    kept = set(hyperparameters(build_model(job.spec.model, job.shape, job.statistics, 0)))
    besides = {"prlf": {"fisher_every"}, "promise": {"prompt_length"}}.get(name, set())
    assert kept - {"own_prompts"} == TOGETHER[name] - besides


def test_both_ways_of_updating_rows_are_the_unfused_optimiser() -> None:
    rates, decays, decaying = [0.01, 0.1, 0.001], [0.0, 0.1, 2.0], 4
    start = torch.randn(3, 6, dtype=torch.float64)
    gradients = torch.randn(5, 3, 6, dtype=torch.float64)

    def updated(update: Callable[..., None]) -> torch.Tensor:
        value = start.clone()
        rows = Rows(value, *(torch.zeros_like(value) for _ in range(3)), torch.zeros(3))
        for gradient in gradients:
            rows.gradient.copy_(gradient)
            update(rows, rates, decays, decaying)
        return value

    for trial, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        parts = [
            torch.nn.Parameter(start[trial, :decaying].clone()),
            torch.nn.Parameter(start[trial, decaying:].clone()),
        ]
        groups = [{"params": [part], "weight_decay": share} for part, share in zip(parts, (decay, 0.0), strict=True)]
        known = torch.optim.AdamW(groups, lr=rate)
        for gradient in gradients:
            parts[0].grad, parts[1].grad = gradient[trial, :decaying], gradient[trial, decaying:]
            known.step()
        for update in (adamw.update, adamw.all_at_once):
            torch.testing.assert_close(updated(update)[trial], torch.cat([part.detach() for part in parts]))


def test_gradients_are_clipped_trial_by_trial() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4], [float("nan"), 1.0]])
    adamw.clip(gradient, torch.tensor([1.0, 1.0, 1.0]))
    torch.testing.assert_close(gradient[:2], torch.tensor([[0.6, 0.8], [0.3, 0.4]]), atol=1e-5, rtol=1e-5)
    assert gradient[2].isnan().all()
