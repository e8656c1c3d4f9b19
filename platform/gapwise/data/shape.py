"""`DataShape`: what a model must know of a dataset before it can be built, and nothing else.

It is stored in every checkpoint beside the training-split statistics, so that a model can be rebuilt, and a batch from
another dataset refused, without opening the data it was trained on.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue

Task = Literal["regression", "classification"]


class TokenShape(BaseModel):
    """A modality that is read as token ids: what they mean, and the pretrained encoder that knows them.

    Resolved once, when a model is first built, so that a trained one needs no tokenizer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary: int
    """Ids are below this."""
    unknown: int
    """The id that a missing token becomes."""
    opening: int | None
    """The id that every sequence begins with ([CLS]), never missing; None if the tokenizer has none."""
    closing: int | None
    """The id that every sequence ends with ([SEP]), never missing; None if the tokenizer has none."""
    config: dict[str, JsonValue]
    """The encoder's architecture, as its config.json has it."""
    digest: str
    """SHA-256 of the encoder's pretrained weights; empty where a model brings all of its weights itself."""

    @property
    def special(self) -> list[int]:
        """Ids that are no content."""
        return [one for one in (self.opening, self.closing) if one is not None]


class ModalityShape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int
    """Features a frame; a token is a frame of one number."""
    max_length: int
    """Longest sample of any split, in frames or tokens."""
    tokens: TokenShape | None = None
    """Set where the modality is read as token ids."""


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
    label_values: tuple[float, ...] = ()
    """The labels that occur, in order, where they are few; empty for scores that lie anywhere."""
    principal: Mapping[str, NDArray[np.float32]] = {}
    """(P, D) principal directions by modality, where a model asks for them; its weights keep them afterwards."""
