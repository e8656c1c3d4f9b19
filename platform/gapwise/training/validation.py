"""Validation in and after training: each worker answers its share of the rows, all of them see the same numbers."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapwise.data.batch import ModalityBatch
from gapwise.errors import DataError
from gapwise.evaluation.diagnostics import curves, diagnose
from gapwise.evaluation.grid import Grid, Outputs, predict_grid, score_grid
from gapwise.evaluation.objective import Curve
from gapwise.models.interface import MultimodalModel, State
from gapwise.training.job import Job, Trained
from gapwise.training.precision import autocast

_log = logging.getLogger(__name__)

MASK_SEEDS = (0,)
"""The one mask seed of early stopping, pruning and the objective; more are for the second phase and the gate."""


def validate(job: Job, model: MultimodalModel, state: State, mask_seeds: Sequence[int] = MASK_SEEDS) -> Grid:
    """The robustness grid on the validation split."""
    return score_grid(predict(job, model, state, mask_seeds), job.valid.labels, job.shape)


def predict(job: Job, model: MultimodalModel, state: State, mask_seeds: Sequence[int]) -> Outputs:
    """The answers behind `validate`, of every row of the validation split."""
    model.eval()
    rows = np.arange(job.rank, len(job.valid), job.workers.world, dtype=np.int64)

    def answer(batch: ModalityBatch) -> Tensor:
        with autocast(job.spec.precision, job.device):
            return model.predict(batch.to(job.device), state).output

    local = predict_grid(answer, job.valid, rows, job.spec.protocol, mask_seeds, job.spec.micro_batch)
    return _merge(job, rows, local)


def masked_outputs(job: Job, model: MultimodalModel, state: State, mask_seeds: int) -> Outputs:
    """Answers under mask seeds 1..n: not the seed that early stopping looked at."""
    return predict(job, model, state, range(1, mask_seeds + 1))


def mean_curves(job: Job, outputs: Outputs) -> dict[str, Curve]:
    """{metric: {condition: mean over mask seeds}} on the validation split."""
    grid = score_grid(outputs, job.valid.labels, job.shape)
    return {metric: grid.curve(metric) for metric in grid.metrics}


def diagnostic_curves(job: Job, trained: Trained) -> dict[str, Curve]:
    """{name: {condition: value}} of the kept weights on validation, one mask seed; empty where the model has none.

    One worker answers every row by itself and in full precision, and the others are not needed. It comes last in a run,
    so a synthetic dataset whose truth cannot be read costs a warning and the diagnostics, not the run.
    """

    def read(batch: ModalityBatch) -> dict[str, Tensor]:
        at_once = job.spec.micro_batch or batch.size
        parts = [batch.part(slice(first, first + at_once)) for first in range(0, batch.size, at_once)]
        found = [trained.model.predict(part.to(job.device), trained.state).diagnostics for part in parts]
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    try:
        return curves(diagnose(read, job.valid, job.spec.protocol, MASK_SEEDS, job.train))
    except DataError as error:
        _log.warning("no diagnostics: %s", error)
        return {}


def _merge(job: Job, rows: NDArray[np.int64], local: Outputs) -> Outputs:
    if job.workers.world == 1:
        return local
    by_row = torch.from_numpy(np.moveaxis(local.values, 2, 0).copy()).to(job.device)
    order = job.workers.gather(torch.from_numpy(rows).to(job.device)).argsort()
    merged = job.workers.gather(by_row)[order].cpu().numpy()
    return Outputs(local.conditions, np.moveaxis(merged, 0, 2))
