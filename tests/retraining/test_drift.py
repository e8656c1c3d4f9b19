"""Drift: how often the tests raise a false alarm, what they find, and which samples they look at.

The data are simulated from fixed seeds: each group has a vector of its own, its samples lie around that (intra-group
correlation .5), features share a common part. Bounds on counts of alarms are binomial with a chance below 1e-6 of being
broken by a right test; a wrong one (samples permuted as if they were independent) is shown to break them.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gapwise.data.growth import AppendOptions, append
from gapwise.data.store import open_dataset
from gapwise.errors import DataError
from gapwise.retraining.drift import Measured, error_drift, errors, input_drift, measured
from gapwise.testing.datasets import small_splits, without, write

FEATURES = 12
NAMES = tuple(f"audio[{column}]" for column in range(FEATURES))
LEVEL, TRIES = 0.05, 300


def side(random, groups, *, each=6, prefix="", shift=0.0):
    """Samples of `groups`, `each` of them; `shift` moves feature 7, in deviations of a group."""
    common = random.standard_normal((len(groups), 1))
    own = np.sqrt(0.5) * (common + random.standard_normal((len(groups), FEATURES)))
    own[:, 7] += shift
    values = np.repeat(own, each, axis=0) + random.standard_normal((len(groups) * each, FEATURES))
    return Measured(features=NAMES, values=values, groups=tuple(np.repeat([f"{prefix}{one}" for one in groups], each)))


def as_if_independent(one, prefix):
    return replace(one, groups=tuple(f"{prefix}{row}" for row in range(len(one.groups))))


def alarms(draw, test=input_drift):
    return sum(
        test(*draw(np.random.default_rng(seed)), seed=seed, permutations=199).p_value <= LEVEL for seed in range(TRIES)
    )


MOST = stats.binom.isf(1e-6, TRIES, LEVEL)


def test_correlated_samples_of_new_groups_raise_no_more_false_alarms_than_the_level():
    def draw(random):
        return side(random, range(14), prefix="old"), side(random, range(8), each=4, prefix="new")

    def naive(random):
        reference, new = draw(random)
        return as_if_independent(reference, "old"), as_if_independent(new, "new")

    assert alarms(draw) <= MOST
    assert alarms(naive) > 2 * MOST, "the simulated groups would not show a wrong test"


def test_groups_on_both_sides_raise_no_more_false_alarms_than_the_level():
    def draw(random):
        whole = side(random, range(16), each=10)
        row = np.arange(160)
        new = (row % 10 < 3) & (row >= 40)  # 4 groups are in the reference alone, 12 on both sides
        return tuple(
            Measured(features=NAMES, values=whole.values[mine], groups=tuple(np.array(whole.groups)[mine]))
            for mine in (~new, new)
        )

    assert alarms(draw) <= MOST


def test_errors_raise_no_more_false_alarms_than_the_level_and_only_upwards():
    def draw(random):
        both = side(random, range(14), prefix="old"), side(random, range(8), prefix="new")
        return tuple(replace(one, features=NAMES[:1], values=np.abs(one.values[:, :1])) for one in both)

    assert alarms(draw, error_drift) <= MOST
    random = np.random.default_rng(0)
    reference, new = draw(random)
    larger, smaller = (replace(new, values=new.values + by) for by in (2.0, -2.0))
    assert error_drift(reference, larger, seed=0).p_value < 0.01
    assert error_drift(reference, smaller, seed=0).p_value > 0.5


def test_a_shifted_feature_is_found_and_named():
    random = np.random.default_rng(1)

    found = input_drift(side(random, range(20), prefix="old"), side(random, range(15), prefix="new", shift=-2), seed=0)

    assert found.p_value < 0.01
    assert found.feature == "audio[7]"
    assert found.effect < -1
    assert (found.reference_groups, found.new_groups) == (20, 15)


def test_a_shift_within_known_groups_is_found_although_groups_differ_more_than_that():
    random = np.random.default_rng(2)
    reference = side(random, range(20))
    apart = replace(reference, values=reference.values + 10 * np.repeat(np.arange(20), 6)[:, None])
    moved = apart.values + random.standard_normal(apart.values.shape) / 10
    moved[:, 3] += 1.0

    found = input_drift(apart, replace(apart, values=moved), seed=0)

    assert (found.p_value < 0.01, found.feature) == (True, "audio[3]")


def test_the_result_depends_on_the_seed_and_the_content_alone_not_on_the_order_of_samples():
    random = np.random.default_rng(3)
    reference, new = side(random, range(9), prefix="old"), side(random, range(5), prefix="new", shift=0.8)
    order = random.permutation(len(new.groups))
    turned = replace(new, values=new.values[order], groups=tuple(np.array(new.groups)[order]))

    first = input_drift(reference, new, seed=4)

    again = input_drift(reference, turned, seed=4)
    assert (again.p_value, again.feature) == (first.p_value, first.feature)
    assert again.effect == pytest.approx(first.effect)
    others = {input_drift(reference, new, seed=seed, permutations=99).p_value for seed in range(5)}
    assert len(others) > 1


@pytest.mark.parametrize("groups", [(), ("only",)])
def test_fewer_than_two_groups_on_a_side_show_nothing(groups):
    random = np.random.default_rng(5)
    reference, new = side(random, range(9), prefix="old"), side(random, groups, shift=9)

    for found in (input_drift(reference, new, seed=0), input_drift(new, reference, seed=0)):
        assert (found.p_value, found.effect, found.feature) == (1.0, 0.0, "")


def test_two_groups_against_two_cannot_be_rarer_than_their_arrangements():
    """Six ways to deal out four groups, and the mirror image of the observed one is as far apart: p is a third."""
    random = np.random.default_rng(8)
    reference, new = side(random, range(2), prefix="old"), side(random, range(2), prefix="new")

    found = input_drift(reference, replace(new, values=new.values + 50), seed=0)

    assert found.p_value == pytest.approx(1 / 3, abs=0.06)  # 5 standard errors of 1999 permutations


def test_constant_features_show_nothing_and_one_that_leaves_its_constant_is_found():
    def flat(prefix, value):
        return Measured(
            features=("a", "b"), values=np.tile([0.3, value], (8, 1)), groups=tuple(f"{prefix}{i}" for i in range(8))
        )

    assert input_drift(flat("old", 0.1), flat("new", 0.1), seed=0).p_value == 1.0
    found = input_drift(flat("old", 0.1), flat("new", 0.2), seed=0)
    assert (found.feature, found.p_value < 0.01) == ("b", True)


def test_a_feature_that_one_side_lacks_is_left_out_and_not_taken_for_zero():
    random = np.random.default_rng(6)
    reference, new = side(random, range(9), prefix="old"), side(random, range(9), prefix="new")
    far = replace(reference, values=reference.values + 100)
    gone = replace(new, values=np.where(np.arange(FEATURES) == 7, np.nan, new.values + 100))

    found = input_drift(far, gone, seed=0)

    assert found.feature != "audio[7]" and found.p_value > 0.01


def test_two_that_measure_different_things_are_refused():
    random = np.random.default_rng(7)
    one = side(random, range(4))

    with pytest.raises(DataError, match="do not measure the same"):
        input_drift(one, replace(one, features=NAMES[::-1]), seed=0)


def test_errors_are_absolute_for_scores_and_wrong_classes_for_logits():
    scores = errors(np.array([1.0, -2.0], np.float32), np.array([0.5, 1.0], np.float32), ["a", "b"])
    classes = errors(np.array([[0, 1], [1, 0]], np.float32), np.array([1, 1]), ["a", "b"])

    assert scores.values.tolist() == [[0.5], [3.0]]
    assert classes.values.tolist() == [[0.0], [1.0]]
    assert scores.features != classes.features


def part_of(tmp_path, split, name):
    """An npz file of a split's samples, under other names."""
    content = {"train/id": [f"{name}-{one}" for one in split.ids], "train/label": split.labels}
    content["train/group"] = [f"{name}-{one}" for one in split.groups]
    for modality, arrays in split.modalities.items():
        lengths = np.diff(arrays.offsets)
        block = np.zeros((len(split), lengths.max(), arrays.values.shape[1]), arrays.values.dtype)
        block[np.arange(block.shape[1]) < lengths[:, None]] = arrays.values
        content |= {f"train/{modality}": block, f"train/{modality}_lengths": lengths}
    np.savez(tmp_path / f"{name}.npz", **content)
    return tmp_path / f"{name}.npz"


def test_what_is_measured_are_means_missing_modalities_and_lengths_of_the_steps_that_were_asked_for(tmp_path):
    splits = small_splits({"train": 24, "valid": 8, "test": 8})
    folder = write(splits, tmp_path / "d").folder
    fresh = without(small_splits({"train": 40, "valid": 1, "test": 1}, seed=9)["train"], "audio", np.arange(0, 40, 2))
    append(part_of(tmp_path, fresh, "may"), folder, "npz", AppendOptions(shares=(3, 1, 0)))
    dataset = open_dataset(folder)
    arrived = dataset.manifest.steps_since(dataset.manifest.growth[0].parent)

    reference, new = measured(dataset, [0]), measured(dataset, arrived, ("train", "valid"))

    assert len(reference.groups) == 24 and len(new.groups) == 40
    assert all(group.startswith("may-") for group in new.groups)
    audio = splits["train"].modalities["audio"]
    length = audio.offsets[1]
    place = reference.features.index("audio[0]")
    np.testing.assert_allclose(
        reference.values[0, place : place + 2], audio.values[:length, :2].mean(axis=0), rtol=1e-5
    )
    assert reference.values[0, reference.features.index("audio length")] == length
    assert new.values[:, new.features.index("audio missing")].sum() == 20
    assert np.isnan(new.values[:, place]).sum() == 20
    assert input_drift(reference, new, seed=0).feature == "audio missing"
