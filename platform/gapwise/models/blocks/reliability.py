"""AMRE: how reliable each modality of a sample is, and which one leads (PRLF as reconstructed here, methods.md 2).

Reliability mixes recognition confidence C with Fisher information F, both standardised with running statistics pooled
over all available (sample, modality) cells, so that differences between modalities survive. F always enters as a
logarithm in which more means more reliable:

- `precision`: -s_m, the log Fisher information about the score that N(mu_m, exp(s_m)) carries;
- `trace`: -log(||h_m||^2 (1 - ||p_m||^2)), since the trace for the softmax head grows with uncertainty;
- `ema`: the log of a modality's share of the empirical Fisher information, a running value that `refresh` keeps.

Classes (ours, methods.md is silent): the Gaussian is about the one-hot label, with mean p_m. The task's gradient
reaches the heads through R and the straight-through choice, so reliability is shaped by the task as well as by its own
terms (ours). Running statistics travel in and out; they come from all-reduced sums, so that they are equal on every
worker. Nothing here needs a second backward pass.

Shape legend: B samples, M modalities, W model width, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.shape import DataShape, Statistics
from gapwise.models.blocks.attention import floored, masked_softmax
from gapwise.models.blocks.heads import LabelScale, LinearBank, cross_entropy, one_hot
from gapwise.models.interface import Collective, State
from gapwise.spec.model import Fisher

BAND_SHARE = 0.05
"""Half-width of the neutral band, as a share of the label range: 0.1 on [-1, 1] (the cut of SIMS), 0.3 on [-3, 3]."""
LOG_VARIANCE_LIMIT = 6.0
"""Log-variances stay within this, smoothly; in standardised labels exp(+-6) is far outside what data can tell."""
MISLED = -3.0
"""Log-odds, at the start, that a modality says nothing about this sample's score."""
EPSILON = 1e-6


class Judgement(NamedTuple):
    """What the unimodal heads say, (B, M, ...): the mean answer (standardised score, or class probabilities), the
    log-variance, class logits, the predicted confidence, and the pooled features `features` they were made from."""

    mean: Tensor
    log_variance: Tensor
    logits: Tensor
    confidence: Tensor
    features: Tensor


class Unimodal(NamedTuple):
    """Per (sample, modality) cell, (B, M): Gaussian NLL, class cross-entropy, squared error of the confidence."""

    nll: Tensor
    classes: Tensor
    confidence: Tensor


class Choice(NamedTuple):
    """(B, M) each: `weight` R sums to one over available modalities (zero if there is none), `dominant` is a one-hot
    choice with R's gradient, `hard` the same without gradient; uniform if nothing is available."""

    weight: Tensor
    dominant: Tensor
    hard: Tensor


class LabelClasses(nn.Module):
    """Classes of a label: its own, or negative / neutral / positive for scores.

    Scores are cut at a band around 0 if the label range straddles it, otherwise around the middle of the range.
    """

    low: Tensor
    high: Tensor

    def __init__(self, shape: DataShape) -> None:
        super().__init__()
        lowest, highest = shape.label_range
        centre = 0.0 if lowest < 0.0 < highest else (lowest + highest) / 2
        band = BAND_SHARE * (highest - lowest)
        self.number = shape.classes if shape.task == "classification" else 3
        self.scores = shape.task == "regression"
        self.register_buffer("low", torch.tensor(centre - band), persistent=False)
        self.register_buffer("high", torch.tensor(centre + band), persistent=False)

    def forward(self, labels_B: Tensor) -> Tensor:
        if not self.scores:
            return labels_B
        return (labels_B >= self.low).long() + (labels_B > self.high).long()


class UnimodalHeads(nn.Module):
    """One linear head a modality for the mean and log-variance (scores) or log-variance (classes), class logits and
    confidence, on pooled features (B, M, W).

    `contaminated` (scores only): with a learned probability a modality misleads, and the label has its own distribution
    instead of the head's (Tukey's contaminated normal, 1960); rare gross errors then do not pass for imprecision.
    """

    def __init__(
        self, width: int, modalities: int, shape: DataShape, statistics: Statistics, *, contaminated: bool
    ) -> None:
        super().__init__()
        self.classes = LabelClasses(shape)
        self.scale = LabelScale(shape, statistics)
        self.scores = shape.task == "regression"
        self.misled = nn.Parameter(torch.full((modalities,), MISLED)) if contaminated and self.scores else None
        self.bank = LinearBank(modalities, width, self.classes.number + (3 if self.scores else 2))

    def forward(self, features_BMW: Tensor) -> Judgement:
        answers = self.bank(features_BMW)
        log_variance_BM = LOG_VARIANCE_LIMIT * torch.tanh(answers[..., 0] / LOG_VARIANCE_LIMIT)
        logits_BMC = answers[..., 2 : 2 + self.classes.number]
        mean = answers[..., -1] if self.scores else logits_BMC.softmax(-1)
        return Judgement(mean, log_variance_BM, logits_BMC, answers[..., 1].sigmoid(), features_BMW)

    def losses(self, judgement: Judgement, labels_B: Tensor, confidence_scale: Tensor) -> Unimodal:
        """Unweighted terms of every cell, also of unavailable ones, which the caller must not count."""
        classes_BM = self.classes(labels_B).unsqueeze(-1).expand(judgement.log_variance.shape)
        miss_BM = self._squared_error(judgement, labels_B)
        nll_BM = 0.5 * (judgement.log_variance + torch.exp(-judgement.log_variance) * miss_BM)
        if self.misled is not None:
            unrelated_B1 = 0.5 * self.scale.to_standard(labels_B).square().unsqueeze(-1)
            led_M, misled_M = functional.logsigmoid(-self.misled), functional.logsigmoid(self.misled)
            nll_BM = -torch.logaddexp(led_M - nll_BM, misled_M - unrelated_B1)
        truth_BM = self._confidence(judgement, labels_B, confidence_scale).detach()
        entropy_BM = cross_entropy(judgement.logits, classes_BM)
        return Unimodal(nll_BM, entropy_BM, (judgement.confidence - truth_BM).square())

    def _squared_error(self, judgement: Judgement, labels_B: Tensor) -> Tensor:
        if self.scores:
            return (judgement.mean - self.scale.to_standard(labels_B).unsqueeze(-1)).square()
        truth_B1C = one_hot(labels_B, self.classes.number).unsqueeze(1)
        return (judgement.mean - truth_B1C.to(judgement.mean.dtype)).square().mean(-1)

    def _confidence(self, judgement: Judgement, labels_B: Tensor, confidence_scale: Tensor) -> Tensor:
        if self.scores:
            miss_BM = self.scale.to_label(judgement.mean) - labels_B.unsqueeze(-1)
            return torch.exp(-miss_BM.abs() / confidence_scale)
        return (judgement.mean * one_hot(labels_B, self.classes.number).unsqueeze(1)).sum(-1)


def initial_statistics(like: Tensor) -> State:
    """Running mean and variance of C and of log F, and the number of batches they have seen; 0-d each."""
    zero, one = like.new_zeros(()), like.new_ones(())
    moments = {f"{cue}_{moment}": zero.clone() for cue in ("confidence", "fisher") for moment in ("mean", "variance")}
    return {**moments, "confidence_variance": one.clone(), "fisher_variance": one.clone(), "batches": zero.clone()}


def log_fisher(definition: Fisher, judgement: Judgement, state: State) -> Tensor:
    """(B, M): the logarithm of Fisher information, its sign set so that more is more reliable."""
    if definition == "precision":
        return -judgement.log_variance
    if definition == "trace":
        spread_BM = 1.0 - judgement.logits.softmax(-1).square().sum(-1)
        return -torch.log(judgement.features.square().sum(-1) * spread_BM + EPSILON)
    share_M = state["fisher_ema"] / state["fisher_ema"].sum().clamp_min(torch.finfo(judgement.mean.dtype).tiny)
    return torch.log(share_M + EPSILON).expand(judgement.log_variance.shape)


def updated(
    cues: dict[str, Tensor], available_BM: Tensor, momentum: Tensor, state: State, workers: Collective
) -> State:
    """Running statistics after this batch's available cells, all workers together; unchanged if there is no cell.

    The first batches are averaged (rate 1/n) until that rate falls below `momentum`.
    """
    names = sorted(cues)
    counted_BM = available_BM.to(momentum.dtype)
    cells = torch.stack([torch.where(available_BM, cues[name].detach(), 0.0) for name in names])
    sums = workers.total(
        torch.stack([cells.sum((1, 2)), cells.square().sum((1, 2)), counted_BM.sum().expand(len(names))])
    )
    count = sums[2, 0]
    means, squares = sums[:2] / count.clamp_min(1.0)
    seen = (count > 0).to(momentum.dtype)
    rate = seen * torch.maximum(momentum, 1.0 / (state["batches"] + 1.0))
    after = {**state, "batches": state["batches"] + seen}
    for position, name in enumerate(names):
        variance = (squares[position] - means[position].square()).clamp_min(0.0)
        after[f"{name}_mean"] = torch.lerp(state[f"{name}_mean"], means[position], rate)
        after[f"{name}_variance"] = torch.lerp(state[f"{name}_variance"], variance, rate)
    return after


def standardised(name: str, cue_BM: Tensor, state: State) -> Tensor:
    """The cue in running standard deviations from the running mean, squashed into (0, 1)."""
    return torch.sigmoid((cue_BM - state[f"{name}_mean"]) * torch.rsqrt(state[f"{name}_variance"] + EPSILON))


def choose(reliability_BM: Tensor, available_BM: Tensor, tau: Tensor) -> Choice:
    """Softmax over available modalities, and the most reliable one, straight-through (Bengio et al. 2013)."""
    weight_BM = masked_softmax(reliability_BM / tau, available_BM)
    best_B = floored(reliability_BM, available_BM).argmax(-1)
    number = available_BM.shape[-1]
    some_B1 = available_BM.any(-1, keepdim=True)
    hard_BM = torch.where(some_B1, one_hot(best_B, number).to(weight_BM.dtype), 1.0 / number)
    return Choice(weight_BM, hard_BM + weight_BM - weight_BM.detach(), hard_BM)
