"""What the training loop, evaluation and the registry ask of a model, and what a model is given.

`forward` is the training objective, because DDP and `torch.func.functional_call` both go through `forward`;
`predict` is what a served model answers. Whatever changes during training other than parameters is explicit: running
statistics and queues travel as `State` in and out, dropout noise comes from a `Noise` that the caller owns, and sums
over the global batch go through a `Collective`, so the same code runs on one worker, on many, and fused over trials.
Hyperparameters that trials differ in (temperatures, weights, dropout) are non-persistent buffers, so that vmap stacks
them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gapwise.data.batch import ModalityBatch

State = dict[str, Tensor]


class Collective(Protocol):
    """Sums and gathers over the workers that share one global batch."""

    world: int

    def gather(self, local: Tensor) -> Tensor:
        """Concatenate every worker's (n_w, ...) along the first axis, own shard included, with gradient."""

    def total(self, local: Tensor) -> Tensor:
        """Sum over workers, without gradient."""


class Noise(Protocol):
    """A source of fresh dropout noise."""

    def dropout(self, value: Tensor, probability: Tensor) -> Tensor:
        """Zero each element with `probability` (a scalar tensor, may be 0) and rescale the rest."""


class Prediction(NamedTuple):
    """`output` is (B,) scores in label units for regression, (B, C) logits for classes.

    `diagnostics` are (B, ...) tensors worth logging: PRLF's reliability and dominant modality, PROMISE's fused
    representation, by name.
    """

    output: Tensor
    diagnostics: dict[str, Tensor]


class Loss(NamedTuple):
    """`total` is a scalar to differentiate. `terms` are unweighted scalars by name, detached, for logging.

    With W workers `total` is scaled so that the average of the workers' gradients, which is what DDP computes, equals
    the gradient of the one-worker loss on the global batch.
    """

    total: Tensor
    terms: dict[str, Tensor]
    state: State


class MultimodalModel(nn.Module, ABC):
    """A model of the catalogue. `modalities` are sorted names; parameters are keyed by them."""

    modalities: tuple[str, ...]
    separable: ClassVar[bool] = False
    """Whether `total` of a batch is the mean of its parts' totals, weighted by their samples, and `state` is left as
    it is: only then may gradients be added up over parts of a batch without changing what is trained."""
    refresh_every: int = 0
    """Steps between two that `refresh` does anything in; 0 where it never does."""
    padded: bool = False
    """Whether prompts are padded to those of other trials, in a fused group; a buffer then says which are a trial's."""

    def register_hyperparameters(self, **values: float) -> None:
        """Keep what trials differ in as 0-d buffers, which `vmap` can stack and `state_dict` does not carry."""
        for name, value in values.items():
            self.register_buffer(name, torch.tensor(float(value)), persistent=False)

    def initial_state(self) -> State:
        """Running statistics and queues before the first step; empty where the model keeps none."""
        return {}

    def serving_state(self, state: State) -> State:
        """What of `state` `predict` needs, and a trained model is kept with; the rest serves training alone."""
        return state

    @abstractmethod
    def forward(
        self, incomplete: ModalityBatch, complete: ModalityBatch, state: State, noise: Noise, workers: Collective
    ) -> Loss:
        """The training objective on one local batch: the masked view, and the same samples with nothing masked."""

    @abstractmethod
    def predict(self, batch: ModalityBatch, state: State) -> Prediction:
        """The answer for a batch, without noise. Finite for any `attend`, also when everything is missing."""

    def refresh(self, batch: ModalityBatch, state: State, step: int, workers: Collective) -> State:
        """Hook after an optimiser step for statistics that need a gradient of their own (PRLF's `ema` Fisher)."""
        del batch, step, workers
        return state


class OwnRate(nn.Module):
    """A part of a model whose parameters move at a peak learning rate of their own."""

    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate


class Alone:
    """The collective of a single worker."""

    world = 1

    def gather(self, local: Tensor) -> Tensor:
        return local

    def total(self, local: Tensor) -> Tensor:
        return local.detach()


class Quiet:
    """No dropout: evaluation, and comparisons that must be exact."""

    def dropout(self, value: Tensor, probability: Tensor) -> Tensor:
        del probability
        return value


class SeededNoise:
    """Dropout from one generator, whose state a checkpoint keeps."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def dropout(self, value: Tensor, probability: Tensor) -> Tensor:
        fresh = torch.rand(value.shape, generator=self.generator, device=value.device, dtype=value.dtype)
        kept = (fresh >= probability).to(value.dtype) / (1.0 - probability)
        return value * kept


def mean_over_batch(values: Tensor, counted: Tensor, workers: Collective) -> Tensor:
    """Weighted mean of `values` over the global batch, scaled as `Loss.total` says; 0 where nothing counts.

    `values` and `counted` have the same shape; `counted` is a bool or float weight. A value that is not counted may be
    anything finite.
    """
    weight = counted.to(values.dtype)
    count = workers.total(weight.sum())
    return workers.world * (values * weight).sum() / count.clamp_min(torch.finfo(values.dtype).tiny)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """The total of named terms by their named weights; a term without a weight counts once."""
    names: Sequence[str] = sorted(terms)
    parts = [weights[name] * terms[name] if name in weights else terms[name] for name in names]
    return torch.stack(parts).sum()
