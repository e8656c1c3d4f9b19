"""A batch in parts, where all of it does not fit the memory at once: gradients add up over the parts.

For a model whose loss is separable over samples that is the gradient of the whole batch, up to rounding. One that
compares samples, or keeps statistics of batches, meets smaller batches instead: what it trains has changed. Every
worker makes the same number of parts, because parts meet in collectives.
"""

import math
from typing import NamedTuple

from gapwise.spec.train import TrainSpec

SHRINK = 4
"""After running out of memory a part has this many times fewer samples: there is one retry, and it should do."""


class Part(NamedTuple):
    """`rows` of this worker's share of a batch; `weight` is the part's share of all workers' samples."""

    rows: slice
    weight: float


def in_parts(samples: int, share: tuple[int, int], most: int | None) -> list[Part]:
    """A global batch of `samples` cut nearly evenly into as few parts as `most` samples a worker and part allow.

    `share` is (rank, world). Where shares are so small that a worker would be left without a sample, parts are fewer.
    """
    rank, world = share
    shares = [len(range(worker, samples, world)) for worker in range(world)]
    number = 1 if most is None else max(1, min(math.ceil(shares[0] / most), shares[-1]))
    cuts = [[size * index // number for index in range(number + 1)] for size in shares]
    return [
        Part(
            rows=slice(cuts[rank][index], cuts[rank][index + 1]),
            weight=sum(cut[index + 1] - cut[index] for cut in cuts) / samples,
        )
        for index in range(number)
    ]


def smaller(spec: TrainSpec, world: int) -> int | None:
    """The micro-batch to try after one of `spec` did not fit; None where a single sample did not."""
    share = math.ceil(spec.batch_size / world)
    now = share if spec.micro_batch is None else min(share, spec.micro_batch)
    return max(1, now // SHRINK) if now > 1 else None
