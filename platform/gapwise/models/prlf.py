"""PRLF as reconstructed here: the most reliable modality leads, the others approach it (methods.md section 2).

Known from the abstract: AMRE scores each modality from recognition confidence and Fisher information and picks the
dominant one; ProgInteract aligns the others to it step by step. Everything else is ours, and no number obtained with it
is the paper's. The complete view is only a target of the consistency term, so it is computed without gradient and
without dropout.

Shape legend: B samples, M modalities, S summary tokens, W model width.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gapwise.data.batch import ModalityBatch
from gapwise.data.shape import DataShape, Statistics
from gapwise.models.blocks import reliability
from gapwise.models.blocks.attention import Drop, keep_all
from gapwise.models.blocks.bank import EncoderBank
from gapwise.models.blocks.encoder import learnable_tokens
from gapwise.models.blocks.experts import ExpertsHead
from gapwise.models.blocks.heads import TaskHead
from gapwise.models.blocks.interaction import Interaction, ProgInteract
from gapwise.models.blocks.reliability import Choice, Judgement, UnimodalHeads
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
from gapwise.spec.model import PrlfSpec


class Judged(NamedTuple):
    """One view after the encoders (see `Encoded`) and the unimodal heads."""

    summary: Tensor
    available: Tensor
    share: Tensor
    judgement: Judgement


class Read(NamedTuple):
    """One view to its end: `lead` (B, S, W) is the normalised dominant, `rest` (B, M, W) every modality, pooled."""

    score: Tensor
    choice: Choice
    interaction: Interaction
    lead: Tensor
    rest: Tensor


class Prlf(MultimodalModel):
    """Loss = task + w_uni * (w_nll * NLL + CE) + w_conf * confidence + w_align * alignment + w_cons * consistency."""

    dropout: Tensor
    fisher_lambda: Tensor
    tau_rel: Tensor
    w_uni: Tensor
    w_nll: Tensor
    w_conf: Tensor
    w_align: Tensor
    w_cons: Tensor
    confidence_scale: Tensor
    statistics_momentum: Tensor

    def __init__(self, spec: PrlfSpec, shape: DataShape, statistics: Statistics) -> None:
        super().__init__()
        self.modalities = tuple(sorted(shape.modalities))
        self.fisher, self.fisher_every = spec.fisher, spec.fisher_every
        self.register_hyperparameters(dropout=spec.dropout, fisher_lambda=spec.fisher_lambda, tau_rel=spec.tau_rel)
        self.register_hyperparameters(w_uni=spec.w_uni, w_nll=spec.w_nll, w_conf=spec.w_conf)
        self.register_hyperparameters(w_align=spec.w_align, w_cons=spec.w_cons)
        self.register_hyperparameters(confidence_scale=spec.confidence_scale)
        self.register_hyperparameters(statistics_momentum=spec.statistics_momentum)
        self.encoders = EncoderBank(spec, shape.modalities, statistics)
        self.heads = UnimodalHeads(
            spec.width, len(self.modalities), shape, statistics, contaminated=spec.likelihood == "contaminated"
        )
        self.placeholder = learnable_tokens(len(self.modalities), spec.summary_tokens, spec.width)
        self.interact = ProgInteract(spec.width, spec.heads, spec.steps)
        self.norm = nn.LayerNorm(spec.width)
        self.head: TaskHead | ExpertsHead
        if spec.readout == "experts":
            self.head = ExpertsHead(len(self.modalities), 2 * spec.width, spec, shape, statistics)
        else:
            self.head = TaskHead(2 * spec.width, spec, shape, statistics)

    def initial_state(self) -> State:
        """Running statistics of both cues; for `ema` also the empirical Fisher information by modality, (M,)."""
        state = reliability.initial_statistics(self.tau_rel)
        if self.fisher == "ema":
            state["fisher_ema"] = self.tau_rel.new_ones(len(self.modalities))
            state["fisher_refreshes"] = self.tau_rel.new_zeros(())
        return state

    def forward(
        self, incomplete: ModalityBatch, complete: ModalityBatch, state: State, noise: Noise, workers: Collective
    ) -> Loss:
        drop = partial(noise.dropout, probability=self.dropout)
        student = self._judge(incomplete, drop)
        after = self._observe(student, state, workers)
        read = self._read(student, after, drop)
        output = self._output(student, read, drop)
        with torch.no_grad():
            teacher = self._judge(complete, keep_all)
            target_BSW = self._read(teacher, after, keep_all).lead
        gap_B = (read.lead - target_BSW).square().mean((1, 2))
        both_B = student.available.any(1) & teacher.available.any(1)
        task_B = self.head.loss(output, incomplete.labels)
        terms = {
            "task": mean_over_batch(task_B, task_B.new_ones(task_B.shape), workers),
            **self._unimodal(student, incomplete.labels, workers),
            "alignment": alignment(student, read, workers),
            "consistency": mean_over_batch(gap_B, both_B, workers),
        }
        total = weighted_sum(terms, self._weights())
        return Loss(total, {name: term.detach() for name, term in terms.items()}, after)

    def predict(self, batch: ModalityBatch, state: State) -> Prediction:
        """Diagnostics, modalities in sorted order: `score` (B, M) is r before the softmax, `reliability` (B, M) is R,
        `dominant` (B,) the position of the leading modality, -1 where nothing is available."""
        judged = self._judge(batch, keep_all)
        read = self._read(judged, state, keep_all)
        dominant_B = torch.where(judged.available.any(1), read.choice.hard.argmax(1), -1)
        diagnostics = {"score": read.score, "reliability": read.choice.weight, "dominant": dominant_B}
        return Prediction(output=self.head.answer(self._output(judged, read, keep_all)), diagnostics=diagnostics)

    def refresh(self, batch: ModalityBatch, state: State, step: int, workers: Collective) -> State:
        """`ema` only, every `fisher_every` steps: squared gradients of the unimodal loss by encoder.

        An approximation of the empirical Fisher information: the gradient of the *mean* loss over the global batch is
        squared, not each sample's own, which would cost a backward pass a sample. Gradients are averaged over workers
        before they are squared. Mean of squares in each parameter tensor, then over an encoder's tensors, then an
        exponential moving average.
        """
        if self.fisher != "ema" or step % self.fisher_every:
            return state
        fresh_M = self._empirical_fisher(batch, workers)
        rate = torch.maximum(self.statistics_momentum, 1.0 / (state["fisher_refreshes"] + 1.0))
        ema_M = torch.lerp(state["fisher_ema"], fresh_M, rate)
        return {**state, "fisher_ema": ema_M, "fisher_refreshes": state["fisher_refreshes"] + 1.0}

    def _empirical_fisher(self, batch: ModalityBatch, workers: Collective) -> Tensor:
        """(M,): an encoder's parameters reach only its own modality's loss, so one gradient serves all of them."""

        def loss(parameters: dict[str, Tensor]) -> Tensor:
            summary_BMSW, available_BM, _ = torch.func.functional_call(self.encoders, parameters, (batch, keep_all))
            cells = self.heads.losses(self.heads(summary_BMSW.mean(2)), batch.labels, self.confidence_scale)
            cells_BM = self.w_nll * cells.nll + cells.classes
            columns = zip(cells_BM.unbind(1), available_BM.unbind(1), strict=True)
            return torch.stack([mean_over_batch(cell, counted, workers) for cell, counted in columns]).sum()

        gradients = torch.func.grad(loss)({name: value.detach() for name, value in self.encoders.named_parameters()})
        names = sorted(gradients)
        flat = workers.total(torch.cat([gradients[name].flatten() for name in names])) / workers.world
        pieces = torch.split(flat, [gradients[name].numel() for name in names])
        squares = {name: piece.square().mean() for name, piece in zip(names, pieces, strict=True)}
        return torch.stack([_mean_under(squares, f"encoders.of_{modality}.") for modality in self.modalities])

    def _judge(self, batch: ModalityBatch, drop: Drop) -> Judged:
        encoded = self.encoders(batch, drop)
        return Judged(encoded.summary, encoded.available, encoded.share, self.heads(encoded.summary.mean(2)))

    def _observe(self, judged: Judged, state: State, workers: Collective) -> State:
        """Running statistics after the incomplete view, which is what will be met at test."""
        cues = {"confidence": judged.judgement.confidence}
        cues["fisher"] = reliability.log_fisher(self.fisher, judged.judgement, state)
        return reliability.updated(cues, judged.available, self.statistics_momentum, state, workers)

    def _read(self, judged: Judged, state: State, drop: Drop) -> Read:
        confidence_BM = reliability.standardised("confidence", judged.judgement.confidence, state)
        fisher_BM = reliability.log_fisher(self.fisher, judged.judgement, state)
        fisher_BM = reliability.standardised("fisher", fisher_BM, state)
        score_BM = torch.lerp(fisher_BM, confidence_BM, self.fisher_lambda)
        choice = reliability.choose(score_BM, judged.available, self.tau_rel)
        known_BM11 = judged.available.unsqueeze(-1).unsqueeze(-1)
        interaction = self.interact(torch.where(known_BM11, judged.summary, self.placeholder), choice, drop)
        lead_BSW = self.norm(interaction.dominant)
        rest_BMW = self.norm(interaction.tokens).mean(2)
        return Read(score_BM, choice, interaction, lead_BSW, rest_BMW)

    def _output(self, judged: Judged, read: Read, drop: Drop) -> Tensor:
        output: Tensor
        lead_BW = read.lead.mean(1)
        if isinstance(self.head, ExpertsHead):
            parts_BMX = torch.cat([lead_BW.unsqueeze(1).expand_as(read.rest), read.rest], dim=-1)
            output = self.head(parts_BMX, judged.share, drop)
        else:
            mixed_BW = torch.einsum("bm,bmw->bw", read.choice.weight, read.rest)
            output = self.head(torch.cat([lead_BW, mixed_BW], dim=-1), drop)
        return output

    def _unimodal(self, judged: Judged, labels_B: Tensor, workers: Collective) -> dict[str, Tensor]:
        """Each term averaged over a sample's available modalities, then over the samples that have any."""
        cells = self.heads.losses(judged.judgement, labels_B, self.confidence_scale)
        share_BM = judged.available.to(cells.nll.dtype)
        share_BM = share_BM / share_BM.sum(1, keepdim=True).clamp_min(1.0)
        return {f"unimodal_{name}": mean_over_batch(cell, share_BM, workers) for name, cell in cells._asdict().items()}

    def _weights(self) -> dict[str, Tensor]:
        return {
            "unimodal_nll": self.w_uni * self.w_nll,
            "unimodal_classes": self.w_uni,
            "unimodal_confidence": self.w_conf,
            "alignment": self.w_align,
            "consistency": self.w_cons,
        }


def alignment(judged: Judged, read: Read, workers: Collective) -> Tensor:
    """Mean over the weak modalities, placeholders included, of samples with a dominant one."""
    weak_BM = (read.choice.hard < 0.5) & judged.available.any(1, keepdim=True)
    return mean_over_batch(read.interaction.distance, weak_BM, workers)


def _mean_under(values: dict[str, Tensor], prefix: str) -> Tensor:
    return torch.stack([value for name, value in values.items() if name.startswith(prefix)]).mean()
