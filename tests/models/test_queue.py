"""PROMISE's queue: when it serves, what it holds, and that its losses are those of a loop over explicit lists.

Faked: the data, and other workers by `Alone` (see test_two_workers.py).
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gapwise.data.batch import ModalityBatch
from gapwise.data.shape import Task
from gapwise.models.ablations import ablate
from gapwise.models.blocks.attention import keep_all
from gapwise.models.blocks.contrastive import QUEUED, Points, info_nce, points, supervised_contrast, together
from gapwise.models.blocks.queue import Queue
from gapwise.models.catalogue import build_model
from gapwise.models.interface import Alone, Loss, Quiet, State
from gapwise.models.promise import COMPLETE, INCOMPLETE, Promise
from gapwise.spec.model import PromiseSpec
from gapwise.testing.model_contract import (
    SAMPLES,
    complete_batch,
    incomplete_batch,
    small,
    synthetic_shape,
    synthetic_statistics,
)

TAU = torch.tensor(0.3, dtype=torch.float64)
SLOTS = 7
"""Fewer than the samples of a batch, and two steps' rows overlap in some that it keeps."""


def promise(slots: int, task: Task = "regression") -> Promise:
    shape = synthetic_shape(3, task)
    model = build_model(small(PromiseSpec(projection=8, queue=slots)), shape, synthetic_statistics(shape), 0)
    assert isinstance(model, Promise)
    return model.double()


def batch(first_row: int, task: Task = "regression") -> ModalityBatch:
    """One modality is unknown to some samples, so that not every vector is real even in the complete view."""
    whole = complete_batch(synthetic_shape(3, task), SAMPLES, seed=first_row)
    whole.attend["audio"][::4] = False
    return whole._replace(rows=torch.arange(SAMPLES) + first_row)


def step(model: Promise, complete: ModalityBatch, state: State) -> Loss:
    loss: Loss = model(incomplete_batch(complete), complete, state, Quiet(), Alone())
    return loss


def unit(size: int, first_row: int, seed: int) -> Points:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(2, size, 5, generator=generator, dtype=torch.float64)
    return points(vector, torch.rand(2, size, generator=generator) > 0.3, torch.arange(size) + first_row, COMPLETE)


class TestHolding:
    def queue(self, slots: int) -> Queue:
        return Queue.empty((2, slots, 5), torch.zeros((), dtype=torch.float64), torch.float64)

    def test_the_oldest_leave_first_and_a_batch_enters_in_order_of_row(self) -> None:
        first, second = unit(3, 10, 0), unit(4, 0, 1)
        turned = second.pick(torch.tensor([2, 0, 3, 1]))

        queue = self.queue(5).pushed(first, first.row.double())
        assert queue.points.row.tolist() == [-1, -1, 10, 11, 12]
        queue = queue.pushed(turned, turned.row.double())

        assert queue.points.row.tolist() == queue.labels.tolist() == [12, 0, 1, 2, 3]
        expected = together(first.pick(slice(2, 3)), second)
        assert torch.equal(queue.points.vector, expected.vector) and torch.equal(queue.points.valid, expected.valid)

    def test_of_a_batch_larger_than_the_queue_only_new_ones_stay(self) -> None:
        queue = self.queue(3).pushed(unit(2, 50, 0), torch.zeros(2)).pushed(unit(6, 0, 1), torch.ones(6))
        assert queue.points.row.tolist() == [3, 4, 5] and queue.labels.tolist() == [1, 1, 1]

    def test_it_survives_being_state_and_keeps_no_gradient(self) -> None:
        fresh = unit(4, 0, 0)
        queue = self.queue(6).pushed(fresh._replace(vector=fresh.vector.requires_grad_()), torch.ones(4))
        again = Queue.of_state(queue.to_state())
        assert not queue.points.vector.requires_grad
        for one, other in zip((*queue.points[:3], queue.labels), (*again.points[:3], again.labels), strict=True):
            assert torch.equal(one, other)
        assert (again.points.view == QUEUED).all()


def test_an_anchors_own_stale_vector_is_neither_positive_nor_negative() -> None:
    anchor, gallery, stale = (unit(size, 0, seed) for size, seed in ((1, 0), (4, 1), (1, 2)))
    anchor, gallery, stale = (
        one._replace(valid=torch.ones_like(one.valid), view=torch.full_like(one.view, view))
        for one, view in ((anchor, INCOMPLETE), (gallery, COMPLETE), (stale, QUEUED))
    )
    weight = torch.tensor([[0.9, 0.1, 0.5, 0.3, 1.0]], dtype=torch.float64)

    def losses(among: Points) -> list[Tensor]:
        weighed = supervised_contrast(anchor, among, weight[:, : len(among.row)], TAU, Alone())
        return [info_nce(anchor, among, TAU, Alone()), weighed]

    alone = losses(gallery)
    own = losses(together(gallery, stale))
    other = losses(together(gallery, stale._replace(row=torch.tensor([77]))))
    torch.testing.assert_close(own, alone)
    assert other[0] > alone[0] and not torch.isclose(other[1], alone[1])


@pytest.mark.parametrize("task", ["regression", "classification"])
class TestSteps:
    def test_the_first_step_is_that_of_no_queue(self, task: Task) -> None:
        found, expected = (
            step(model, batch(0, task), model.initial_state()) for model in (promise(64, task), promise(0, task))
        )
        torch.testing.assert_close(found.terms, expected.terms, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.total, expected.total, rtol=1e-12, atol=0)

    def test_the_second_step_has_more_to_compare_with(self, task: Task) -> None:
        terms = []
        for slots in (64, 0):
            model = promise(slots, task)
            state = step(model, batch(0, task), model.initial_state()).state
            terms.append(step(model, batch(20, task), state).terms)
        assert terms[0]["fncl"] > terms[1]["fncl"], "more negatives are harder to tell apart from"
        assert not torch.allclose(terms[0]["cccl"], terms[1]["cccl"])
        for name in ("task", "reconstruction"):
            torch.testing.assert_close(terms[0][name], terms[1][name], rtol=1e-12, atol=0)

    def test_both_levels_are_those_of_a_loop_over_batch_and_queue(self, task: Task) -> None:
        model, early, late = promise(SLOTS, task), batch(0, task), batch(5, task)
        state = step(model, early, model.initial_state()).state

        terms = step(model, late, state).terms

        queued = [one for one in seen(model, early, COMPLETE) if one.row >= SAMPLES - SLOTS]
        assert {one.row for one in queued} & set(late.rows.tolist()), "own stale vectors are among them"
        student, teacher = seen(model, incomplete_batch(late), INCOMPLETE), seen(model, late, COMPLETE)
        assert float(terms["fncl"]) == pytest.approx(
            naive_fncl(student, teacher, queued, float(model.tau_cross)), rel=1e-9
        )
        assert float(terms["cccl"]) == pytest.approx(
            naive_cccl(student, teacher, queued, float(model.tau_intra), task), rel=1e-9
        )


class Seen(NamedTuple):
    """One valid vector: of which sample, of which kind (0 is z, then each z_m), and the sample's label."""

    row: int
    kind: int
    label: float
    vector: Tensor


def seen(model: Promise, view: ModalityBatch, number: int) -> list[Seen]:
    with torch.no_grad():
        found = model._points(model._view(view, keep_all), view.rows, number)
    return [
        Seen(int(row), kind, float(label), found.vector[kind, position])
        for kind in range(found.vector.shape[0])
        for position, (row, label) in enumerate(zip(view.rows, view.labels, strict=True))
        if found.valid[kind, position]
    ]


def naive_info_nce(anchors: list[tuple[Seen, list[Seen]]], queued: list[Seen], tau: float) -> float:
    """Each anchor with the batch's vectors it is compared with; the queue's of that kind join them, but for its own."""
    losses = []
    for anchor, batch_ones in anchors:
        kinds = {one.kind for one in batch_ones}
        negatives = [one for one in [*batch_ones, *queued] if one.row != anchor.row and one.kind in kinds]
        own = [one for one in batch_ones if one.row == anchor.row]
        if own and negatives:
            similar = [math.exp(float(anchor.vector @ one.vector) / tau) for one in (*own, *negatives)]
            losses.append(-math.log(similar[0] / sum(similar)))
    return sum(losses) / len(losses)


def naive_fncl(student: list[Seen], teacher: list[Seen], queued: list[Seen], tau: float) -> float:
    def of_kind(ones: list[Seen], kind: int) -> list[Seen]:
        return [one for one in ones if one.kind == kind]

    fused = of_kind(student, 0)
    there = [(anchor, of_kind(student, kind)) for anchor in fused for kind in (1, 2, 3)]
    back = [(anchor, fused) for anchor in student if anchor.kind]
    whole = [(anchor, of_kind(teacher, 0)) for anchor in fused]
    across = (naive_info_nce(there, queued, tau) + naive_info_nce(back, queued, tau)) / 2
    return across + naive_info_nce(whole, queued, tau)


def naive_cccl(student: list[Seen], teacher: list[Seen], queued: list[Seen], tau: float, task: Task) -> float:
    losses = []
    for anchor in student:
        rest = [one for one in student if one.row != anchor.row] + teacher
        rest += [one for one in queued if one.row != anchor.row]
        rest = [one for one in rest if one.kind == anchor.kind]
        gaps = [abs(anchor.label - one.label) for one in rest]
        weights = [math.exp(-gap) if task == "regression" else float(gap == 0) for gap in gaps]
        if anchor.kind and max(weights) > min(weights):
            similar = [math.exp(float(anchor.vector @ one.vector) / tau) for one in rest]
            parts = [weight * math.log(one / sum(similar)) for weight, one in zip(weights, similar, strict=True)]
            losses.append(-sum(parts) / sum(weights))
    return sum(losses) / len(losses)


def test_512_by_default_and_without_slots_there_is_no_state() -> None:
    assert PromiseSpec().queue == 512
    model = promise(ablate(PromiseSpec(), "no_queue").model_dump()["queue"])
    assert model.initial_state() == step(model, batch(0), {}).state == {}


def test_an_answer_does_not_look_at_the_queue() -> None:
    model = promise(SLOTS)
    state = step(model, batch(0), model.initial_state()).state
    answers = [model.predict(batch(0), one).output for one in (state, model.initial_state(), {})]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[0], answers[2])
    assert model.serving_state(state) == {}
