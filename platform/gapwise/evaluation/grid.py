"""The robustness grid: every condition of a protocol (missing rates, or subsets) by every mask seed.

Samples are read once and go through the model under all conditions and seeds, in joined batches of a size that suits
the machine, so that the grid costs little more than the bare forward passes. A protocol whose masks do not depend on
the mask seed is evaluated once, and its spread over mask seeds is 0. It takes a function from batch to outputs and
knows neither models nor checkpoints; what is read from a model may be any number of named tensors, its answer being one
of them.

Shape legend: K conditions, V mask seeds, N samples.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gapwise.data.arrays import Labels
from gapwise.data.batch import ModalityBatch, hide_in_turn
from gapwise.data.loading import as_tensors, samples_of
from gapwise.data.masks import Samples
from gapwise.data.protocols import Observed, build_protocol
from gapwise.data.shape import DataShape
from gapwise.data.store import Split
from gapwise.evaluation.hearing import tell_step
from gapwise.evaluation.metrics import Real, score
from gapwise.spec.protocol import ProtocolSpec

Predict = Callable[[ModalityBatch], torch.Tensor]
Read = Callable[[ModalityBatch], dict[str, torch.Tensor]]
_CHUNK_ROWS = 64
"""Rows read at once."""
_ON_CPU, _ON_GPU = 128, 640
"""Samples (rows x views) of one forward pass at most. On a CPU the memory of larger batches goes back to the system
after each pass and is asked for again, page by page; a GPU waits for launches unless batches are large."""


class Readings(NamedTuple):
    """`values[name]` is (K, V, n, ...) for the n rows that were asked for; V is 1 where the mask seed is immaterial."""

    conditions: list[str]
    values: dict[str, NDArray[np.float32]]


class Outputs(NamedTuple):
    """`values` is (K, V, n) scores or (K, V, n, C) logits for the n rows that were asked for.

    V is 1 for a protocol that does not depend on the mask seed.
    """

    conditions: list[str]
    values: NDArray[np.float32]


class Grid(NamedTuple):
    """`metrics[name]` is (K, V): one number for each condition and mask seed."""

    conditions: list[str]
    metrics: dict[str, Real]

    @property
    def mask_seeds(self) -> int:
        """How many mask seeds stand behind each figure: 1 where they make no difference."""
        return int(next(iter(self.metrics.values())).shape[1])

    def table(self) -> dict[str, dict[str, dict[str, float]]]:
        """{condition: {metric: {mean, sd}}}; sd over mask seeds, with one seed less in the divisor, 0 for one seed."""
        spread = 1 if self.mask_seeds > 1 else 0
        return {
            condition: {
                name: {"mean": float(values[k].mean()), "sd": float(values[k].std(ddof=spread))}
                for name, values in self.metrics.items()
            }
            for k, condition in enumerate(self.conditions)
        }

    def mean(self) -> dict[str, dict[str, float]]:
        """{metric: {mean, sd}} of the average over conditions; sd over mask seeds of that average."""
        whole = Grid(["mean"], {name: values.mean(0, keepdims=True) for name, values in self.metrics.items()})
        return whole.table()["mean"]

    def curve(self, metric: str) -> dict[str, float]:
        """{condition: mean over mask seeds}."""
        return dict(zip(self.conditions, self.metrics[metric].mean(1).tolist(), strict=True))


def predict_grid(
    predict: Predict,
    split: Split,
    rows: NDArray[np.int64],
    protocol: ProtocolSpec,
    mask_seeds: Sequence[int],
    at_once: int | None = None,
) -> Outputs:
    """Outputs for `rows` of a split under every condition and mask seed. No gradient is kept.

    `at_once` is how many samples (rows x views) one forward pass takes at most, None for what suits the machine.
    """
    found = read_grid(lambda batch: {"output": predict(batch)}, split, rows, protocol, mask_seeds, at_once)
    return Outputs(found.conditions, found.values["output"])


def read_grid(
    read: Read,
    split: Split,
    rows: NDArray[np.int64],
    protocol: ProtocolSpec,
    mask_seeds: Sequence[int],
    at_once: int | None = None,
) -> Readings:
    """The same for every tensor (B, ...) that `read` names."""
    chosen = build_protocol(protocol)
    conditions = chosen.conditions(split.lengths)
    seeds = mask_seeds if chosen.seeded else mask_seeds[:1]
    parts, order = [], split.by_length(rows)
    most = _samples_at_once() if at_once is None else min(at_once, _samples_at_once())
    step = _rows_at_once(split, len(conditions) * len(seeds), most)
    for start in range(0, len(rows), step):
        chunk = rows[order[start : start + step]]
        base = split.batch(chunk)
        samples = samples_of(split.keys[chunk], base)
        observed = [chosen.evaluation(samples, split=split.name, mask_seed=seed) for seed in seeds]
        masks = [by_condition[condition] for condition in conditions for by_condition in observed]
        shown = [masks[first : first + most // base.size] for first in range(0, len(masks), most // base.size)]
        parts.append(_forward(read, base, shown, mask_visible=protocol.mask_visible))
    values = {}
    for name in parts[0]:
        joined = np.concatenate([part[name] for part in parts], axis=1)[:, np.argsort(order)]
        values[name] = joined.reshape(len(conditions), len(seeds), *joined.shape[1:])
    return Readings(conditions, values)


def answers_of(split: Split, protocol: ProtocolSpec, mask_seeds: int) -> int:
    """How many samples (rows x conditions x mask seeds) a whole grid answers."""
    chosen = build_protocol(protocol)
    return len(split) * len(chosen.conditions(split.lengths)) * (mask_seeds if chosen.seeded else 1)


def _rows_at_once(split: Split, views: int, most: int) -> int:
    """Few rows where batches are trimmed: the views of a short text are often the same, and are then encoded once."""
    return max(1, most // views) if split.trimmed else min(_CHUNK_ROWS, most)


def _samples_at_once() -> int:
    return _ON_GPU if torch.cuda.is_available() else _ON_CPU


def _forward(
    read: Read, base: ModalityBatch, shown: list[list[Observed]], *, mask_visible: bool
) -> dict[str, NDArray[np.float32]]:
    """(masks, B, ...) by name, one joined batch for each list of masks; no more views exist at a time."""
    found: list[dict[str, torch.Tensor]] = []
    with torch.inference_mode():
        for masks in shown:
            some = [as_tensors(mask) for mask in masks]
            found.append(read(hide_in_turn(base, some, mask_visible=mask_visible)))
            tell_step(len(masks) * base.size)
    stacked = {name: torch.cat([one[name] for one in found]).float().cpu() for name in found[0]}
    return {name: value.reshape(-1, base.size, *value.shape[1:]).numpy() for name, value in stacked.items()}


def split_masks(split: Split, protocol: ProtocolSpec, mask_seeds: Sequence[int]) -> Iterator[dict[str, Observed]]:
    """The masks that `read_grid` shows, of every row: (N, T) by condition and modality, one mask seed at a time.

    For splits that are read as frames: the steps are the manifest's.
    """
    chosen = build_protocol(protocol)
    steps = {name: record.max_length for name, record in split.manifest.modalities.items()}
    samples = Samples(split.keys, split.lengths, steps)
    for seed in mask_seeds if chosen.seeded else mask_seeds[:1]:
        yield chosen.evaluation(samples, split=split.name, mask_seed=seed)


def score_grid(outputs: Outputs, labels: Labels | Real, shape: DataShape) -> Grid:
    """Every metric of the task for every condition and mask seed."""
    values = outputs.values.astype(np.float64)
    conditions, seeds = values.shape[:2]
    flat = score(values.reshape(conditions * seeds, *values.shape[2:]), labels, shape)
    return Grid(outputs.conditions, {name: value.reshape(conditions, seeds) for name, value in flat.items()})


def robustness_grid(
    predict: Predict, split: Split, protocol: ProtocolSpec, mask_seeds: Sequence[int], shape: DataShape
) -> Grid:
    """Predict and score a whole split."""
    rows = np.arange(len(split), dtype=np.int64)
    outputs = predict_grid(predict, split, rows, protocol, mask_seeds)
    return score_grid(outputs, split.labels.astype(np.float64), shape)
