"""AdamW on rows: every trial with its own rate, decay and number of steps taken.

On a CPU a call of the fused kernel for each trial, the very one of the unfused loop, reads every number once; on a GPU
launching so many costs more than it saves, and a few operations on all rows at once are done instead.

Shape legend: K trials, P numbers of all parameters, the first D of which decay.
"""

from typing import NamedTuple

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Rows(NamedTuple):
    """(K, P) each, and (K,) steps taken."""

    value: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor


def clip(gradient_KP: Tensor, most_K: Tensor) -> None:
    """Each trial's gradient to its own largest norm, in place."""
    norm_K = torch.linalg.vector_norm(gradient_KP, dim=1)
    gradient_KP.mul_((most_K / (norm_K + 1e-6)).clamp(max=1.0).unsqueeze(1))


def update(rows: Rows, rates: list[float], decays: list[float], decaying: int) -> None:
    """One step of every trial, in place."""
    if rows.value.device.type == "cpu":
        _row_by_row(rows, rates, decays, decaying)
    else:
        all_at_once(rows, rates, decays, decaying)


def _row_by_row(rows: Rows, rates: list[float], decays: list[float], decaying: int) -> None:
    rows.steps.add_(1.0)
    for trial, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        *row, step = (part[trial] for part in rows)
        for part, share in ((slice(decaying), decay), (slice(decaying, None), 0.0)):
            value, gradient, mean, square = ([one[part]] for one in row)
            torch._fused_adamw_(
                value,
                gradient,
                mean,
                square,
                [],
                [step],
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=share,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )


def all_at_once(rows: Rows, rates: list[float], decays: list[float], decaying: int) -> None:
    """The same by operations on whole matrices (Loshchilov and Hutter 2019)."""
    value_KP, gradient_KP, mean_KP, square_KP, steps_K = rows
    rate_K1 = torch.tensor(rates, dtype=value_KP.dtype, device=value_KP.device).unsqueeze(1)
    decay_K1 = torch.tensor(decays, dtype=value_KP.dtype, device=value_KP.device).unsqueeze(1)
    steps_K.add_(1.0)
    steps_K1 = steps_K.to(value_KP.dtype).unsqueeze(1)
    value_KP[:, :decaying].mul_(1.0 - rate_K1 * decay_K1)
    mean_KP.lerp_(gradient_KP, 1.0 - BETAS[0])
    square_KP.mul_(BETAS[1]).addcmul_(gradient_KP, gradient_KP, value=1.0 - BETAS[1])
    deviation_KP = (square_KP.sqrt() / (1.0 - BETAS[1] ** steps_K1).sqrt()).add_(EPSILON)
    value_KP.sub_(rate_K1 / (1.0 - BETAS[0] ** steps_K1) * mean_KP / deviation_KP)
