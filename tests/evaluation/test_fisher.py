"""True Fisher information: the stated sum, and the curvature of the likelihood that it stands for.

Faked: nothing; the dataset is the synthetic `small` one.
"""

from pathlib import Path

import numpy as np
import pytest

from gapwise.data.store import open_dataset
from gapwise.data.synth import read_task
from gapwise.data.truth import read_truth
from gapwise.evaluation.fisher import fisher_information, true_information


def test_information_grows_with_observed_frames_and_falls_with_noise():
    found = fisher_information(np.array([0.0, 2.0, 4.0]), 0.6, np.array([1.0, 1.0, 2.0]))

    np.testing.assert_allclose(found, [0.0, 0.72, 0.36])


def test_information_is_the_curvature_of_the_log_likelihood():
    """Minus the second derivative over y of sum_t -(p_t - a y)^2 / (2 sigma^2), by differences."""
    frames, amplitude, sigma, step = np.array([0.3, -1.0, 2.0]), 0.6, 1.3, 1e-3

    def log_likelihood(label: float) -> float:
        return float((-((frames - amplitude * label) ** 2) / (2 * sigma**2)).sum())

    curvature = (2 * log_likelihood(0.7) - log_likelihood(0.7 + step) - log_likelihood(0.7 - step)) / step**2
    assert fisher_information(np.array(3.0), amplitude, np.array(sigma)) == pytest.approx(curvature, rel=1e-5)


def test_only_frames_that_exist_and_are_observed_count(small: Path):
    dataset = open_dataset(small)
    task, valid = read_task(dataset), dataset.valid
    assert task is not None
    truth = read_truth(valid)
    everything = {
        name: np.ones((len(valid), record.max_length), dtype=bool)
        for name, record in dataset.manifest.modalities.items()
    }

    whole = true_information(task, truth, valid, everything)
    nothing = true_information(task, truth, valid, {name: ~mask for name, mask in everything.items()})

    for name, modality in task.preset.modalities.items():
        expected = valid.lengths[name] * modality.amplitude**2 / truth.sigma[name] ** 2
        np.testing.assert_allclose(whole[name], expected)
        assert not nothing[name].any()
