"""p(y | observed frames) in the synthetic task's form, by enumeration over label, irony and noise levels.

Given (y, irony, sigma) the frames are independent and Gaussian along v_m (and w), so a modality enters through three
sums over its observed frames, and the cue of irony through one more. Given (y, irony) the modalities are independent,
so the sum over sigma_1..sigma_M is a product of one small sum each. A modality without an observed frame has likelihood
one: it says nothing. Where the parameters come from, the generator or a fit, makes no difference here.

Shape legend: ... any leading axes (conditions, samples), Y labels, K noise levels of a modality, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gapwise.evaluation.metrics import Real


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """How one modality speaks of the label."""

    direction: Real
    """(D,) v_m, a unit vector."""
    amplitude: float
    """a_m."""
    levels: Real
    """(K,) what sigma_m may be."""
    prior: Real
    """(K,) probability of each; sums to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Irony:
    """How often one modality says -y, and how another shows it."""

    probability: float
    inverted: str
    """The modality whose sign turns."""
    cue: str
    """The modality that shows irony along w."""
    direction: Real
    """(D,) w, a unit vector orthogonal to the cue modality's v_m."""
    strength: float
    """b: mean of a frame along w under irony; 0 otherwise."""
    noise: float
    """tau: deviation of a frame along w."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """All parameters that the posterior depends on; the nuisance is none of them."""

    labels: Real
    """(Y,) the grid that y lies on."""
    prior: Real
    """(Y,) probability of each; sums to one."""
    channels: Mapping[str, Channel]
    irony: Irony


class Sums(NamedTuple):
    """Over the observed frames of one modality, (...) each."""

    frames: Real
    """Their number."""
    along: Real
    """Sum of the projections on v_m."""
    squares: Real
    """Sum of their squares."""


class Evidence(NamedTuple):
    """All that the posterior needs of the observed frames."""

    sums: Mapping[str, Sums]
    cue: Real
    """(...), sum of the cue modality's projections on w."""


def posterior(form: Form, evidence: Evidence) -> Real:
    """(..., Y) probabilities of the labels."""
    sincere, ironic = log_branches(form, evidence)
    joint = np.logaddexp(sincere, ironic) + np.log(form.prior)
    weight = np.exp(joint - joint.max(-1, keepdims=True))
    probability: Real = weight / weight.sum(-1, keepdims=True)
    return probability


def log_branches(form: Form, evidence: Evidence) -> tuple[Real, Real]:
    """(..., Y) log p(irony, frames | y), up to a common constant, without irony and with it."""
    irony = form.irony
    common = np.zeros(len(form.labels))
    for name, channel in form.channels.items():
        if name != irony.inverted:
            common = common + log_likelihood(channel, evidence.sums[name], form.labels)
    turned, sums = form.channels[irony.inverted], evidence.sums[irony.inverted]
    sincere = common + log_likelihood(turned, sums, form.labels) + np.log1p(-irony.probability)
    ironic = common + log_likelihood(turned, sums, -form.labels) + np.log(irony.probability)
    return sincere, ironic + cue_log_odds(irony, evidence)[..., None]


def cue_log_odds(irony: Irony, evidence: Evidence) -> Real:
    """(...) log p(projections on w | irony) - log p(the same | none)."""
    count = evidence.sums[irony.cue].frames
    odds: Real = irony.strength * (evidence.cue - count * irony.strength / 2) / irony.noise**2
    return odds


def log_likelihood(channel: Channel, sums: Sums, said_Y: Real) -> Real:
    """(..., Y) log p(frames | the modality says each of `said_Y`), the noise level summed out."""
    return log_sum(np.moveaxis(log_levels(channel, sums, said_Y), 0, -1))


def log_levels(channel: Channel, sums: Sums, said_Y: Real) -> Real:
    """(K, ..., Y) log p(sigma_k, frames | what is said), up to a constant of the frames' number."""
    count, along, squares = (part[..., None] for part in sums)
    mean_Y = channel.amplitude * said_Y
    error = squares - 2 * mean_Y * along + count * mean_Y**2
    return np.stack(
        [
            np.log(prior) - count * np.log(level) - error / (2 * level**2)
            for level, prior in zip(channel.levels, channel.prior, strict=True)
        ]
    )


def log_sum(log_K: Real) -> Real:
    """log(sum(exp)) over the last axis, without overflow."""
    top = log_K.max(-1, keepdims=True)
    total: Real = np.log(np.exp(log_K - top).sum(-1)) + top[..., 0]
    return total
