"""Contrastive losses over the global batch: InfoNCE, and supervised contrast with weighted positives.

Local anchors are compared with the gathered vectors of every worker, and averages are taken over the global count of
usable anchors, so that the DDP average of gradients is the gradient of one worker holding the whole batch. Shards may
be of uneven size, so "the same sample" is an equal row number, and "itself" an equal row number in the same view; a
position in the gathered matrix is never relied on. An anchor without a positive or without a negative counts for
nothing; it never gives NaN. A gallery may hold vectors of earlier steps (`QUEUED`); an anchor's own stale vector is
neither positive nor negative.

Shape legend: X any leading axes (they broadcast), B local anchors, G vectors of the global batch, P vector size.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gapwise.models.blocks.attention import floored, split_axis
from gapwise.models.interface import Collective, mean_over_batch

QUEUED = -1
"""The `view` of a vector that an earlier step has left."""


class Points(NamedTuple):
    """Unit vectors and whose they are: `vector` (X, n, P), `valid` (X, n) bool, `row` and `view` (n,) int64.

    `view` tells apart two vectors of one sample, for instance of its incomplete and its complete form.
    """

    vector: Tensor
    valid: Tensor
    row: Tensor
    view: Tensor

    def part(self, start: int, stop: int) -> "Points":
        """Some of the first leading axis."""
        return self._replace(vector=self.vector[start:stop], valid=self.valid[start:stop])

    def pick(self, which: Tensor | slice) -> "Points":
        """Some samples, or all in another order."""
        return Points(self.vector[..., which, :], self.valid[..., which], self.row[which], self.view[which])


def points(vector_XBP: Tensor, valid_XB: Tensor, row_B: Tensor, view: int = 0) -> Points:
    """Vectors projected to the unit sphere; `valid_XB` broadcasts to the leading shape of the vectors."""
    valid_XB = valid_XB.expand(vector_XBP.shape[:-1])
    return Points(functional.normalize(vector_XBP, dim=-1), valid_XB, row_B, torch.full_like(row_B, view))


def gather(local: Points, workers: Collective) -> Points:
    """The points of every worker; differentiable in `vector`. One gather of floats and one of integers."""
    ids = torch.stack([local.row, local.view], dim=-1)
    marks = torch.cat([ids, local.valid.movedim(-1, 0).flatten(1).to(ids.dtype)], dim=-1)
    marks_GX = workers.gather(marks)
    vector_XGP = workers.gather(local.vector.movedim(-2, 0)).movedim(0, -2)
    valid_XG = split_axis(marks_GX[:, 2:] > 0, 1, local.valid.shape[:-1]).movedim(0, -1)
    return Points(vector_XGP, valid_XG, marks_GX[:, 0], marks_GX[:, 1])


def together(*sets: Points) -> Points:
    """Several sets side by side along the sample axis."""
    return Points(
        vector=torch.cat([one.vector for one in sets], dim=-2),
        valid=torch.cat([one.valid for one in sets], dim=-1),
        row=torch.cat([one.row for one in sets]),
        view=torch.cat([one.view for one in sets]),
    )


def same_sample(anchors: Points, gallery: Points) -> Tensor:
    """(B, G) bool."""
    return anchors.row.unsqueeze(-1) == gallery.row


def info_nce(anchors: Points, gallery: Points, tau: Tensor, workers: Collective) -> Tensor:
    """Scalar, nats: each anchor must find its own sample among the gallery's valid vectors (van den Oord et al. 2018).

    `anchors` are local, `gallery` is gathered. A sample that the global batch holds twice has two positives, averaged.
    """
    same_BG = same_sample(anchors, gallery)
    candidate_XBG = gallery.valid.unsqueeze(-2) & ~(same_BG & (gallery.view == QUEUED))
    logp_XBG = floored(anchors.vector @ gallery.vector.mT / tau, candidate_XBG).log_softmax(-1)
    positive_XBG = same_BG & candidate_XBG
    number_XB = positive_XBG.sum(-1)
    loss_XB = -torch.where(positive_XBG, logp_XBG, 0.0).sum(-1) / number_XB.clamp_min(1)
    usable_XB = anchors.valid & (number_XB > 0) & (candidate_XBG & ~same_BG).any(-1)
    return mean_over_batch(loss_XB, usable_XB, workers)


def symmetric_info_nce(left: Points, right: Points, tau: Tensor, workers: Collective, every: Points) -> Tensor:
    """Scalar: the mean of both directions. `every` is the gathered (left, right), joined along the first axis."""
    cut, end = left.vector.shape[0], left.vector.shape[0] + right.vector.shape[0]
    there = info_nce(left, every.part(cut, end), tau, workers)
    back = info_nce(right, every.part(0, cut), tau, workers)
    return (there + back) / 2


def closeness(labels_B: Tensor, labels_G: Tensor, bandwidth: Tensor | None) -> Tensor:
    """(B, G) weights of positives: exp(-|y_i - y_j| / bandwidth), or equality of classes without a bandwidth."""
    if bandwidth is None:
        return labels_B.unsqueeze(-1) == labels_G
    return torch.exp(-(labels_B.unsqueeze(-1) - labels_G).abs() / bandwidth)


def supervised_contrast(
    anchors: Points, gallery: Points, weight_BG: Tensor, tau: Tensor, workers: Collective
) -> Tensor:
    """Scalar, nats: cross-entropy from the normalised weights to the softmax of similarities, itself left out.

    Supervised contrastive loss (Khosla et al. 2020) with weighted positives (ours). An anchor whose candidates all
    weigh the same has no negative, or no positive, and counts for nothing.
    """
    same_view_BG = anchors.view.unsqueeze(-1) == gallery.view
    itself_BG = same_sample(anchors, gallery) & (same_view_BG | (gallery.view == QUEUED))
    candidate_XBG = gallery.valid.unsqueeze(-2) & ~itself_BG
    logp_XBG = floored(anchors.vector @ gallery.vector.mT / tau, candidate_XBG).log_softmax(-1)
    weight_BG = weight_BG.to(logp_XBG.dtype)
    weight_XBG = torch.where(candidate_XBG, weight_BG, 0.0)
    tiny = torch.finfo(weight_XBG.dtype).tiny
    loss_XB = -(weight_XBG * torch.where(candidate_XBG, logp_XBG, 0.0)).sum(-1) / weight_XBG.sum(-1).clamp_min(tiny)
    lowest_XB = torch.where(candidate_XBG, weight_BG, torch.inf).amin(-1)
    usable_XB = anchors.valid & (weight_XBG.amax(-1) > lowest_XB)
    return mean_over_batch(loss_XB, usable_XB, workers)
