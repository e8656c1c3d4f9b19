"""Dropout for fused trials: each one's noise is drawn from its own generator, all of a step's in one row, and handed
out in the order in which the model asks.

On a CPU these are the numbers that the unfused loop draws. A trial whose prompts are padded draws for its own prompts;
what falls on padding is kept, and changes nothing.

Shape legend: K trials, N elements that a step may drop.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gapwise.data.loading import Views
from gapwise.models.fusing import prompt_length
from gapwise.models.interface import Alone
from gapwise.training.fused.member import Member

Shapes = list[torch.Size]


class Drawn(NamedTuple):
    """How many numbers a trial draws, of how many in the common row, and where they stand there; None for just so."""

    own: int
    common: int
    place: Tensor | None


class Recorder:
    """A noise that drops nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        self.shapes: Shapes = []

    def dropout(self, value: Tensor, probability: Tensor) -> Tensor:
        del probability
        self.shapes.append(value.shape)
        return value


class Tape:
    """A noise that hands out a row (N,) of factors from front to back."""

    def __init__(self, factors_N: Tensor) -> None:
        self._factors_N, self._start = factors_N, 0

    def dropout(self, value: Tensor, probability: Tensor) -> Tensor:
        del probability
        start, self._start = self._start, self._start + value.numel()
        return value * self._factors_N[start : self._start].view(value.shape).to(value.dtype)


def asked(member: Member, views: Views) -> Shapes:
    """What one forward pass of a trial's own model drops from; `views` (B, ...) are of its size."""
    recorder = Recorder()
    with torch.no_grad():
        member.run.model(*views, member.run.state, recorder, Alone())
    return recorder.shapes


def places(own: Shapes, common: Shapes, length: int) -> Tensor | None:
    """Where a trial's elements stand in the common row, None if just so: on the axis that is padded, its own prompts
    (`length`) come first, then the padding, then the rest."""
    if own == common:
        return None
    found, start = [], 0
    for small, large in zip(own, common, strict=True):
        found.append(start + _within(small, large, length))
        start += math.prod(large)
    return torch.cat(found)


def _within(own: torch.Size, common: torch.Size, length: int) -> Tensor:
    index = torch.arange(math.prod(common)).view(common)
    for axis, (size, whole) in enumerate(zip(own, common, strict=True)):
        if size != whole:
            gap = [*range(length), *range(length + whole - size, whole)]
            index = index.index_select(axis, torch.tensor(gap))
    return index.flatten()


class Dropout:
    """The tapes of a group's steps. What models ask for is found by a forward pass for each length of prompts and each
    size of batch."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self.needed = any(member.job.spec.model.dropout for member in members)
        self._found: dict[int, list[Drawn]] = {}

    def factors(self, steps: Sequence[int], views: Views) -> Tensor:
        """(K, N): 0 or 1 / (1 - p), never 0 on padding. `views` (B, ...) are any one trial's."""
        drawn = self._found.get(views.complete.size) or self._find(views)
        like = next(self._members[0].run.model.parameters()).detach()
        shares = [member.job.spec.model.dropout for member in self._members]
        share_K1 = torch.tensor(shares, dtype=like.dtype, device=like.device).unsqueeze(1)
        fresh_KN = like.new_ones(len(self._members), drawn[0].common)
        for row_N, member, step, one in zip(fresh_KN, self._members, steps, drawn, strict=True):
            if member.job.spec.model.dropout:
                _draw(row_N, member, step, one)
        return (fresh_KN >= share_K1).to(like.dtype).div_(1.0 - share_K1)

    def _find(self, views: Views) -> list[Drawn]:
        lengths = [prompt_length(member.job.spec.model) for member in self._members]
        shapes = {length: asked(self._members[lengths.index(length)], views) for length in sorted(set(lengths))}
        common = shapes[max(lengths)]
        known = {
            length: Drawn(_numbers(own), _numbers(common), places(own, common, length))
            for length, own in shapes.items()
        }
        self._found[views.complete.size] = [known[length] for length in lengths]
        return self._found[views.complete.size]


def _numbers(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _draw(row_N: Tensor, member: Member, step: int, drawn: Drawn) -> None:
    """Uniform numbers in a trial's places."""
    member.run.seed_noise(member.job.spec.seed, 0, step)
    if drawn.place is None:
        row_N.uniform_(generator=member.run.noise)
    else:
        own_N = row_N.new_empty(drawn.own).uniform_(generator=member.run.noise)
        row_N[drawn.place.to(row_N.device)] = own_N
