"""What is trained, and what comes out: the values on both sides of the loop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from gapwise.data.principal import with_directions
from gapwise.data.shape import DataShape, Statistics
from gapwise.data.store import Dataset, TrainSplit, ValidationSplit
from gapwise.data.tokens import token_statistics
from gapwise.evaluation.objective import settled
from gapwise.models.interface import Alone, Collective, MultimodalModel, State
from gapwise.models.reading import read_shape
from gapwise.spec.train import TrainSpec
from gapwise.training.protocols import EpochReport


class Diverged(ArithmeticError):
    """The loss of an epoch was not finite: the configuration fails, the study goes on."""


def unwrapped(model: MultimodalModel) -> nn.Module:
    """On a single worker nothing stands around the model."""
    return model


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to train, on what, and among how many workers. There is no test split to look at."""

    spec: TrainSpec
    train: TrainSplit
    valid: ValidationSplit
    shape: DataShape
    statistics: Statistics
    fingerprints: dict[str, str]
    """Of the data: `dataset`, `train` and `valid`; they are kept with the model."""
    device: torch.device = torch.device("cpu")
    rank: int = 0
    workers: Collective = Alone()
    wrap: Callable[[MultimodalModel], nn.Module] = unwrapped
    """How Ray Train makes the model data-parallel; what it returns averages gradients over workers."""
    keep_last: bool = False
    """Refit: train every planned epoch and keep the last weights; validation is reported and decides nothing."""


def this_device() -> torch.device:
    """Of a process that Ray gave at most one GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def whole_job(spec: TrainSpec, dataset: Dataset, moments: Statistics, *, keep_last: bool = False) -> Job:
    """The job for a single worker on the CPU; `moments` are the training split's, which are worth computing once.

    Raises SpecError for a metric or missing rates that the dataset does not have; SpecError or DataError where the spec
    names a text encoder that is not there or does not fit the data.
    """
    shape = read_shape(spec.model, dataset)
    if spec.model.components:
        frames = [name for name, one in shape.modalities.items() if one.tokens is None]
        moments = with_directions(moments, dataset.train, frames)
    return Job(
        spec=settled(spec, dataset.manifest.shape(), dataset.valid.labels),
        train=dataset.train.reading(shape),
        valid=dataset.valid.reading(shape),
        shape=shape,
        statistics=token_statistics(moments, shape),
        fingerprints=dataset.fingerprints(),
        keep_last=keep_last,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The kept weights and running statistics, with the curve they reach on validation."""

    model: MultimodalModel
    state: State
    history: list[EpochReport]
    kept: EpochReport
    """The report of the epoch whose weights were kept."""
    stopped: bool
    """Whether the reporter ended the run."""
