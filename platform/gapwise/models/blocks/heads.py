"""Heads: from a representation to an answer in label units, and the loss of that answer, sample by sample.

A regression head predicts the standardised label and rescales it with the training split's mean and deviation, so that
it starts at the mean whatever the label range is. Losses are per sample, (B,), because only the caller knows which
samples count and how many workers share the batch. Averages are refused here.

Shape legend: B samples, M modalities, I input features, O outputs, C classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.shape import DataShape, Statistics
from gapwise.models.blocks.attention import Drop
from gapwise.spec.model import EncoderSpec

Distance = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_BC: Tensor, classes_B: Tensor) -> Tensor:
    """(...,) nats, from (..., C) logits and integer classes of the same leading shape."""
    logp_BC = logits_BC.log_softmax(-1)
    return -(logp_BC * one_hot(classes_B, logits_BC.shape[-1]).to(logp_BC.dtype)).sum(-1)


def one_hot(classes: Tensor, number: int) -> Tensor:
    """(..., number) bool; by comparison, because `functional.one_hot` reads the data."""
    return classes.unsqueeze(-1) == torch.arange(number, device=classes.device)


def _absolute(output_B: Tensor, labels_B: Tensor) -> Tensor:
    return (output_B - labels_B).abs()


def _square(output_B: Tensor, labels_B: Tensor) -> Tensor:
    return (output_B - labels_B).square()


def _huber(output_B: Tensor, labels_B: Tensor) -> Tensor:
    return functional.huber_loss(output_B, labels_B, reduction="none")


DISTANCES: dict[str, Distance] = {"l1": _absolute, "mse": _square, "huber": _huber}
"""In label units; Huber turns linear at one label unit."""


class MlpHead(nn.Module):
    """(..., I) to (..., O) through a normalisation and one hidden layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.hidden = nn.Linear(inputs, hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor, drop: Drop) -> Tensor:
        answer: Tensor = self.out(drop(functional.gelu(self.hidden(self.norm(features)))))
        return answer


class LinearBank(nn.Module):
    """One linear layer a modality, all applied in one product: (B, M, I) to (B, M, O), modalities in sorted order."""

    def __init__(self, modalities: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(modalities, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(modalities, outputs).uniform_(-bound, bound))

    def forward(self, features_BMI: Tensor) -> Tensor:
        return torch.einsum("bmi,mio->bmo", features_BMI, self.weight) + self.bias


class LabelScale(nn.Module):
    """The training split's label mean and deviation; the identity for classes."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: DataShape, statistics: Statistics) -> None:
        super().__init__()
        scores = shape.task == "regression"
        self.register_buffer("mean", torch.tensor(statistics.label_mean if scores else 0.0), persistent=False)
        deviation = statistics.label_deviation if scores and statistics.label_deviation > 0.0 else 1.0
        self.register_buffer("deviation", torch.tensor(deviation), persistent=False)

    def to_label(self, standard: Tensor) -> Tensor:
        return standard * self.deviation + self.mean

    def to_standard(self, label: Tensor) -> Tensor:
        return (label - self.mean) / self.deviation


class TaskHead(nn.Module):
    """The answer to the task: (B,) scores in label units, or (B, C) logits."""

    def __init__(self, inputs: int, spec: EncoderSpec, shape: DataShape, statistics: Statistics) -> None:
        super().__init__()
        self.task = shape.task
        self.distance = DISTANCES[spec.task_loss]
        self.scale = LabelScale(shape, statistics)
        self.mlp = MlpHead(inputs, spec.width, shape.classes if shape.task == "classification" else 1)

    def forward(self, features_BI: Tensor, drop: Drop) -> Tensor:
        answer_BO: Tensor = self.mlp(features_BI, drop)
        return self.scale.to_label(answer_BO.squeeze(-1)) if self.task == "regression" else answer_BO

    def answer(self, output: Tensor) -> Tensor:
        """What is predicted: here the output itself."""
        return output

    def loss(self, output: Tensor, labels_B: Tensor) -> Tensor:
        """(B,): the spec's distance in label units, or cross-entropy in nats."""
        if self.task == "classification":
            return cross_entropy(output, labels_B)
        return self.distance(output, labels_B.to(output.dtype))
