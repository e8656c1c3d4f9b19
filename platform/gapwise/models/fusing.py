"""What fused trials need of a model: which of its fields they may differ in, and one module that computes all of them.

Trials are fused by `torch.func.vmap` over the forward pass of one model, the `pattern`, whose parameters are replaced
by those of every trial, stacked. Fields that are numbers in a formula are stacked likewise. PROMISE's prompts may
differ in length: they are padded to the longest, and masked. Whatever else changes a shape or the flow of control
keeps trials apart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.models.blocks.attention import split_axis
from gapwise.models.interface import MultimodalModel
from gapwise.spec.model import ModelSpec, PromiseSpec

TOGETHER: dict[str, frozenset[str]] = {
    "late_fusion": frozenset({"dropout"}),
    "prlf": frozenset(
        {
            *("dropout", "fisher_lambda", "tau_rel", "w_uni", "w_nll", "w_conf", "w_align", "w_cons"),
            *("confidence_scale", "statistics_momentum", "fisher_every"),
        }
    ),
    "promise": frozenset(
        {
            *("dropout", "tau_cross", "tau_intra", "w_cross", "w_intra", "w_rec", "label_bandwidth"),
            "prompt_length",
        }
    ),
}
"""The fields that trials of one group may differ in, by model."""


def apart(spec: ModelSpec) -> dict[str, Any]:
    """The fields that trials of one group have in common."""
    return {name: value for name, value in spec.model_dump(mode="json").items() if name not in TOGETHER[spec.name]}


def refusal(spec: ModelSpec) -> str | None:
    """Why a model cannot be fused, in a line; None if it can."""
    if spec.name not in TOGETHER:
        return f"model {spec.name} does not support fused trials"
    if spec.text is not None:
        return "a pretrained text encoder has no batching rules"
    return None


def common_spec(specs: Sequence[ModelSpec]) -> ModelSpec:
    """The first of a group's specs, with prompts as long as the longest."""
    prompts = [spec.prompt_length for spec in specs if isinstance(spec, PromiseSpec)]
    return specs[0].model_copy(update={"prompt_length": max(prompts)}) if prompts else specs[0]


def prompt_length(spec: ModelSpec) -> int:
    """Own prompt tokens of a trial; 0 for a model that has none."""
    return spec.prompt_length if isinstance(spec, PromiseSpec) else 0


class Pattern(nn.Module):
    """A model behind one `forward`, for `functional_call`: the name of its method comes first. `names` are prefixed."""

    def __init__(self, model: MultimodalModel, *, padded: bool) -> None:
        super().__init__()
        self.model = _by_rows(model)
        if padded:
            self.model.padded = True

    def forward(self, method: str, *given: Any) -> Any:
        chosen: Callable[..., Any] = getattr(self.model, method)
        return chosen(*given)

    def call(self, parameters: dict[str, Tensor], fixed: dict[str, Tensor], method: str, *given: Any) -> Any:
        """A method of the model with one trial's tensors; to be mapped over trials."""
        return torch.func.functional_call(self, (parameters, fixed), (method, *given))


class RowLinear(nn.Linear):
    """A linear layer on the rows of a matrix, whatever stands before them.

    Of a tensor with more axes that is not contiguous, vmap would multiply matrix by matrix, and copy the weights for
    each.
    """

    def forward(self, value: Tensor) -> Tensor:
        rows = functional.linear(value.flatten(0, -2), self.weight, self.bias)
        return split_axis(rows, 0, value.shape[:-1]) if value.dim() > 2 else rows


def _by_rows(model: MultimodalModel) -> MultimodalModel:
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowLinear
    return model


def hyperparameters(model: MultimodalModel) -> dict[str, Tensor]:
    """What trials differ in and is no parameter: the model's own buffers, those of its parts left out."""
    return {name: value for name, value in model.named_buffers(recurse=False) if isinstance(value, torch.Tensor)}
