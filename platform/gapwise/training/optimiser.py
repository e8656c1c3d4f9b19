"""AdamW without decay on vectors, and a learning rate that is a pure function of the step.

All parameters follow one schedule; those with a learning rate of their own (a finetuned text encoder) at a multiple.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gapwise.models.interface import OwnRate
from gapwise.spec.train import OptimiserSpec

FINAL_SHARE = 0.1
"""The cosine ends at this share of the peak."""


def build_optimiser(model: nn.Module, spec: OptimiserSpec) -> torch.optim.AdamW:
    """Matrices decay, vectors (biases, norms, scales) do not. Groups say at which multiple of the rate they move."""
    own = [module for module in model.modules() if isinstance(module, OwnRate)]
    elsewhere = {parameter for module in own for parameter in module.parameters()}
    groups = _groups([one for one in model.parameters() if one not in elsewhere], 1.0, spec)
    for module in own:
        groups += _groups(list(module.parameters()), module.learning_rate / spec.lr, spec)
    return torch.optim.AdamW(groups, lr=spec.lr, fused=True)  # One pass over all tensors, not a dozen over each.


def _groups(parameters: list[nn.Parameter], multiple: float, spec: OptimiserSpec) -> list[dict[str, Any]]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    matrices, vectors = [one for one in trained if one.ndim >= 2], [one for one in trained if one.ndim < 2]
    decays = ((matrices, spec.weight_decay), (vectors, 0.0))
    return [{"params": some, "weight_decay": decay, "multiple": multiple} for some, decay in decays if some]


def learning_rate(spec: OptimiserSpec, step: int, total_steps: int) -> float:
    """Linear warm-up over `warmup` of all steps, then a cosine down to `FINAL_SHARE` of the peak."""
    warm = max(1, round(spec.warmup * total_steps))
    if step < warm:
        return spec.lr * (step + 1) / warm
    along = min(1.0, (step - warm) / max(1, total_steps - warm))
    return spec.lr * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * along)))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["multiple"]


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
