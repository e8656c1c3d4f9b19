"""`DataShape`: what a model must know of a dataset before it can be built, and nothing else.

It is stored in every checkpoint beside the training-split statistics, so that a model can be rebuilt, and a batch from
another dataset refused, without opening the data it was trained on.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Task = Literal["regression", "classification"]


class ModalityShape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int
    """Features a frame."""
    max_length: int
    """Longest sample of any split, in frames."""


class DataShape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    modalities: dict[str, ModalityShape]
    """By name. The order carries no meaning."""
    label_range: tuple[float, float]
    """Lowest and highest label; for classification (0, classes - 1)."""
    classes: int = 0
    """Number of classes; 0 for regression."""


class Moments(NamedTuple):
    """Mean and standard deviation by feature, (D,) float32 each; a constant feature has deviation 1."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


class Statistics(NamedTuple):
    """Taken from the training split only (valid frames, before any mask), and kept in the checkpoint."""

    modalities: dict[str, Moments]
    label_mean: float
    label_deviation: float
