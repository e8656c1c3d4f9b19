"""The training loop. Read this first.

    job in -> model, optimiser, snapshot if there is one -> epochs of (batches, validation, report) -> best weights out

Selection looks at validation only. The loop knows nothing of Ray, Optuna or MLflow: a `Reporter` hears of every epoch
and may end the run, a `CheckpointSink` keeps snapshots, and a `Collective` adds up over workers. On any number of
workers every decision is taken from the same global numbers, so that all of them stop together.
"""

import math
import time
from dataclasses import replace

from torch import nn

from gapwise.data.batch import ModalityBatch
from gapwise.data.loading import EpochBatches
from gapwise.evaluation.grid import Grid
from gapwise.evaluation.objective import reduce_curve, settled
from gapwise.models.catalogue import build_model
from gapwise.models.interface import SeededNoise, State
from gapwise.training.job import Diverged, Job, Trained
from gapwise.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from gapwise.training.parts import in_parts
from gapwise.training.precision import autocast
from gapwise.training.protocols import CheckpointSink, EpochReport, Position, Reporter
from gapwise.training.run_state import RunState
from gapwise.training.validation import validate


def fit(job: Job, reporter: Reporter, sink: CheckpointSink) -> Trained:
    """Train to the end, to the first exhausted patience, or to where the reporter says stop.

    Raises Diverged when a loss is not finite, CheckpointError when the sink's snapshot cannot be read, SpecError when
    the objective or the missing rates do not fit the data.
    """
    job = replace(job, spec=settled(job.spec, job.shape, job.valid.labels))
    run = begin(job, sink)
    trainable = job.wrap(run.model)
    while not finished(run, job):
        if reporter.report(advance(job, run, trainable, sink)):
            return result(run, stopped=True)
    return result(run, stopped=False)


def begin(job: Job, sink: CheckpointSink) -> RunState:
    """A fresh run, or one that continues from the sink's snapshot."""
    model = build_model(job.spec.model, job.shape, job.statistics, job.spec.seed).to(job.device)
    run = RunState.begin(model, build_optimiser(model, job.spec.optimiser), job.device)
    snapshot = sink.load()
    if snapshot is not None:
        run.restore(snapshot)
    return run


def advance(job: Job, run: RunState, trainable: nn.Module, sink: CheckpointSink) -> EpochReport:
    """The rest of one epoch, and its validation."""
    started = time.perf_counter()
    samples_per_second = _train_epoch(job, run, trainable, sink)
    grid = validate(job, run.model, run.state)
    run.train_seconds += time.perf_counter() - started
    return close_epoch(job, run, grid, samples_per_second)


def finished(run: RunState, job: Job) -> bool:
    """Whether every epoch is trained, or patience is exhausted."""
    epoch = run.position.epoch
    out_of_patience = 0 < job.spec.patience <= epoch - run.best_epoch and not job.keep_last
    return epoch >= job.spec.epochs or out_of_patience


def _train_epoch(job: Job, run: RunState, trainable: nn.Module, sink: CheckpointSink) -> float:
    """Every remaining batch of the epoch; returns training samples a second over all workers."""
    started, first = time.perf_counter(), run.position.batch
    epoch = run.position.epoch
    batches = EpochBatches(job.train, job.spec, epoch=epoch, share=(job.rank, job.workers.world))
    trainable.train()
    for index in range(first, len(batches)):
        run.position = Position(epoch, index)
        if sink.wants(run.position):
            sink.save(run.snapshot(time.perf_counter() - started))
        _step(job, run, trainable, batches)
    run.position = Position(epoch + 1, 0)
    done = len(job.train) * (len(batches) - first) / len(batches)
    return done / (time.perf_counter() - started)


def _step(job: Job, run: RunState, trainable: nn.Module, batches: EpochBatches) -> None:
    spec, step = job.spec, run.position.epoch * len(batches) + run.position.batch
    set_learning_rate(run.optimiser, learning_rate(spec.optimiser, step, spec.epochs * len(batches)))
    run.seed_noise(spec.seed, job.rank, step)
    run.optimiser.zero_grad(set_to_none=True)
    seen, state = _backward(job, run, trainable, batches)
    nn.utils.clip_grad_norm_(run.model.parameters(), spec.optimiser.clip)
    run.optimiser.step()
    run.state = run.model.refresh(seen, state, step, job.workers)


def _backward(job: Job, run: RunState, trainable: nn.Module, batches: EpochBatches) -> tuple[ModalityBatch, State]:
    """Leave the batch's gradient in the parameters; returns the incomplete view and the state of its last part."""
    views, state = batches[run.position.batch], run.state
    noise = SeededNoise(run.noise)  # Parts draw from it in turn, each for its own samples.
    share = (job.rank, job.workers.world)
    for rows, weight in in_parts(batches.samples(run.position.batch), share, job.spec.micro_batch):
        part = views.part(rows).to(job.device)
        with autocast(job.spec.precision, job.device):
            loss = trainable(*part, state, noise, job.workers)
        (weight * loss.total).backward()
        run.add_losses(loss.terms | {"total": loss.total}, weight)
        state = loss.state
    run.steps += 1
    return part.incomplete, state


def close_epoch(job: Job, run: RunState, grid: Grid, samples_per_second: float) -> EpochReport:
    """Note the epoch that `run` has trained and `grid` judges. Raises Diverged."""
    losses = run.take_losses(job.workers)
    cost = reduce_curve(grid.curve(job.spec.objective.metric), job.spec.objective)
    if not all(math.isfinite(value) for value in (*losses.values(), cost)):
        raise Diverged(f"not finite after epoch {run.position.epoch}: objective {cost}, losses {losses}")
    report = EpochReport(
        epoch=run.position.epoch,
        epochs=job.spec.epochs,
        cost=cost,
        best_cost=min(cost, run.best_cost),
        metrics={metric: grid.curve(metric) for metric in grid.metrics},
        losses=losses,
        samples_per_second=samples_per_second,
        train_seconds=run.train_seconds,
    )
    run.close_epoch(report, keep=cost < run.best_cost or job.keep_last)
    return report


def result(run: RunState, *, stopped: bool) -> Trained:
    """What a run that is over comes to: its best weights."""
    run.load_best()
    kept = run.history[run.best_epoch - 1]
    return Trained(model=run.model.eval(), state=run.state, history=run.history, kept=kept, stopped=stopped)
