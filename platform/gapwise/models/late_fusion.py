"""`late_fusion`: the baseline that every comparison carries (methods.md section 3).

The mean of the available modalities' summaries, then an MLP (with `readout: experts`, a control, the product of what
each of them says by itself). It shares its encoders with the other models, so that
whatever they gain over it comes from what they do about missing modalities. It never looks at the complete view.

Shape legend: B samples, M modalities, S summary tokens, W model width.
"""

from functools import partial

from torch import Tensor

from gapwise.data.batch import ModalityBatch
from gapwise.data.shape import DataShape, Statistics
from gapwise.models.blocks.attention import Drop, keep_all
from gapwise.models.blocks.bank import EncoderBank
from gapwise.models.blocks.experts import ExpertsHead, build_head
from gapwise.models.interface import Collective, Loss, MultimodalModel, Noise, Prediction, State, mean_over_batch
from gapwise.spec.model import LateFusionSpec


class LateFusion(MultimodalModel):
    """Masked mean of encoder summaries, then an MLP. A sample with nothing available gets the MLP's answer to zero."""

    separable = True
    dropout: Tensor

    def __init__(self, spec: LateFusionSpec, shape: DataShape, statistics: Statistics) -> None:
        super().__init__()
        self.modalities = tuple(sorted(shape.modalities))
        self.register_hyperparameters(dropout=spec.dropout)
        self.encoders = EncoderBank(spec, shape.modalities, statistics)
        self.head = build_head(spec, shape, statistics, inputs=spec.width, experts=len(self.modalities))

    def forward(
        self, incomplete: ModalityBatch, complete: ModalityBatch, state: State, noise: Noise, workers: Collective
    ) -> Loss:
        """The task loss on the incomplete view."""
        del complete
        output = self._output(incomplete, partial(noise.dropout, probability=self.dropout))
        loss_B = self.head.loss(output, incomplete.labels)
        task = mean_over_batch(loss_B, loss_B.new_ones(loss_B.shape), workers)
        return Loss(total=task, terms={"task": task.detach()}, state=state)

    def predict(self, batch: ModalityBatch, state: State) -> Prediction:
        del state
        return Prediction(output=self.head.answer(self._output(batch, keep_all)), diagnostics={})

    def _output(self, batch: ModalityBatch, drop: Drop) -> Tensor:
        summary_BMSW, available_BM, share_BM = self.encoders(batch, drop)
        if isinstance(self.head, ExpertsHead):
            voted: Tensor = self.head(summary_BMSW.mean(2), share_BM, drop)
            return voted
        weight_BM = available_BM.to(summary_BMSW.dtype)
        weight_BM = weight_BM / weight_BM.sum(1, keepdim=True).clamp_min(1.0)
        mean_BW = (weight_BM.unsqueeze(-1) * summary_BMSW.mean(2)).sum(1)
        output: Tensor = self.head(mean_BW, drop)
        return output
