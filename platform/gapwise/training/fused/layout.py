"""Where a trial's parameters stand in one flat row: matrices first, because they decay and vectors do not.

A trial whose own parameter is smaller than the group's (shorter prompts) fills its first elements; the rest is zero,
masked in the model, and stays zero.

Shape legend: K trials, P numbers of all parameters.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapwise.models.blocks.attention import split_axis


class Place(NamedTuple):
    """Of one parameter in a row."""

    start: int
    stop: int
    shape: torch.Size


class Layout:
    """`places` by name of parameter; `decaying` numbers at the front of a row are those of matrices, of `size` all."""

    def __init__(self, pattern: nn.Module) -> None:
        named = dict(pattern.named_parameters())
        order = sorted(named, key=lambda name: named[name].ndim < 2)
        self.places: dict[str, Place] = {}
        self.size = 0
        for name in order:
            stop = self.size + named[name].numel()
            self.places[name] = Place(self.size, stop, named[name].shape)
            self.size = stop
        self.decaying = sum(math.prod(place.shape) for place in self.places.values() if len(place.shape) >= 2)

    def views(self, flat_KP: Tensor) -> dict[str, Tensor]:
        """(K, ...) by name, in the memory of `flat_KP`."""
        return {
            name: split_axis(flat_KP[:, place.start : place.stop], 1, place.shape)
            if place.shape
            else flat_KP[:, place.start]
            for name, place in self.places.items()
        }

    def row(self, flat_P: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A trial's own part of each parameter it has, in the memory of its row and in its own shapes."""
        return {
            name: first(flat_P[self.places[name].start : self.places[name].stop].view(self.places[name].shape), value)
            for name, value in own.items()
        }


def first(whole: Tensor, like: Tensor) -> Tensor:
    """The first elements of every axis, as many as `like` has."""
    for axis, size in enumerate(like.shape):
        whole = whole.narrow(axis, 0, size)
    return whole


def padded(value: Tensor, shape: torch.Size) -> Tensor:
    """The inverse: zeros (False) behind."""
    whole = value.new_zeros(shape)
    first(whole, value).copy_(value)
    return whole
