"""Fitting the synthetic form's few numbers to labelled samples by expectation-maximisation.

Given directions, a training sample is a handful of sums and a label; irony and the noise levels are hidden. Each round
weighs what they may be and re-estimates amplitudes, levels, priors, and the probability and strength of irony. Priors
are smoothed by one imagined sample a class, so that none becomes impossible. Deterministic: no random start.

Shape legend: N samples, K noise levels, S signs (sincere, and ironic for the modality whose sign turns).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gapwise.evaluation.metrics import Real
from gapwise.evaluation.posterior import Channel, Evidence, Form, Irony, Sums, cue_log_odds, log_levels, log_sum

_ROUNDS = 300
_SETTLED = 1e-7
"""Stop when no parameter moves by more than this share."""
_SMALLEST = 1e-6


def start_channel(direction_D: Real, sums: Sums, labels_N: Real, levels: int) -> Channel:
    """From moments: the slope on the label, and quantiles of the deviations of single samples around it."""
    count, along, squares = sums
    amplitude = float((labels_N * along).sum() / max((count * labels_N**2).sum(), _SMALLEST))
    mean_N = amplitude * labels_N
    seen = count > 0
    variance = (squares - 2 * mean_N * along + count * mean_N**2)[seen] / count[seen]
    at = (np.arange(levels) + 0.5) / levels
    levels_K = np.sqrt(np.maximum(np.quantile(variance, at), _SMALLEST))
    return Channel(direction=direction_D, amplitude=amplitude, levels=levels_K, prior=np.full(levels, 1 / levels))


def fit_mixture(form: Form, evidence: Evidence, cue_squares_N: Real, labels_N: Real) -> tuple[Form, Real]:
    """The fitted form and each sample's probability of irony (N,). A cue strength of 0 stays 0."""
    for _ in range(_ROUNDS):
        ironic_N = irony_given_labels(form, evidence, labels_N)
        channels = {
            name: _refit(channel, evidence.sums[name], _signs(form, name, ironic_N), labels_N)
            for name, channel in form.channels.items()
        }
        irony = _refit_irony(form.irony, evidence, cue_squares_N, ironic_N)
        before, form = form, replace(form, channels=channels, irony=irony)
        if _distance(before, form) < _SETTLED:
            break
    return form, irony_given_labels(form, evidence, labels_N)


def irony_given_labels(form: Form, evidence: Evidence, labels_N: Real) -> Real:
    """(N,) p(irony | frames, label): the sign that the inverted modality takes, and the cue."""
    channel, sums = form.channels[form.irony.inverted], evidence.sums[form.irony.inverted]
    sincere_N, ironic_N = (log_sum(_levels(channel, sums, sign * labels_N).T) for sign in (1.0, -1.0))
    odds = np.log(form.irony.probability / (1 - form.irony.probability)) + ironic_N - sincere_N
    odds = odds + cue_log_odds(form.irony, evidence)
    probability: Real = 1 / (1 + np.exp(-odds.clip(-500, 500)))
    return probability


def _signs(form: Form, name: str, ironic_N: Real) -> Mapping[float, Real]:
    """{s: p(the modality says s * y)}."""
    if name != form.irony.inverted:
        return {1.0: np.ones_like(ironic_N)}
    return {1.0: 1 - ironic_N, -1.0: ironic_N}


def _refit(channel: Channel, sums: Sums, signs: Mapping[float, Real], labels_N: Real) -> Channel:
    said_SN = np.stack([sign * labels_N for sign in signs])
    weight_SKN = np.stack(
        [
            weight_N * _shares(_levels(channel, sums, said_N))
            for said_N, weight_N in zip(said_SN, signs.values(), strict=True)
        ]
    )
    precision_SN = (weight_SKN / channel.levels[:, None] ** 2).sum(1)
    signal = (precision_SN * said_SN * sums.along).sum()
    amplitude = float(signal / max((precision_SN * said_SN**2 * sums.frames).sum(), _SMALLEST))
    mean_SN = amplitude * said_SN
    error_SN = sums.squares - 2 * mean_SN * sums.along + sums.frames * mean_SN**2
    error_K = np.einsum("skn,sn->k", weight_SKN, error_SN)
    frames_K = np.einsum("skn,n->k", weight_SKN, sums.frames)
    levels_K = np.sqrt(np.maximum(error_K, _SMALLEST) / np.maximum(frames_K, _SMALLEST))
    share_K = weight_SKN.sum((0, 2)) + 1.0
    return replace(channel, amplitude=amplitude, levels=levels_K, prior=share_K / share_K.sum())


def _refit_irony(irony: Irony, evidence: Evidence, cue_squares_N: Real, ironic_N: Real) -> Irony:
    probability = float((ironic_N.sum() + 1) / (len(ironic_N) + 2))
    if irony.strength == 0:
        return replace(irony, probability=probability)
    count_N = evidence.sums[irony.cue].frames
    strength = float((ironic_N * evidence.cue).sum() / max((ironic_N * count_N).sum(), _SMALLEST))
    error = cue_squares_N - 2 * ironic_N * strength * evidence.cue + ironic_N * count_N * strength**2
    noise = float(np.sqrt(max(error.sum(), _SMALLEST) / max(count_N.sum(), _SMALLEST)))
    return replace(irony, probability=probability, strength=strength, noise=noise)


def _levels(channel: Channel, sums: Sums, said_N: Real) -> Real:
    """(K, N) log p(sigma_k, frames) where sample n says `said_N[n]`."""
    return log_levels(channel, sums, said_N[:, None])[..., 0]


def _shares(log_KN: Real) -> Real:
    weight_KN = np.exp(log_KN - log_KN.max(0))
    shares: Real = weight_KN / weight_KN.sum(0)
    return shares


def _distance(first: Form, second: Form) -> float:
    old, new = _numbers(first), _numbers(second)
    return float(np.abs((new - old) / np.maximum(np.abs(old), _SMALLEST)).max())


def _numbers(form: Form) -> Real:
    parts = [[one.amplitude, *one.levels, *one.prior] for one in form.channels.values()]
    return np.array([*(number for part in parts for number in part), form.irony.probability, form.irony.strength])
