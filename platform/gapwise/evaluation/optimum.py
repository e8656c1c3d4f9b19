"""The best possible scores on a synthetic dataset, under the masks that models are judged on.

Frames are projected on the informative directions once; after that a mask costs a few sums a sample. Which metric uses
which answer is said in `answers.py`. An optimum is the best *expected* score: on a finite split a model can be below it
by luck, and `mask_visible: false` changes nothing, because a frame of zeros gives itself away.

Shape legend: V mask seeds, K conditions, N samples, T steps, F stored frames, D features, Y labels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapwise.data.presets import CUE_MODALITY, INVERTED_MODALITY
from gapwise.data.protocols import Observed, build_protocol
from gapwise.data.store import Split
from gapwise.data.synth import Task
from gapwise.evaluation.answers import best_scores
from gapwise.evaluation.grid import Grid, split_masks
from gapwise.evaluation.hearing import tell_step
from gapwise.evaluation.metrics import Real
from gapwise.evaluation.posterior import Channel, Evidence, Form, Irony, Sums, posterior
from gapwise.spec.protocol import ProtocolSpec

Mask = NDArray[np.bool_]


class Projections(NamedTuple):
    """A split seen along the informative directions only; all that the posterior can use."""

    real: dict[str, Mask]
    """(N, T) by modality: which steps exist."""
    along: dict[str, Real]
    """(N, T) by modality: projections on v_m, 0 where no step exists."""
    cue: Real
    """(N, T) of the cue modality: projections on w."""


def exact_form(task: Task) -> Form:
    """The parameters that the data were drawn with."""
    preset, directions = task.preset, task.directions
    channels = {
        name: Channel(
            direction=directions.label[name],
            amplitude=modality.amplitude,
            levels=np.array(modality.noise_levels),
            prior=np.array(modality.noise_prior) / sum(modality.noise_prior),
        )
        for name, modality in preset.modalities.items()
    }
    irony = Irony(
        probability=preset.irony,
        inverted=INVERTED_MODALITY,
        cue=CUE_MODALITY,
        direction=directions.irony,
        strength=preset.irony_strength,
        noise=preset.irony_noise,
    )
    prior_Y = np.array(preset.prior, dtype=np.float64) / sum(preset.prior)
    return Form(labels=np.array(preset.labels), prior=prior_Y, channels=channels, irony=irony)


def optimal_grid(form: Form, split: Split, protocol: ProtocolSpec, mask_seeds: Sequence[int]) -> Grid:
    """The grid of `grid.robustness_grid`, on the same masks, of the best answer for each metric under `form`."""
    conditions, projections = build_protocol(protocol).conditions(split.lengths), project(form, split)
    truth_N, shape = split.labels.astype(np.float64), split.manifest.shape()
    by_seed = []
    for masks in split_masks(split, protocol, mask_seeds):
        found_KNY = np.stack([posterior(form, observe(form, projections, masks[one])) for one in conditions])
        by_seed.append(best_scores(found_KNY, form.labels, truth_N, shape))
        tell_step(len(split) * len(conditions))
    return Grid(conditions, {name: np.stack([scores[name] for scores in by_seed], axis=1) for name in by_seed[0]})


def project(form: Form, split: Split) -> Projections:
    """One pass over the split's frames."""
    real, along, cue = {}, {}, np.zeros((0, 0))
    for name, channel in form.channels.items():
        directions = [channel.direction] + [form.irony.direction] * (name == form.irony.cue)
        real[name] = np.arange(split.manifest.modalities[name].max_length) < split.lengths[name][:, None]
        flat_FC = np.concatenate([frames_FD @ np.stack(directions, axis=1) for frames_FD in split.frames(name)])
        padded = [_padded(real[name], column_F) for column_F in flat_FC.T]
        along[name] = padded[0]
        cue = padded[1] if name == form.irony.cue else cue
    return Projections(real, along, cue)


def observe(form: Form, projections: Projections, masks: Observed) -> Evidence:
    """The sums (N,) over the frames that exist and are observed."""
    sums, cue = {}, np.zeros(0)
    for name, real_NT in projections.real.items():
        seen_NT = (real_NT & masks[name]).astype(np.float64)
        along_NT = projections.along[name]
        squares_N = np.einsum("nt,nt,nt->n", seen_NT, along_NT, along_NT)
        sums[name] = Sums(seen_NT.sum(1), np.einsum("nt,nt->n", seen_NT, along_NT), squares_N)
        if name == form.irony.cue:
            cue = np.einsum("nt,nt->n", seen_NT, projections.cue)
    return Evidence(sums, cue)


def _padded(real_NT: Mask, flat_F: Real) -> Real:
    padded_NT = np.zeros(real_NT.shape)
    padded_NT[real_NT] = flat_F
    return padded_NT
