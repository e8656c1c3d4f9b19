"""Contrastive losses against naive loops. Faked: other workers, by `Alone`."""

import math

import torch

from gapwise.models.blocks.contrastive import (
    Points,
    closeness,
    gather,
    info_nce,
    points,
    supervised_contrast,
    symmetric_info_nce,
    together,
)
from gapwise.models.interface import Alone

TAU = torch.tensor(0.3, dtype=torch.float64)


def some_points(modalities: int, size: int, seed: int, view: int = 0) -> Points:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(modalities, size, 5, generator=generator, dtype=torch.float64)
    valid = torch.rand(modalities, size, generator=generator) > 0.3
    return points(vector, valid, torch.arange(size) + 10, view)


def naive_info_nce(anchors: Points, gallery: Points) -> float:
    losses = []
    for m in range(anchors.vector.shape[0]):
        for i in range(anchors.vector.shape[1]):
            allowed = [j for j in range(gallery.vector.shape[1]) if gallery.valid[m, j]]
            own = [j for j in allowed if gallery.row[j] == anchors.row[i]]
            if not anchors.valid[m, i] or not own or len(own) == len(allowed):
                continue
            similar = {j: math.exp(float(anchors.vector[m, i] @ gallery.vector[m, j] / TAU)) for j in allowed}
            losses.append(-sum(math.log(similar[j] / sum(similar.values())) for j in own) / len(own))
    return sum(losses) / len(losses)


def naive_supervised(anchors: Points, gallery: Points, weight: torch.Tensor) -> float:
    losses = []
    for m in range(anchors.vector.shape[0]):
        for i in range(anchors.vector.shape[1]):
            itself = [
                (r, v) == (anchors.row[i], anchors.view[i]) for r, v in zip(gallery.row, gallery.view, strict=True)
            ]
            allowed = [j for j, own in enumerate(itself) if gallery.valid[m, j] and not own]
            weights = [float(weight[i, j]) for j in allowed]
            if not anchors.valid[m, i] or not weights or max(weights) == min(weights):
                continue
            similar = [math.exp(float(anchors.vector[m, i] @ gallery.vector[m, j] / TAU)) for j in allowed]
            parts = [w * math.log(s / sum(similar)) for w, s in zip(weights, similar, strict=True)]
            losses.append(-sum(parts) / sum(weights))
    return sum(losses) / len(losses)


def test_info_nce_equals_a_loop_whatever_the_order_of_the_gallery() -> None:
    anchors, gallery = some_points(3, 6, 0), some_points(3, 6, 1)
    turned = Points(gallery.vector.flip(1), gallery.valid.flip(1), gallery.row.flip(0), gallery.view)
    expected = naive_info_nce(anchors, gallery)
    assert math.isclose(float(info_nce(anchors, turned, TAU, Alone())), expected, rel_tol=1e-9)


def test_a_repeated_sample_has_two_positives() -> None:
    anchors, gallery = some_points(1, 5, 0), some_points(1, 5, 1)
    doubled = together(gallery, some_points(1, 5, 2))
    expected = naive_info_nce(anchors, doubled)
    assert math.isclose(float(info_nce(anchors, doubled, TAU, Alone())), expected, rel_tol=1e-9)


def test_symmetric_info_nce_is_the_mean_of_both_ways_and_broadcasts() -> None:
    fused, each = some_points(1, 6, 0), some_points(3, 6, 1)
    wide = Points(fused.vector.expand(3, -1, -1), fused.valid.expand(3, -1), fused.row, fused.view)
    every = Points(torch.cat([fused.vector, each.vector]), torch.cat([fused.valid, each.valid]), fused.row, fused.view)
    loss = symmetric_info_nce(fused, each, TAU, Alone(), gather(every, Alone()))
    expected = (naive_info_nce(wide, each) + naive_info_nce(each, wide)) / 2
    assert math.isclose(float(loss), expected, rel_tol=1e-9)


def test_supervised_contrast_equals_a_loop_and_skips_only_itself() -> None:
    anchors = some_points(2, 6, 0)
    gallery = together(anchors, some_points(2, 6, 1, view=1))
    scores = torch.randn(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classes = torch.tensor([0, 1, 1, 2, 0, 0])
    for labels, bandwidth in ((scores, torch.tensor(0.7)), (classes, None)):
        weight = closeness(labels, labels.repeat(2), bandwidth)
        loss = supervised_contrast(anchors, gallery, weight, TAU, Alone())
        assert math.isclose(float(loss), naive_supervised(anchors, gallery, weight), rel_tol=1e-6)


def test_anchors_without_positive_or_negative_count_for_nothing() -> None:
    vector = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)
    for valid in ([False, False], [True, False], [False, True]):
        lone = points(vector, torch.tensor([valid]), torch.arange(2))
        for loss in (
            info_nce(lone, lone, TAU, Alone()),
            supervised_contrast(lone, lone, torch.ones(2, 2), TAU, Alone()),
        ):
            (gradient,) = torch.autograd.grad(loss, vector, retain_graph=True)
            assert not loss.any() and not gradient.any()


def test_gathering_alone_changes_nothing() -> None:
    local = some_points(3, 4, 0)
    for one, other in zip(gather(local, Alone()), local, strict=True):
        assert torch.equal(one, other)
