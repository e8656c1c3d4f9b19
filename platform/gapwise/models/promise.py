"""PROMISE as reconstructed here: prompt attention under a two-level contrastive hierarchy (methods.md section 1).

Known from public summaries: prompts, generation of missing modalities from available ones, a fusion-driven cross-modal
level (FNCL) and a cohesion-driven intra-modal level (CCCL). Everything else is ours, and no number obtained with it is
the paper's. The complete view is a teacher: it enters only as a target, so it is computed without gradient and without
dropout, at a third of the price of a second student.

The teacher's points stay in a queue for the steps that follow, as further negatives of FNCL. They serve CCCL too, by
their labels: in a small batch few labels are close, and its gallery holds the teacher's points anyway.

Shape legend: B samples, G samples of the global batch, M modalities, S summary tokens, N fusion tokens, W model width,
P projection size.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapwise.data.batch import ModalityBatch
from gapwise.data.shape import DataShape, Statistics
from gapwise.models.blocks import contrastive
from gapwise.models.blocks.attention import Drop, Transformer, keep_all
from gapwise.models.blocks.bank import Encoded, EncoderBank
from gapwise.models.blocks.contrastive import Points
from gapwise.models.blocks.encoder import learnable_tokens
from gapwise.models.blocks.experts import ExpertsHead, build_head
from gapwise.models.blocks.heads import LinearBank
from gapwise.models.blocks.prompting import PromptAttention, Prompted, others
from gapwise.models.blocks.queue import Queue
from gapwise.models.interface import (
    Collective,
    Loss,
    MultimodalModel,
    Noise,
    Prediction,
    State,
    mean_over_batch,
    weighted_sum,
)
from gapwise.spec.model import PromiseSpec

INCOMPLETE, COMPLETE = 0, 1


class View(NamedTuple):
    """One view of the samples, encoded (H_m), prompted (X_m, G_m) and fused: `fused` is (B, W)."""

    encoded: Encoded
    prompted: Prompted
    fused: Tensor


class Gallery(NamedTuple):
    """What anchors are compared with: both views of the global batch, (1 + M, G, P) each, its labels, and the queue."""

    incomplete: Points
    complete: Points
    labels: Tensor
    queue: Queue


class Fusion(nn.Module):
    """Transformer over [CLS_s ; X_1 ; ... ; X_M]; its first token is the fused representation."""

    def __init__(self, spec: PromiseSpec, modalities: int) -> None:
        super().__init__()
        self.first = learnable_tokens(1, spec.width)
        self.modality = learnable_tokens(modalities, 1, spec.width)
        self.origin = learnable_tokens(2, spec.width)
        self.transformer = Transformer(spec.width, spec.heads, spec.depth)

    def forward(self, prompted: Prompted, available_BM: Tensor, drop: Drop) -> Tensor:
        """(B, W). The CLS token carries the mean of the scenario prompt, so it knows what is missing."""
        generated_W, observed_W = self.origin.unbind(0)
        origin_BM1W = torch.where(available_BM.unsqueeze(-1), observed_W, generated_W).unsqueeze(2)
        tokens_BMSW = prompted.tokens + self.modality + origin_BM1W
        first_B1W = self.first + prompted.scenario.mean(1, keepdim=True)
        tokens_BNW = torch.cat([first_B1W, tokens_BMSW.flatten(1, 2)], dim=1)
        fused_B1W: Tensor = self.transformer(tokens_BNW, None, drop, 1)
        return fused_B1W.squeeze(1)


class Promise(MultimodalModel):
    """Loss = task + w_cross * FNCL + w_intra * CCCL + w_rec * ||G_u - sg(H_u)||^2, the task on the incomplete view."""

    dropout: Tensor
    tau_cross: Tensor
    tau_intra: Tensor
    w_cross: Tensor
    w_intra: Tensor
    w_rec: Tensor
    label_bandwidth: Tensor
    own_prompts: Tensor

    def __init__(self, spec: PromiseSpec, shape: DataShape, statistics: Statistics) -> None:
        super().__init__()
        self.modalities = tuple(sorted(shape.modalities))
        self.task = shape.task
        self.queue_shape = (1 + len(self.modalities), spec.queue, spec.projection)
        self.register_hyperparameters(dropout=spec.dropout, tau_cross=spec.tau_cross, tau_intra=spec.tau_intra)
        self.register_hyperparameters(w_cross=spec.w_cross, w_intra=spec.w_intra, w_rec=spec.w_rec)
        self.register_hyperparameters(label_bandwidth=spec.label_bandwidth)
        self.register_buffer("own_prompts", torch.ones(spec.prompt_length, dtype=torch.bool), persistent=False)
        self.encoders = EncoderBank(spec, shape.modalities, statistics, spec.prompt_length)
        self.prompting = PromptAttention(spec, len(self.modalities))
        self.fusion = Fusion(spec, len(self.modalities))
        self.project = LinearBank(1 + len(self.modalities), spec.width, spec.projection)
        self.head = build_head(spec, shape, statistics, inputs=spec.width, experts=1 + len(self.modalities))

    def initial_state(self) -> State:
        """The empty queue; nothing for a queue without slots."""
        return self._empty_queue().to_state()

    def serving_state(self, state: State) -> State:
        """Nothing: the queue serves training alone."""
        del state
        return {}

    def forward(
        self, incomplete: ModalityBatch, complete: ModalityBatch, state: State, noise: Noise, workers: Collective
    ) -> Loss:
        drop = partial(noise.dropout, probability=self.dropout)
        with torch.no_grad():  # First: what it frees is memory that the student need not ask for.
            teacher = self._view(complete, keep_all)
            target = self._points(teacher, incomplete.rows, COMPLETE)
        student = self._view(incomplete, drop)
        output = self._output(student, drop)
        points = self._points(student, incomplete.rows, INCOMPLETE)
        gallery = self._gallery(points, target, incomplete.labels, state, workers)
        task_B = self.head.loss(output, incomplete.labels)
        terms = {
            "task": mean_over_batch(task_B, task_B.new_ones(task_B.shape), workers),
            "fncl": self._fncl(points, gallery, workers),
            "cccl": self._cccl(points, gallery, incomplete.labels, workers),
            "reconstruction": reconstruction(student, teacher, workers),
        }
        weights = {"fncl": self.w_cross, "cccl": self.w_intra, "reconstruction": self.w_rec}
        after = gallery.queue.pushed(gallery.complete, gallery.labels).to_state()
        return Loss(weighted_sum(terms, weights), {name: term.detach() for name, term in terms.items()}, after)

    def predict(self, batch: ModalityBatch, state: State) -> Prediction:
        """Diagnostics: `fused` (B, W)."""
        del state
        view = self._view(batch, keep_all)
        return Prediction(output=self.head.answer(self._output(view, keep_all)), diagnostics={"fused": view.fused})

    def _view(self, batch: ModalityBatch, drop: Drop) -> View:
        encoded = self.encoders(batch, drop, self.prompting.prompts)
        prompted = self.prompting(encoded, drop, self.own_prompts if self.padded else None)
        return View(encoded, prompted, self.fusion(prompted, encoded.available, drop))

    def _output(self, view: View, drop: Drop) -> Tensor:
        output: Tensor
        if isinstance(self.head, ExpertsHead):
            # z and every present modality vote; what was generated only repeats what the others say.
            parts_BNW = torch.cat([view.fused.unsqueeze(1), view.prompted.tokens.mean(2)], dim=1)
            share_BM = view.encoded.share
            output = self.head(parts_BNW, torch.cat([share_BM.amax(1, keepdim=True), share_BM], dim=1), drop)
        else:
            output = self.head(view.fused, drop)
        return output

    def _points(self, view: View, rows_B: Tensor, number: int) -> Points:
        """Unit-sphere projections, (1 + M, B, P): z first, then every z_m.

        In the incomplete view whatever rests on some available modality counts, generated vectors too; in the complete
        view only what is real.
        """
        pooled_BNW = torch.cat([view.fused.unsqueeze(1), view.prompted.tokens.mean(2)], dim=1)
        some_B1 = view.encoded.available.any(1, keepdim=True)
        real_BM = view.encoded.available if number == COMPLETE else some_B1.expand_as(view.encoded.available)
        valid_BN = torch.cat([some_B1, real_BM], dim=1)
        return contrastive.points(self.project(pooled_BNW).transpose(0, 1), valid_BN.T, rows_B, number)

    def _empty_queue(self) -> Queue:
        labels = self.tau_cross.dtype if self.task == "regression" else torch.int64
        return Queue.empty(self.queue_shape, self.tau_cross, labels)

    def _gallery(self, points: Points, target: Points, labels_B: Tensor, state: State, workers: Collective) -> Gallery:
        kinds, slots, _ = self.queue_shape
        every = contrastive.gather(stack(points, target), workers)
        complete = every.part(kinds, 2 * kinds)._replace(view=torch.full_like(every.view, COMPLETE))
        queue = Queue.of_state(state) if slots else self._empty_queue()
        return Gallery(every.part(0, kinds), complete, workers.gather(labels_B), queue)

    def _fncl(self, points: Points, gallery: Gallery, workers: Collective) -> Tensor:
        """Cross-modal level: z with each z_m, both ways, and z of the incomplete view towards that of the complete."""
        fused, each = points.part(0, 1), points.part(1, 1 + len(self.modalities))
        own = contrastive.together(gallery.incomplete, gallery.queue.points)
        across = contrastive.symmetric_info_nce(fused, each, self.tau_cross, workers, own)
        whole = contrastive.together(gallery.complete.part(0, 1), gallery.queue.points.part(0, 1))
        return across + contrastive.info_nce(fused, whole, self.tau_cross, workers)

    def _cccl(self, points: Points, gallery: Gallery, labels_B: Tensor, workers: Collective) -> Tensor:
        """Intra-modal level: inside each modality, generated and real vectors of both views, weighted by label."""
        among = contrastive.together(gallery.incomplete, gallery.complete, gallery.queue.points)
        labels_G = torch.cat([gallery.labels, gallery.labels, gallery.queue.labels])
        bandwidth = self.label_bandwidth if self.task == "regression" else None
        weight_BG = contrastive.closeness(labels_B, labels_G, bandwidth)
        each, rest = (one.part(1, 1 + len(self.modalities)) for one in (points, among))
        return contrastive.supervised_contrast(each, rest, weight_BG, self.tau_intra, workers)


def stack(first: Points, second: Points) -> Points:
    """Two sets of points of the same samples, one above the other along the leading axis, to be gathered at once."""
    return first._replace(vector=torch.cat([first.vector, second.vector]), valid=torch.cat([first.valid, second.valid]))


def reconstruction(student: View, teacher: View, workers: Collective) -> Tensor:
    """Mean squared distance of G_u to the real tokens, over modalities that are known and that others can speak for."""
    gap_BM = (student.prompted.generated - teacher.encoded.summary.detach()).square().mean((2, 3))
    spoken_BM = others(student.encoded.available).any(-1)
    return mean_over_batch(gap_BM, teacher.encoded.available & spoken_BM, workers)
