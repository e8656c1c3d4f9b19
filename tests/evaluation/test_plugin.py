"""The plug-in optimum: it approaches the exact one as the training split grows, and does not overtake it.

Nothing is faked. `small` is drawn with larger training splits; the test samples stay the same.
"""

import numpy as np
import pytest

from gapwise.data.presets import SMALL
from gapwise.evaluation.directions import find_direction, fold_of, one_standard_error, orthogonal
from gapwise.evaluation.optimum import exact_form, optimal_grid
from gapwise.evaluation.plugin import fit_form
from gapwise.spec.protocol import ProtocolSpec

PROTOCOL = ProtocolSpec(rates=(0.0, 0.3, 0.6, 0.9))


@pytest.fixture(scope="module")
def fitted(draw):
    """By training size: the fitted form, and the excess of its MAE over the exact optimum's, (rates, mask seeds)."""
    found = {}
    for samples in (400, 4_000, 16_000):
        dataset, task = draw(SMALL, train=samples, valid=1, test=4000)
        form = fit_form(dataset.train, task.preset)
        test = dataset.test("the plug-in optimum's distance")
        exact, plug_in = (
            optimal_grid(one, test, PROTOCOL, [1, 2, 3]).metrics["mae"] for one in (exact_form(task), form)
        )
        found[samples] = form, plug_in / exact - 1
    return found


def test_the_plug_in_optimum_approaches_the_exact_one_with_more_samples(fitted):
    excess = {samples: found.mean() for samples, (_, found) in fitted.items()}

    assert excess[400] > 3 * excess[4_000] > 0
    assert excess[16_000] < 0.004


def test_it_is_never_better_than_the_exact_one_beyond_noise(fitted):
    for _, found in fitted.values():
        assert (found.mean(1) > -0.004).all()


def test_many_samples_give_the_parameters_back(fitted):
    form, exact = fitted[16_000][0], SMALL

    for name, modality in exact.modalities.items():
        channel = form.channels[name]
        assert channel.amplitude == pytest.approx(modality.amplitude, abs=0.01)
        np.testing.assert_allclose(channel.levels, modality.noise_levels, rtol=0.04)
        np.testing.assert_allclose(channel.prior, modality.noise_prior, atol=0.03)
    assert form.irony.probability == pytest.approx(0.1, abs=0.01)
    assert form.irony.strength == pytest.approx(1.0, abs=0.05)
    assert form.irony.noise == pytest.approx(1.5, abs=0.02)


def test_the_fit_is_deterministic(draw):
    dataset, task = draw(SMALL, train=300, valid=1, test=1)

    first, second = (fit_form(dataset.train, task.preset) for _ in range(2))

    for name, channel in first.channels.items():
        np.testing.assert_array_equal(channel.direction, second.channels[name].direction)
        np.testing.assert_array_equal(channel.levels, second.channels[name].levels)


def planted(samples: int, dim: int, slope: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of frames (N, D), counts and targets, with the target along the first axis."""
    random = np.random.default_rng(1)
    count, target = random.integers(3, 9, samples).astype(float), random.standard_normal(samples)
    means = random.standard_normal((samples, dim)) / np.sqrt(count)[:, None]
    means[:, 0] += slope * target
    return means * count[:, None], count, target


def test_a_direction_is_found_with_the_target_growing_along_it():
    found = find_direction(*planted(2000, 30, 0.5))

    assert found.whole[0] > 0.97
    assert (found.folds[:, 0] > 0.97).all()


def test_a_fold_s_direction_does_not_depend_on_its_own_samples():
    sums, count, target = planted(200, 5, 0.5)
    changed = np.where(fold_of(200)[:, None] == 3, sums + 7.0, sums)

    before, after = find_direction(sums, count, target), find_direction(changed, count, target)

    np.testing.assert_allclose(before.folds[3], after.folds[3], rtol=1e-9)
    assert not np.allclose(before.whole, after.whole)


def test_out_of_fold_projections_are_not_better_than_they_would_be_on_new_samples():
    """With no signal at all, in-sample projections grow with the target and out-of-fold ones do not."""
    sums, count, target = planted(200, 100, 0.0)
    found = find_direction(sums, count, target)
    means = sums / count[:, None]

    in_sample = np.corrcoef(means @ found.whole, target)[0, 1]
    out_of_fold = np.corrcoef((means * found.folds[fold_of(200)]).sum(1), target)[0, 1]

    assert in_sample > 0.5
    assert abs(out_of_fold) < 0.25


def test_a_modality_absent_from_some_samples_is_no_obstacle():
    sums, count, target = planted(500, 5, 0.5)
    sums[:100], count[:100] = 0.0, 0.0

    assert find_direction(sums, count, target).whole[0] > 0.95


def test_orthogonal_directions_are_so_in_every_fold():
    first, second = find_direction(*planted(300, 5, 0.5)), find_direction(*planted(280, 5, 0.2))

    apart = orthogonal(first, second)

    assert apart.whole @ second.whole == pytest.approx(0, abs=1e-12)
    assert (apart.folds * second.folds).sum(1) == pytest.approx(np.zeros(10), abs=1e-12)


def test_the_simplest_choice_within_one_standard_error_of_the_best_wins():
    near, best, far = [0.50, 0.52], [0.48, 0.56], [0.1, 0.1]

    assert one_standard_error(np.array([near, best])) == 0
    assert one_standard_error(np.array([far, best])) == 1
