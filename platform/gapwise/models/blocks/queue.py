"""A queue of earlier steps' vectors, so that a contrastive loss on small batches has more to compare with.

After MoCo (He et al. 2020), with the complete view as the teacher in place of a momentum encoder (ours). The queue is
explicit state of static shape, without gradient. It is filled from gathered points in order of row, and not of
worker, so it is the same on every worker and for any number of them. Slots that nothing has filled yet are not valid
and change no loss. Vectors are known by their row in the training split, hence it serves training alone.

Shape legend: N kinds of vector, Q slots, G samples of the global batch, P vector size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gapwise.models.blocks.contrastive import QUEUED, Points, together
from gapwise.models.interface import State


class Queue(NamedTuple):
    """Points (N, Q, P) of earlier steps, oldest first, and their labels (Q,)."""

    points: Points
    labels: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, int, int], like: Tensor, labels: torch.dtype) -> "Queue":
        """Of `shape` (N, Q, P), in the type and on the device of `like`; Q may be 0."""
        row_Q = torch.full(shape[1:2], -1, device=like.device)
        valid_NQ = torch.zeros(shape[:2], dtype=torch.bool, device=like.device)
        points = Points(like.new_zeros(shape), valid_NQ, row_Q, torch.full_like(row_Q, QUEUED))
        return cls(points, torch.zeros_like(row_Q, dtype=labels))

    @classmethod
    def of_state(cls, state: State) -> "Queue":
        row_Q = state["queue_row"]
        points = Points(state["queue_vector"], state["queue_valid"], row_Q, torch.full_like(row_Q, QUEUED))
        return cls(points, state["queue_label"])

    def to_state(self) -> State:
        """Empty for a queue without slots."""
        if not len(self.labels):
            return {}
        vector, valid, row, _ = self.points
        return {"queue_vector": vector, "queue_valid": valid, "queue_row": row, "queue_label": self.labels}

    def pushed(self, fresh: Points, labels_G: Tensor) -> "Queue":
        """The queue after a global batch: as many leave, the oldest first. Of a larger batch the highest rows stay."""
        order_G = fresh.row.argsort(stable=True)
        target = fresh._replace(vector=fresh.vector.detach())
        stay = slice(len(labels_G), None)
        points = together(self.points, target.pick(order_G)).pick(stay)
        return Queue(points, torch.cat([self.labels, labels_G[order_G]])[stay])
