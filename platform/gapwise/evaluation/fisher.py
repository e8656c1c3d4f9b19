"""The true Fisher information of each modality about the label, which reliability estimates are compared with.

Stated conditional on irony: then a modality's frames are Gaussian around a_m s_m y with a known deviation, and the
information is a sum over its observed frames, sum_t o_{m,t} a_m^2 / sigma_m^2, whatever the label and the sign.

Shape legend: N samples, T steps.
"""

import numpy as np

from gapwise.data.protocols import Observed
from gapwise.data.store import Split
from gapwise.data.synth import Task
from gapwise.data.truth import Truth
from gapwise.evaluation.metrics import Real


def fisher_information(count: Real, amplitude: float, sigma: Real) -> Real:
    """Of `count` observed frames about y; broadcast over samples."""
    information: Real = count * (amplitude / sigma) ** 2
    return information


def observed_frames(split: Split, observed: Observed) -> dict[str, Real]:
    """(N,) by modality: frames of each row that exist and are observed; `observed` are (N, T) masks of a protocol."""
    frames = {}
    for name, mask_NT in observed.items():
        real_NT = np.arange(mask_NT.shape[1]) < split.lengths[name][:, None]
        frames[name] = (mask_NT & real_NT).sum(1).astype(np.float64)
    return frames


def true_information(task: Task, truth: Truth, split: Split, observed: Observed) -> dict[str, Real]:
    """(N,) by modality for every row of a split; `observed` are (N, T) masks as a protocol gives them."""
    frames = observed_frames(split, observed)
    return {
        name: fisher_information(frames[name], modality.amplitude, truth.sigma[name])
        for name, modality in task.preset.modalities.items()
    }
