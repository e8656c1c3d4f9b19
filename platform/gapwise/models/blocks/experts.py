"""A product of experts as the readout: each part of a representation votes on the whole distribution of the label.

Every expert gives, for each of J hypotheses, a table of log-likelihoods over the label's values; what is missing says
nothing, the rest add up, and the hypotheses are summed out. This is how independent evidence combines (Hinton 2002),
with a mixture so that parts may contradict each other for a reason that no label names (ours). Scores are read from a
grid over the label range, trained on targets blurred over neighbouring values (Imani and White 2018).

Shape legend: B samples, E experts, I input features, J hypotheses, V values of the label (or classes).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapwise.data.shape import DataShape
from gapwise.models.blocks.attention import Drop, split_axis
from gapwise.models.blocks.heads import LinearBank, cross_entropy
from gapwise.spec.model import EncoderSpec

GRID = 25
"""Values that a score's distribution is given on, ends of the label range included."""


class ExpertsHead(nn.Module):
    """Log-odds over the label's values, (B, V), from the experts' inputs."""

    grid: Tensor

    def __init__(self, experts: int, inputs: int, spec: EncoderSpec, shape: DataShape) -> None:
        super().__init__()
        self.scores = shape.task == "regression"
        self.by_mean = spec.task_loss == "mse"
        self.register_buffer("grid", torch.linspace(*shape.label_range, GRID), persistent=False)
        self.table = (spec.hypotheses, GRID if self.scores else shape.classes)
        self.norm = nn.LayerNorm(inputs)
        self.hidden = LinearBank(experts, inputs, spec.width)
        self.out = LinearBank(experts, spec.width, self.table[0] * self.table[1])
        self.prior = nn.Parameter(torch.zeros(self.table))

    def forward(self, parts_BEI: Tensor, weight_BE: Tensor, drop: Drop) -> Tensor:
        """(B, V); an expert of weight 0 has no say, whatever its input."""
        hidden_BEW = drop(functional.gelu(self.hidden(self.norm(parts_BEI))))
        table_BEJV = split_axis(self.out(hidden_BEW), -1, self.table)
        voted_BJV = self.prior + torch.einsum("be,bejv->bjv", weight_BE.to(table_BEJV.dtype), table_BEJV)
        return voted_BJV.logsumexp(1)

    def loss(self, logits_BV: Tensor, labels_B: Tensor) -> Tensor:
        """(B,) nats: cross-entropy to the class, or to the score blurred by one step of the grid."""
        if not self.scores:
            return cross_entropy(logits_BV, labels_B)
        steps_BV = (labels_B.to(logits_BV.dtype).unsqueeze(-1) - self.grid) / self._step()
        return -((-0.5 * steps_BV.square()).softmax(-1) * logits_BV.log_softmax(-1)).sum(-1)

    def answer(self, logits_BV: Tensor) -> Tensor:
        """(B, V) logits of classes; for scores (B,), the distribution's median, or its mean under `mse`."""
        if not self.scores:
            return logits_BV
        share_BV = logits_BV.softmax(-1)
        if self.by_mean:
            return (share_BV * self.grid).sum(-1)
        below_BV = share_BV.cumsum(-1) - share_BV
        # Each value's share lies evenly over one step around it; clamped, its terms add up to the median's place.
        passed_BV = ((0.5 - below_BV) / share_BV.clamp_min(torch.finfo(share_BV.dtype).tiny)).clamp(0.0, 1.0)
        return (self.grid[0] + self._step() * (passed_BV.sum(-1) - 0.5)).clamp(self.grid[0], self.grid[-1])

    def _step(self) -> Tensor:
        return self.grid[1] - self.grid[0]
