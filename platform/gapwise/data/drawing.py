"""Drawing samples of the synthetic task, with the truth that a model never sees.

Randomness is numpy's Philox, keyed by (seed, split), its counter by block of rows. A block is drawn whole and the last
one is cut, so a larger training split begins with the smaller one's samples, and memory holds one block. Directions
belong to the preset, not to the seed: another seed is more data of the same task.

Shape legend: N samples, F frames of all samples, D features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import ModalityArrays, SplitArrays
from gapwise.data.manifest import SPLIT_NAMES
from gapwise.data.presets import CUE_MODALITY, INVERTED_MODALITY, SynthPreset
from gapwise.data.spool import join
from gapwise.data.truth import Truth, join_truths
from gapwise.errors import DataError

BLOCK_ROWS = 512
"""Rows drawn together, or the whole split where it is smaller. A part of what a seed means."""

Vector = NDArray[np.float64]


class Drawn(NamedTuple):
    """What a model may see, and what it may not."""

    arrays: SplitArrays
    truth: Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """Unit vectors (D,): `label[m]` is v_m; `irony` is w, orthogonal to the audio one."""

    label: Mapping[str, Vector]
    irony: Vector


def generate(preset: SynthPreset, seed: int) -> dict[str, SplitArrays]:
    """The three splits, in memory: a pure function of its arguments."""
    return {split: join([block.arrays for block in draw_blocks(preset, split, seed)]) for split in SPLIT_NAMES}


def generate_truth(preset: SynthPreset, split: str, seed: int) -> Truth:
    """What `generate` hides of a split."""
    return join_truths([block.truth for block in draw_blocks(preset, split, seed)])


def draw_blocks(preset: SynthPreset, split: str, seed: int) -> Iterator[Drawn]:
    """The rows of a split in order, at most `BLOCK_ROWS` at a time. Raises DataError for an impossible seed."""
    if not 0 <= seed < 2**64:
        raise DataError(f"seed {seed}", allowed="0 to 2**64 - 1")
    samples, directions = preset.sizes[split], draw_directions(preset)
    rows = min(BLOCK_ROWS, samples)
    for block, start in enumerate(range(0, samples, rows)):
        random = _philox(seed, 1 + SPLIT_NAMES.index(split), block)
        labels_N, truth, modalities = _draw(preset, directions, rows, random)
        arrays = SplitArrays(
            ids=[f"{split}-{row:05d}" for row in range(start, start + rows)],
            groups=[f"{split}-speaker-{row // preset.samples_per_group:04d}" for row in range(start, start + rows)],
            labels=labels_N.astype(np.float32),
            modalities=modalities,
        )
        kept = min(rows, samples - start)
        yield Drawn(arrays.rows(0, kept), truth.first(kept))


def draw_directions(preset: SynthPreset) -> Directions:
    """v_m for every modality and w, orthonormal within audio, from the preset's own seed."""
    random = _philox(preset.direction_seed, 0, 0)
    label = {name: _unit(random.standard_normal(preset.modalities[name].dim)) for name in sorted(preset.modalities)}
    audio = label[CUE_MODALITY]
    return Directions(label=label, irony=_unit(_without(random.standard_normal((1, len(audio))), audio)[0]))


def _philox(seed: int, stream: int, block: int) -> np.random.Generator:
    key, counter = np.array([seed, stream], dtype=np.uint64), np.array([0, 0, 0, block], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _draw(
    preset: SynthPreset, directions: Directions, rows: int, random: np.random.Generator
) -> tuple[Vector, Truth, dict[str, ModalityArrays]]:
    prior = np.array(preset.prior) / sum(preset.prior)
    labels_N = np.array(preset.labels)[random.choice(len(prior), rows, p=prior)]
    ironic_N = random.random(rows) < preset.irony
    sigmas, modalities = {}, {}
    for name in sorted(preset.modalities):
        sigmas[name], modalities[name] = _draw_modality(preset, directions, name, (labels_N, ironic_N), random)
    return labels_N, Truth(irony=ironic_N, sigma=sigmas), modalities


def _draw_modality(
    preset: SynthPreset,
    directions: Directions,
    name: str,
    hidden: tuple[Vector, NDArray[np.bool_]],
    random: np.random.Generator,
) -> tuple[Vector, ModalityArrays]:
    labels_N, ironic_N = hidden
    modality, v_D = preset.modalities[name], directions.label[name]
    lengths_N = random.integers(modality.min_length, modality.max_length + 1, len(labels_N))
    sigma_N = np.array(modality.noise_levels)[
        random.choice(len(modality.noise_levels), len(labels_N), p=modality.noise_prior)
    ]
    sign_N = np.where(ironic_N & (name == INVERTED_MODALITY), -1.0, 1.0)
    frame_F = np.repeat(np.arange(len(labels_N)), lengths_N)
    along_F = (modality.amplitude * sign_N * labels_N)[frame_F]
    along_F = along_F + sigma_N[frame_F] * random.standard_normal(len(frame_F))
    values_FD = _without(preset.nuisance * random.standard_normal((len(frame_F), modality.dim)), v_D)
    if name == CUE_MODALITY:
        irony_F = preset.irony_strength * ironic_N[frame_F] + preset.irony_noise * random.standard_normal(len(frame_F))
        values_FD = _without(values_FD, directions.irony) + irony_F[:, None] * directions.irony
    values_FD = values_FD + along_F[:, None] * v_D
    offsets = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int64)
    present = np.ones(len(labels_N), dtype=np.bool_)
    return sigma_N, ModalityArrays(values=values_FD.astype(np.float32), offsets=offsets, present=present)


def _without(rows_FD: NDArray[np.float64], direction_D: Vector) -> NDArray[np.float64]:
    """The rows less their component along a unit vector. Sums, not BLAS: the same bits on every machine."""
    rest_FD: NDArray[np.float64] = rows_FD - (rows_FD * direction_D).sum(axis=1, keepdims=True) * direction_D
    return rest_FD


def _unit(vector_D: Vector) -> Vector:
    unit_D: Vector = vector_D / np.sqrt((vector_D**2).sum())
    return unit_D
