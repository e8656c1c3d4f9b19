"""The plug-in optimum: the synthetic form with its parameters fitted on the training split. What N samples allow.

It knows the form (a direction a modality, how many noise levels, who is inverted and who shows it) and none of the
numbers. Directions come from labels alone, as a model has to learn them, and the rest by expectation-maximisation on
out-of-fold projections; the two alternate, because knowing which samples are ironic sharpens text's direction and gives
the cue's. The nuisance is assumed to be nothing but uninformative: a fitter that were told it is isotropic could find
the directions from variances and come closer to the exact optimum. So this is a strong reference and no bound.

Nothing is kept: fitting takes seconds, and the type of its argument says which split it may see.

Shape legend: N samples, F frames of a block, D features, G folds, C directions.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gapwise.data.presets import CUE_MODALITY, INVERTED_MODALITY, SynthPreset
from gapwise.data.store import TrainSplit
from gapwise.evaluation.directions import Found, find_direction, fold_of, orthogonal
from gapwise.evaluation.metrics import Real
from gapwise.evaluation.mixture import fit_mixture, start_channel
from gapwise.evaluation.posterior import Evidence, Form, Irony, Sums

_REFINEMENTS = 2
"""Rounds after the first, which has no cue yet and sees irony in text's sign alone."""
_FIRST_IRONY = 0.2
"""Where its probability starts."""


class Seen(NamedTuple):
    """Out-of-fold sums of every training sample; `cue_squares` beside what `Evidence` holds."""

    evidence: Evidence
    cue_squares: Real


def fit_form(train: TrainSplit, preset: SynthPreset) -> Form:
    """Every parameter fitted on `train`. Of the preset it reads the form: names, label grid, count of noise levels."""
    labels_N = train.labels.astype(np.float64)
    sums = {name: train.frame_sums(name) for name in preset.modalities}
    form, ironic_N = _fit_once(train, preset, sums, (labels_N, np.zeros_like(labels_N)))
    for _ in range(_REFINEMENTS):
        form, ironic_N = _fit_once(train, preset, sums, (labels_N, ironic_N))
    return form


def _fit_once(
    train: TrainSplit, preset: SynthPreset, sums: Mapping[str, Real], hidden: tuple[Real, Real]
) -> tuple[Form, Real]:
    """Directions given who is thought to be ironic, then all else; also p(irony | frames, label) by sample."""
    labels_N, ironic_N = hidden
    found = {name: _label_direction(train, name, sums[name], labels_N, ironic_N) for name in sums}
    cue = _cue_direction(train, sums[CUE_MODALITY], ironic_N, found[CUE_MODALITY])
    seen = _out_of_fold(train, found, cue)
    start = _start(preset, found, cue, seen, hidden)
    return fit_mixture(start, seen.evidence, seen.cue_squares, labels_N)


def _label_direction(train: TrainSplit, name: str, sums_ND: Real, labels_N: Real, ironic_N: Real) -> Found:
    said_N = labels_N * (1 - 2 * ironic_N) if name == INVERTED_MODALITY else labels_N
    return find_direction(sums_ND, train.lengths[name].astype(np.float64), said_N)


def _cue_direction(train: TrainSplit, sums_ND: Real, ironic_N: Real, label: Found) -> Found:
    return orthogonal(find_direction(sums_ND, train.lengths[CUE_MODALITY].astype(np.float64), ironic_N), label)


def _start(preset: SynthPreset, found: Mapping[str, Found], cue: Found, seen: Seen, hidden: tuple[Real, Real]) -> Form:
    labels_N, ironic_N = hidden
    said = dict.fromkeys(found, labels_N) | {INVERTED_MODALITY: labels_N * (1 - 2 * ironic_N)}
    channels = {
        name: start_channel(
            found[name].whole, seen.evidence.sums[name], said[name], len(preset.modalities[name].noise_levels)
        )
        for name in found
    }
    count_N, known = seen.evidence.sums[CUE_MODALITY].frames, bool(ironic_N.any())
    strength = (ironic_N * seen.evidence.cue).sum() / max((ironic_N * count_N).sum(), 1e-6) if known else 0.0
    irony = Irony(
        probability=float(ironic_N.mean()) if known else _FIRST_IRONY,
        inverted=INVERTED_MODALITY,
        cue=CUE_MODALITY,
        direction=cue.whole,
        strength=float(strength),
        noise=float(np.sqrt(seen.cue_squares.sum() / max(count_N.sum(), 1.0))) or 1.0,
    )
    return Form(labels=np.array(preset.labels), prior=_prior(preset, labels_N), channels=channels, irony=irony)


def _prior(preset: SynthPreset, labels_N: Real) -> Real:
    """Shares of the labels on the grid, with half an imagined sample each."""
    count_Y = (np.abs(labels_N[:, None] - np.array(preset.labels)) < 1e-6).sum(0) + 0.5
    prior_Y: Real = count_Y / count_Y.sum()
    return prior_Y


def _out_of_fold(train: TrainSplit, found: Mapping[str, Found], cue: Found) -> Seen:
    sums, cue_sums = {}, np.zeros((3, len(train)))
    for name, one in found.items():
        chosen = [one, cue] if name == CUE_MODALITY else [one]
        projected = _projected_sums(train, name, np.stack([each.folds for each in chosen]))
        sums[name] = Sums(*projected[0])
        cue_sums = projected[1] if name == CUE_MODALITY else cue_sums
    return Seen(Evidence(sums, cue_sums[1]), cue_sums[2])


def _projected_sums(train: TrainSplit, name: str, folds_CGD: Real) -> Real:
    """(C, 3, N): number, sum and sum of squares of each sample's projections on its own fold's directions."""
    directions, samples = len(folds_CGD), len(train)
    fold_N, flat_DX = fold_of(samples), folds_CGD.reshape(-1, folds_CGD.shape[-1]).T
    sums = np.zeros((directions, 3, samples))
    for rows, frames_FD in train.frames_with_rows(name):
        all_FCG = (frames_FD @ flat_DX).reshape(len(rows), directions, -1)
        own_FC = all_FCG[np.arange(len(rows)), :, fold_N[rows]]
        for number, own_F in enumerate(own_FC.T):
            for power in range(3):
                sums[number, power] += np.bincount(rows, own_F**power, minlength=samples)
    return sums
