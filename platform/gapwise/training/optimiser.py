"""AdamW without decay on vectors, and a learning rate that is a pure function of the step."""

import math

import torch
from torch import Tensor, nn

from gapwise.spec.train import OptimiserSpec

FINAL_SHARE = 0.1
"""The cosine ends at this share of the peak."""


def build_optimiser(model: nn.Module, spec: OptimiserSpec) -> torch.optim.AdamW:
    """Matrices decay, vectors (biases, norms, scales) do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=spec.lr)


def learning_rate(spec: OptimiserSpec, step: int, total_steps: int) -> float:
    """Linear warm-up over `warmup` of all steps, then a cosine down to `FINAL_SHARE` of the peak."""
    warm = max(1, round(spec.warmup * total_steps))
    if step < warm:
        return spec.lr * (step + 1) / warm
    along = min(1.0, (step - warm) / max(1, total_steps - warm))
    return spec.lr * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * along)))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flat names for every tensor of the optimiser's state: "parameter index/name"."""
    state = optimiser.state_dict()["state"]
    return {f"{index}/{name}": value for index, kept in state.items() for name, value in kept.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`, for an optimiser built from the same spec and model."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
