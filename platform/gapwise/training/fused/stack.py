"""The tensors of K trials, stacked: parameters, optimiser, running statistics, hyperparameters, sums of losses.

A stack is made from runs and is written back into them; when trials come or go, a new one is made. Nothing is shared
between rows, so a trial that is not finite any more does not touch its neighbours.

Shape legend: K trials, P numbers of all parameters.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gapwise.models.catalogue import build_model
from gapwise.models.fusing import Pattern, common_spec, hyperparameters, prompt_length
from gapwise.models.interface import State
from gapwise.training.fused.adamw import Rows
from gapwise.training.fused.layout import Layout, padded
from gapwise.training.fused.member import Member
from gapwise.training.run_state import RunState

PREFIX = "model."
"""`Pattern` holds the model under this name."""


def prompts(members: Sequence[Member]) -> tuple[int, bool]:
    """What decides on the pattern of trials that may be fused: the longest prompts, and whether others are shorter."""
    lengths = {prompt_length(one.job.spec.model) for one in members}
    return max(lengths), len(lengths) > 1


def pattern_of(members: Sequence[Member]) -> Pattern:
    job = members[0].job
    spec = common_spec([one.job.spec.model for one in members])
    model = build_model(spec, job.shape, job.statistics, job.spec.seed).to(job.device)
    return Pattern(model, padded=prompts(members)[1])


class Stack:
    """`parameters` (K, ...) by name are leaves of autograd in the memory of `rows`; `state`, `fixed`: as large."""

    def __init__(self, members: Sequence[Member], pattern: Pattern) -> None:
        model = pattern.model
        self.pattern, self.layout = pattern, Layout(model)
        self.rows = _empty(len(members), self.layout, next(model.parameters()))
        for row, member in enumerate(members):
            self._read(row, member.run)
        named = self.layout.views(self.rows.value)
        self.parameters = {PREFIX + name: value.detach().requires_grad_() for name, value in named.items()}
        self.fixed = _hyperparameters(model, members)
        self.state: State = _stacked([member.run.state for member in members])
        self.losses: dict[str, Tensor] = {}

    def gather_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Into their rows; in the order of `parameters`."""
        flat = [one.flatten(1) if one.dim() > 1 else one.unsqueeze(1) for one in gradients]
        torch.cat(flat, dim=1, out=self.rows.gradient)

    def add_losses(self, terms: dict[str, Tensor]) -> None:
        """(K,) each, summed over the steps of an epoch."""
        for name, value in terms.items():
            self.losses[name] = self.losses[name] + value if name in self.losses else value

    def _read(self, row: int, run: RunState) -> None:
        own = dict(run.model.named_parameters())
        copy(own, self.layout.row(self.rows.value[row], own))
        kept = {name: run.optimiser.state[value] for name, value in own.items() if value in run.optimiser.state}
        if kept:  # all of them, or none before the first step
            for key, rows in (("exp_avg", self.rows.mean), ("exp_avg_sq", self.rows.square)):
                copy({name: one[key] for name, one in kept.items()}, self.layout.row(rows[row], own))
            self.rows.steps[row] = next(iter(kept.values()))["step"]

    def write_back(self, row: int, run: RunState, *, optimiser: bool) -> None:
        """What a run's owner may look at; with `optimiser` all that a snapshot keeps."""
        own = dict(run.model.named_parameters())
        copy(self.layout.row(self.rows.value[row], own), own)
        run.state = {name: value[row].clone() for name, value in self.state.items()}
        run.losses = {name: value[row].clone() for name, value in self.losses.items()}
        if optimiser:
            self._write_optimiser(row, run, own)

    def _write_optimiser(self, row: int, run: RunState, own: dict[str, nn.Parameter]) -> None:
        means, squares = ({name: torch.empty_like(value) for name, value in own.items()} for _ in range(2))
        copy(self.layout.row(self.rows.mean[row], own), means)
        copy(self.layout.row(self.rows.square[row], own), squares)
        for name, value in own.items():
            step = self.rows.steps[row].clone()
            run.optimiser.state[value] = {"step": step, "exp_avg": means[name], "exp_avg_sq": squares[name]}


def copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """By name, in as few launches as can be."""
    with torch.no_grad():
        torch._foreach_copy_(list(target.values()), [source[name].detach() for name in target])


def _empty(trials: int, layout: Layout, like: Tensor) -> Rows:
    value, gradient, mean, square = (like.detach().new_zeros(trials, layout.size) for _ in range(4))
    return Rows(value, gradient, mean, square, torch.zeros(trials, dtype=torch.float32, device=like.device))


def _hyperparameters(model: nn.Module, members: Sequence[Member]) -> dict[str, Tensor]:
    shapes = {name: value.shape for name, value in model.named_buffers(recurse=False)}
    own = [hyperparameters(member.run.model) for member in members]
    return {PREFIX + name: torch.stack([padded(one[name], shape) for one in own]) for name, shape in shapes.items()}


def _stacked(states: Sequence[State]) -> State:
    return {name: torch.stack([one[name] for one in states]) for name in states[0]}
