"""Validation of all trials of a group at once: they are shown the same samples under the same masks.

Shape legend: K trials, R conditions, N samples, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from gapwise.data.batch import ModalityBatch
from gapwise.evaluation.grid import Grid, Outputs, predict_grid, score_grid
from gapwise.training.fused.stack import Stack
from gapwise.training.job import Job
from gapwise.training.precision import autocast
from gapwise.training.validation import MASK_SEEDS


def validate_fused(job: Job, stack: Stack) -> list[Grid]:
    """The robustness grid of each trial; `job` is any of theirs."""
    rows = np.arange(len(job.valid), dtype=np.int64)

    def answer(batch: ModalityBatch) -> Tensor:
        with autocast(job.spec.precision, job.device):
            return answers(stack, batch.to(job.device)).movedim(0, 1)

    found = predict_grid(answer, job.valid, rows, job.spec.protocol, MASK_SEEDS)
    # Trials stand where mask seeds do, of which there is one: (R, K, N) or (R, K, N, C).
    every = Outputs(found.conditions, np.moveaxis(found.values[:, 0], 2, 1))
    grid = score_grid(every, job.valid.labels, job.shape)
    trials = every.values.shape[1]
    return [
        Grid(grid.conditions, {name: values[:, row : row + 1] for name, values in grid.metrics.items()})
        for row in range(trials)
    ]


def answers(stack: Stack, batch: ModalityBatch) -> Tensor:
    """(K, B) scores or (K, B, C) logits of the same samples."""

    def one(parameters: dict[str, Tensor], fixed: dict[str, Tensor], state: dict[str, Tensor]) -> Tensor:
        output: Tensor = stack.pattern.call(parameters, fixed, "predict", batch, state).output
        return output

    found: Tensor = torch.vmap(one)(stack.parameters, stack.fixed, stack.state)
    return found
