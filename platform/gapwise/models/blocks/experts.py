"""A product of experts as the readout: each part of a representation votes on the whole distribution of the label.

For each of J hypotheses an expert gives log-likelihoods of the label's values; what is missing says nothing, the rest
add up, and the hypotheses are summed out. This is how independent evidence combines (Hinton 2002), with a mixture so
that parts may contradict each other for a reason that no label names (ours). About a score, an expert's vote is
Gaussian: three numbers a hypothesis, where a free table learns its few samples by heart. A vote counts by the share of
its modality's frames that was observed, to a learned power between 0 (one look says all) and 1 (frames that are
independent of each other).

Scores are read on the values that labels have where these are few, else on a grid over the label range, with targets
blurred by a step (Imani and White 2018).

Shape legend: B samples, E experts, I input features, J hypotheses, V values of the label (or classes).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.shape import DataShape, Statistics
from gapwise.models.blocks.attention import Drop, split_axis
from gapwise.models.blocks.heads import LabelScale, LinearBank, TaskHead, cross_entropy
from gapwise.spec.model import EncoderSpec

GRID = 25
"""Values that a score's distribution is given on where labels lie anywhere; the ends of the label range included."""
GAUSSIAN = 3
"""Numbers of a Gaussian vote: constant, slope and curvature in the standardised label."""


class ExpertsHead(nn.Module):
    """Log-odds over the label's values, (B, V), from the experts' inputs."""

    grid: Tensor

    def __init__(self, experts: int, inputs: int, spec: EncoderSpec, shape: DataShape, statistics: Statistics) -> None:
        super().__init__()
        self.scores, self.by_mean = shape.task == "regression", spec.task_loss == "mse"
        self.scale = LabelScale(shape, statistics)
        self.atoms = bool(statistics.label_values)
        values = torch.tensor(statistics.label_values) if self.atoms else torch.linspace(*shape.label_range, GRID)
        self.register_buffer("grid", values, persistent=False)
        self.hypotheses = spec.hypotheses
        self.norm = nn.LayerNorm(inputs)
        self.hidden = LinearBank(experts, inputs, spec.width)
        self.out = LinearBank(experts, spec.width, spec.hypotheses * (GAUSSIAN if self.scores else shape.classes))
        self.prior = nn.Parameter(torch.zeros(spec.hypotheses, len(values) if self.scores else shape.classes))
        self.growth = nn.Parameter(torch.zeros(experts))

    def forward(self, parts_BEI: Tensor, share_BE: Tensor, drop: Drop) -> Tensor:
        """(B, V); an expert of share 0 has no say, whatever its input."""
        hidden_BEW = drop(functional.gelu(self.hidden(self.norm(parts_BEI))))
        vote_BEJX = split_axis(self.out(hidden_BEW), -1, (self.hypotheses, -1))
        seen_BE = share_BE > 0
        weight_BE = torch.where(seen_BE, torch.where(seen_BE, share_BE, 1.0) ** self.growth.sigmoid(), 0.0)
        summed_BJX = torch.einsum("be,bejx->bjx", weight_BE.to(vote_BEJX.dtype), self._signed(vote_BEJX))
        return (self.prior + self._table(summed_BJX)).logsumexp(1)

    def loss(self, logits_BV: Tensor, labels_B: Tensor) -> Tensor:
        """(B,) nats: cross-entropy to the class, the nearest value, or the score blurred by one step of the grid."""
        if not self.scores:
            return cross_entropy(logits_BV, labels_B)
        distance_BV = (labels_B.to(logits_BV.dtype).unsqueeze(-1) - self.grid).abs()
        if self.atoms:
            return cross_entropy(logits_BV, distance_BV.argmin(-1))
        target_BV = (-0.5 * (distance_BV / self._step()).square()).softmax(-1)
        return -(target_BV * logits_BV.log_softmax(-1)).sum(-1)

    def answer(self, logits_BV: Tensor) -> Tensor:
        """(B, V) logits of classes; for scores (B,), the distribution's median, or its mean under `mse`."""
        if not self.scores:
            return logits_BV
        share_BV = logits_BV.softmax(-1)
        if self.by_mean:
            return (share_BV * self.grid).sum(-1)
        below_BV = share_BV.cumsum(-1) - share_BV
        if self.atoms:
            return self.grid[(below_BV < 0.5).sum(-1) - 1]
        # Each value's share lies evenly over one step around it; clamped, its terms add up to the median's place.
        passed_BV = ((0.5 - below_BV) / share_BV.clamp_min(torch.finfo(share_BV.dtype).tiny)).clamp(0.0, 1.0)
        return (self.grid[0] + self._step() * (passed_BV.sum(-1) - 0.5)).clamp(self.grid[0], self.grid[-1])

    def _signed(self, vote_BEJX: Tensor) -> Tensor:
        """A Gaussian's curvature is downwards; votes on classes are free."""
        if not self.scores:
            return vote_BEJX
        return torch.cat([vote_BEJX[..., :2], -functional.softplus(vote_BEJX[..., 2:])], dim=-1)

    def _table(self, vote_BJX: Tensor) -> Tensor:
        """(B, J, V) log-likelihoods."""
        if not self.scores:
            return vote_BJX
        value_V = self.scale.to_standard(self.grid)
        return vote_BJX @ torch.stack([torch.ones_like(value_V), value_V, value_V.square()])

    def _step(self) -> Tensor:
        return self.grid[1] - self.grid[0]


def build_head(
    spec: EncoderSpec, shape: DataShape, statistics: Statistics, *, inputs: int, experts: int
) -> TaskHead | ExpertsHead:
    """The spec's `readout`: on one representation of `inputs` features, or on as many parts of that size as experts."""
    if spec.readout == "experts":
        return ExpertsHead(experts, inputs, spec, shape, statistics)
    return TaskHead(inputs, spec, shape, statistics)
