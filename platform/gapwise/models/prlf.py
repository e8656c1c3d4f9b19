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
from gapwise.models.blocks.bank import Encoded, EncoderBank
from gapwise.models.blocks.encoder import learnable_tokens
from gapwise.models.blocks.experts import ExpertsHead, build_head
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
    """One view after the encoders (see `Encoded`) and the unimodal heads; `log_fisher` is (B, M)."""

    summary: Tensor
    available: Tensor
    share: Tensor
    judgement: Judgement
    log_fisher: Tensor


class Led(NamedTuple):
    """One view after the interaction: `score` (B, M) is r before the softmax, `lead` (B, S, W) the dominant after the
    last step, normalised."""

    score: Tensor
    choice: Choice
    interaction: Interaction
    lead: Tensor


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
        self.fisher, self.refresh_every = spec.fisher, spec.fisher_every if spec.fisher == "ema" else 0
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
        self.head = build_head(spec, shape, statistics, inputs=2 * spec.width, experts=len(self.modalities))

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
        with torch.no_grad():  # First: what it frees is memory that the student need not ask for.
            teacher = self._judge(complete, state, keep_all)
        student = self._judge(incomplete, state, drop)
        after = self.observe(student, state, workers)
        with torch.no_grad():
            target_BSW = self._lead(teacher, after, keep_all).lead
        led = self._lead(student, after, drop)
        output = self._output(student, led, drop)
        gap_B = (led.lead - target_BSW).square().mean((1, 2))
        both_B = student.available.any(1) & teacher.available.any(1)
        task_B = self.head.loss(output, incomplete.labels)
        terms = {
            "task": mean_over_batch(task_B, task_B.new_ones(task_B.shape), workers),
            **self.unimodal(student, incomplete.labels, workers),
            "alignment": alignment(student, led, workers),
            "consistency": mean_over_batch(gap_B, both_B, workers),
        }
        total = weighted_sum(terms, self._weights())
        return Loss(total, {name: term.detach() for name, term in terms.items()}, after)

    def predict(self, batch: ModalityBatch, state: State) -> Prediction:
        """Diagnostics, modalities in sorted order: `score` (B, M) is r before the softmax, `reliability` (B, M) is R,
        `dominant` (B,) the position of the leading modality, -1 where nothing is available."""
        judged = self._judge(batch, state, keep_all)
        led = self._lead(judged, state, keep_all)
        dominant_B = torch.where(judged.available.any(1), led.choice.hard.argmax(1), -1)
        diagnostics = {"score": led.score, "reliability": led.choice.weight, "dominant": dominant_B}
        return Prediction(output=self.head.answer(self._output(judged, led, keep_all)), diagnostics=diagnostics)

    def refresh(self, batch: ModalityBatch, state: State, step: int, workers: Collective) -> State:
        """`ema` only, every `fisher_every` steps: squared gradients of the unimodal loss by encoder.

        An approximation of the empirical Fisher information: the gradient of the *mean* loss over the global batch is
        squared, not each sample's own, which would cost a backward pass a sample. Gradients are averaged over workers
        before they are squared. Mean of squares in each parameter tensor, then over an encoder's tensors, then an
        exponential moving average.
        """
        if not self.refresh_every or step % self.refresh_every:
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

    def _judge(self, batch: ModalityBatch, state: State, drop: Drop) -> Judged:
        return self.assess(self.encoders(batch, drop), state)

    def assess(self, encoded: Encoded, state: State) -> Judged:
        judgement = self.heads(encoded.summary.mean(2))
        log_fisher_BM = reliability.log_fisher(self.fisher, judgement, state)
        return Judged(*encoded, judgement, log_fisher_BM)

    def observe(self, judged: Judged, state: State, workers: Collective) -> State:
        """Running statistics after the incomplete view, which is what will be met at test."""
        cues = {"confidence": judged.judgement.confidence, "fisher": judged.log_fisher}
        return reliability.updated(cues, judged.available, self.statistics_momentum, state, workers)

    def choose(self, judged: Judged, state: State) -> tuple[Tensor, Choice]:
        """AMRE's answer: r before the softmax, (B, M), and who leads."""
        confidence_BM = reliability.standardised("confidence", judged.judgement.confidence, state)
        fisher_BM = reliability.standardised("fisher", judged.log_fisher, state)
        score_BM = torch.lerp(fisher_BM, confidence_BM, self.fisher_lambda)
        return score_BM, reliability.choose(score_BM, judged.available, self.tau_rel)

    def _lead(self, judged: Judged, state: State, drop: Drop) -> Led:
        score_BM, choice = self.choose(judged, state)
        known_BM11 = judged.available.unsqueeze(-1).unsqueeze(-1)
        interaction = self.interact(torch.where(known_BM11, judged.summary, self.placeholder), choice, drop)
        return Led(score_BM, choice, interaction, self.norm(interaction.dominant))

    def _output(self, judged: Judged, led: Led, drop: Drop) -> Tensor:
        """From the dominant and all modalities after the interaction: mixed by reliability, or each with its vote."""
        output: Tensor
        lead_BW = led.lead.mean(1)
        rest_BMW = self.norm(led.interaction.settled(led.choice.hard)).mean(2)
        if isinstance(self.head, ExpertsHead):
            parts_BMX = torch.cat([lead_BW.unsqueeze(1).expand_as(rest_BMW), rest_BMW], dim=-1)
            output = self.head(parts_BMX, judged.share, drop)
        else:
            mixed_BW = torch.einsum("bm,bmw->bw", led.choice.weight, rest_BMW)
            output = self.head(torch.cat([lead_BW, mixed_BW], dim=-1), drop)
        return output

    def unimodal(self, judged: Judged, labels_B: Tensor, workers: Collective) -> dict[str, Tensor]:
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


def alignment(judged: Judged, led: Led, workers: Collective) -> Tensor:
    """Mean over the weak modalities, placeholders included, of samples with a dominant one."""
    weak_BM = (led.choice.hard < 0.5) & judged.available.any(1, keepdim=True)
    return mean_over_batch(led.interaction.distance(), weak_BM, workers)


def _mean_under(values: dict[str, Tensor], prefix: str) -> Tensor:
    return torch.stack([value for name, value in values.items() if name.startswith(prefix)]).mean()
