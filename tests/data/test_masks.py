"""The counter-based uniforms: the same for whoever asks, and good enough to be called random.

Nothing is faked. Statistical checks use fixed keys, so they are tests of a constant: each bound is one that a sound
generator misses less than once in a million.
"""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from gapwise.data.masks import available_patterns, kept_at, scramble, stream, subset_key, subsets, uniforms

KEYS = scramble(np.arange(2000, dtype=np.uint64))
UNLIKELY = 1e-6
PINNED = [
    [0.024233398771658865, 0.8139003306911834],
    [0.16606373873891933, 0.8064972058741919],
    [0.8671995166978961, 0.030749997579379795],
]


def named(**changes) -> np.uint64:
    return stream(**{"seed": 0, "split": "train", "epoch": 0, "purpose": "text", **changes})


class TestIdentity:
    def test_any_order_and_any_subset_of_samples_gives_the_same_numbers(self):
        whole, rows = uniforms(named(), KEYS, 7), np.random.default_rng(0).permutation(len(KEYS))[:50]

        assert np.array_equal(uniforms(named(), KEYS[rows], 7), whole[rows])

    def test_more_positions_leave_the_first_ones_as_they_were(self):
        assert np.array_equal(uniforms(named(), KEYS, 30)[:, :7], uniforms(named(), KEYS, 7))

    @pytest.mark.parametrize("change", [{"seed": 1}, {"split": "valid"}, {"epoch": 1}, {"purpose": "audio"}])
    def test_seed_split_epoch_and_modality_each_give_other_numbers(self, change):
        assert not np.isin(uniforms(named(**change), KEYS, 7), uniforms(named(), KEYS, 7)).any()

    def test_the_parts_of_a_name_cannot_run_into_each_other(self):
        assert named(seed=1, epoch=12) != named(seed=11, epoch=2)

    def test_the_first_numbers_are_pinned(self):
        """Another machine, numpy or release must draw the same masks: published figures depend on it."""
        first = uniforms(named(seed=3), np.array([0, 1, 2**64 - 1], np.uint64), 2)

        assert first.tolist() == PINNED

    def test_no_sample_is_an_empty_array(self):
        assert uniforms(named(), KEYS[:0], 5).shape == (0, 5)


class TestRandomness:
    def test_numbers_are_uniform(self):
        counts = np.histogram(uniforms(named(), KEYS, 50), bins=64, range=(0, 1))[0]

        assert stats.chisquare(counts).pvalue > UNLIKELY

    def test_numbers_are_uniform_for_keys_that_differ_in_one_bit_and_seeds_that_follow_each_other(self):
        keys = np.uint64(1) << np.arange(64, dtype=np.uint64)
        drawn = np.stack([uniforms(named(seed=seed), keys, 20) for seed in range(20)])

        assert stats.chisquare(np.histogram(drawn, bins=64, range=(0, 1))[0]).pvalue > UNLIKELY

    def test_numbers_are_at_least_0_and_below_1(self):
        drawn = uniforms(named(), KEYS, 50)

        assert drawn.min() >= 0
        assert drawn.max() < 1

    @pytest.mark.parametrize(
        "second", [{"purpose": "audio"}, {"seed": 1}, {"epoch": 1}, {"split": "valid"}], ids=lambda one: next(iter(one))
    )
    def test_two_streams_are_independent(self, second):
        assert independent(uniforms(named(), KEYS, 20), uniforms(named(**second), KEYS, 20))

    @pytest.mark.parametrize("lag", [1, 2, 8])
    def test_positions_of_a_sample_are_independent(self, lag):
        drawn = uniforms(named(), KEYS, 40)

        assert independent(drawn[:, :-lag], drawn[:, lag:])

    @pytest.mark.parametrize("lag", [1, 2, 64])
    def test_samples_are_independent_although_their_keys_follow_each_other(self, lag):
        drawn = uniforms(named(), np.arange(2000, dtype=np.uint64), 20)

        assert independent(drawn[:-lag], drawn[lag:])


def independent(first: np.ndarray, second: np.ndarray) -> bool:
    """Chi-square on an 8 x 8 table of pairs."""
    table = np.histogram2d(first.ravel(), second.ravel(), bins=8, range=((0, 1), (0, 1)))[0]
    return stats.chisquare(table.ravel()).pvalue > UNLIKELY


class TestFrames:
    def test_what_is_missing_at_a_rate_is_missing_at_every_higher_one(self):
        drawn = uniforms(named(), KEYS, 20)
        kept = [kept_at(drawn, rate) for rate in np.linspace(0, 1, 21)]

        assert all((higher <= lower).all() for lower, higher in pairwise(kept))

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_the_share_that_is_missing_is_the_rate(self, rate):
        missing = ~kept_at(uniforms(named(), KEYS, 50), rate)

        assert stats.binomtest(int(missing.sum()), missing.size, rate).pvalue > UNLIKELY

    def test_rate_0_keeps_everything_and_rate_1_nothing(self):
        drawn = uniforms(named(), KEYS, 20)

        assert kept_at(drawn, 0.0).all()
        assert not kept_at(drawn, 1.0).any()


class TestSubsets:
    def test_they_are_all_that_are_not_empty_smallest_first_whatever_the_order_of_names(self):
        expected = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]

        assert subsets(["c", "a", "b"]) == subsets({"b": 1, "a": 1, "c": 1}) == expected

    def test_their_name_is_sorted(self):
        assert subset_key(("text", "audio")) == "audio+text"

    @pytest.mark.parametrize("edge", [0.0, 1.0 - 2.0**-53])
    def test_the_ends_of_the_unit_interval_are_proper_subsets(self, edge):
        kept = available_patterns(np.array([edge]), np.array([True]), "abc")

        assert 1 <= sum(int(one[0]) for one in kept.values()) <= 2

    def test_complete_samples_keep_everything(self):
        kept = available_patterns(np.array([0.1, 0.1]), np.array([True, False]), "abc")

        assert [bool(one[1]) for one in kept.values()] == [True] * 3
        assert not all(one[0] for one in kept.values())
