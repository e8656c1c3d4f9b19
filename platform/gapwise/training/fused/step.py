"""One training step of K trials: forward, backward, clip, update, refresh, each on all rows at once.

`torch.vmap` maps the model's forward over trials, and ordinary autograd goes back through the sum of their losses: rows
share nothing, so each one's gradient is its own. (`vmap` of `grad` gives the same and goes through one more layer of
dispatch in both directions.)

Shape legend: K trials.
"""

from collections.abc import Sequence

import torch
from torch.utils._pytree import tree_map

from gapwise.data.batch import ModalityBatch
from gapwise.data.loading import Views
from gapwise.models.interface import Alone, State
from gapwise.training.fused.adamw import clip, update
from gapwise.training.fused.member import Member
from gapwise.training.fused.noise import Dropout
from gapwise.training.fused.program import Program
from gapwise.training.fused.stack import Stack
from gapwise.training.optimiser import learning_rate


class Stepper:
    """Steps of one stack; `members` in the order of its rows."""

    def __init__(self, stack: Stack, program: Program, members: Sequence[Member], batches: int) -> None:
        self._stack, self._program, self._members, self._batches = stack, program, members, batches
        self._dropout = Dropout(members)
        self._decays = [member.job.spec.optimiser.weight_decay for member in members]
        clips = [member.job.spec.optimiser.clip for member in members]
        self._clip_K = torch.tensor(clips, dtype=stack.rows.value.dtype, device=stack.rows.value.device)

    def step(self, views: Views) -> None:
        """Compute the batch that every member's position names, and move."""
        stack, steps = self._stack, [self._step_of(member) for member in self._members]
        factors = self._dropout.factors(steps, of_trial(views, 0)) if self._dropout.needed else None
        (total_K, terms, state), gradients = self._program(stack.parameters, stack.fixed, views, stack.state, factors)
        stack.gather_gradients(gradients)
        clip(stack.rows.gradient, self._clip_K)
        update(stack.rows, self._rates(steps), self._decays, stack.layout.decaying)
        stack.add_losses(terms | {"total": total_K.detach()})
        stack.state = self._refreshed(views.incomplete, state, steps)

    def _step_of(self, member: Member) -> int:
        return member.run.position.epoch * self._batches + member.run.position.batch

    def _rates(self, steps: Sequence[int]) -> list[float]:
        return [
            learning_rate(member.job.spec.optimiser, step, member.job.spec.epochs * self._batches)
            for member, step in zip(self._members, steps, strict=True)
        ]

    def _refreshed(self, incomplete: ModalityBatch, state: State, steps: Sequence[int]) -> State:
        """After the update, of the trials whose step it is."""
        every = [member.run.model.refresh_every for member in self._members]
        due = [row for row, step in enumerate(steps) if every[row] and step % every[row] == 0]
        if not due:
            return state
        rows = torch.tensor(due, device=self._clip_K.device)
        given = (self._stack.parameters, self._stack.fixed, incomplete, state)
        with torch.no_grad():
            after = torch.vmap(self._refresh)(*tree_map(lambda value: value[rows], given))
        return {name: value.index_copy(0, rows, after[name]) for name, value in state.items()}

    def _refresh(self, parameters: State, fixed: State, incomplete: ModalityBatch, state: State) -> State:
        after: State = self._stack.pattern.call(parameters, fixed, "refresh", incomplete, state, 0, Alone())
        return after


def of_trial(views: Views, row: int) -> Views:
    """(B, ...) from (K, B, ...)."""
    one: Views = tree_map(lambda value: value[row], views)
    return one
