"""The protocols: fresh masks in training, fixed and nested ones in evaluation, and the mix that each one promises.

Nothing is faked: a protocol needs sample keys and lengths only. Statistical bounds are missed by a sound generator less
than once in a million.
"""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from gapwise.data.masks import scramble, subsets
from gapwise.data.protocols import build_protocol
from gapwise.errors import SpecError
from gapwise.spec.protocol import ProtocolSpec

KEYS = scramble(np.arange(3000, dtype=np.uint64))
LENGTHS = {"text": 8, "audio": 12, "vision": 1}
UNLIKELY = 1e-6
BOTH = pytest.mark.parametrize("name", ["frames", "modalities"])


def protocol(name: str, **changes):
    return build_protocol(ProtocolSpec(name=name, **changes))


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


class TestAny:
    @BOTH
    def test_training_masks_follow_the_sample_in_any_order_and_subset(self, name):
        whole = protocol(name).training(KEYS, LENGTHS, seed=0, epoch=0)
        rows = np.random.default_rng(0).permutation(len(KEYS))[:40]

        part = protocol(name).training(KEYS[rows], LENGTHS, seed=0, epoch=0)

        assert same(part, {modality: mask[rows] for modality, mask in whole.items()})

    @BOTH
    @pytest.mark.parametrize("other", [{"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}])
    def test_training_masks_differ_between_seeds_and_epochs(self, name, other):
        first = protocol(name).training(KEYS, LENGTHS, seed=0, epoch=0)
        second = protocol(name).training(KEYS, LENGTHS, **other)

        assert all((first[modality] != second[modality]).mean() > 0.1 for modality in LENGTHS)

    @BOTH
    def test_the_order_of_modalities_does_not_matter(self, name):
        turned = dict(reversed(LENGTHS.items()))

        assert same(
            protocol(name).training(KEYS, LENGTHS, seed=0, epoch=0),
            protocol(name).training(KEYS, turned, seed=0, epoch=0),
        )

    @BOTH
    def test_conditions_are_what_evaluation_answers_in_that_order(self, name):
        chosen = protocol(name)

        assert list(chosen.evaluation(KEYS[:3], LENGTHS, split="valid", mask_seed=0)) == chosen.conditions(LENGTHS)

    @BOTH
    def test_masks_have_the_shape_of_the_modality(self, name):
        drawn = protocol(name).training(KEYS, LENGTHS, seed=0, epoch=0)

        assert {modality: mask.shape for modality, mask in drawn.items()} == {
            modality: (len(KEYS), length) for modality, length in LENGTHS.items()
        }
        assert all(mask.dtype == np.bool_ for mask in drawn.values())

    @BOTH
    def test_nothing_is_hidden_in_training_where_the_incomplete_share_is_0(self, name):
        drawn = protocol(name, incomplete_share=0.0).training(KEYS, LENGTHS, seed=0, epoch=0)

        assert all(mask.all() for mask in drawn.values())

    def test_a_name_without_a_class_is_refused_with_the_known_ones(self):
        with pytest.raises(SpecError, match=r"unknown protocol 'block' \(allowed: frames, modalities\)"):
            build_protocol(ProtocolSpec.model_construct(name="block"))


class TestFrames:
    def test_conditions_are_the_rates(self):
        assert protocol("frames", rates=(0.0, 0.25, 0.5)).conditions(LENGTHS) == ["0.0", "0.25", "0.5"]

    def test_evaluation_is_nested_in_the_rate_and_complete_at_0(self):
        drawn = list(protocol("frames").evaluation(KEYS, LENGTHS, split="valid", mask_seed=0).values())

        for modality in LENGTHS:
            assert drawn[0][modality].all()
            assert all((high[modality] <= low[modality]).all() for low, high in pairwise(drawn))

    def test_evaluation_hides_the_rate_s_share_of_every_modality(self):
        drawn = protocol("frames").evaluation(KEYS, LENGTHS, split="valid", mask_seed=0)["0.3"]

        for mask in drawn.values():
            assert stats.binomtest(int((~mask).sum()), mask.size, 0.3).pvalue > UNLIKELY

    def test_evaluation_masks_are_the_same_at_every_call_and_differ_between_mask_seeds_and_splits(self):
        def draw(**changes):
            return protocol("frames").evaluation(KEYS, LENGTHS, **{"split": "valid", "mask_seed": 0, **changes})["0.5"]

        assert same(draw(), draw())
        for other in (draw(mask_seed=1), draw(split="test")):
            assert all(abs((draw()[modality] != other[modality]).mean() - 0.5) < 0.05 for modality in LENGTHS)

    def test_evaluation_does_not_depend_on_which_other_rates_are_on_the_grid(self):
        few, many = protocol("frames", rates=(0.3,)), protocol("frames")

        assert same(
            few.evaluation(KEYS, LENGTHS, split="valid", mask_seed=0)["0.3"],
            many.evaluation(KEYS, LENGTHS, split="valid", mask_seed=0)["0.3"],
        )

    def test_modalities_are_masked_independently(self):
        drawn = protocol("frames").evaluation(KEYS, {"text": 8, "audio": 8}, split="valid", mask_seed=0)["0.5"]
        pairs = np.histogram2d(drawn["text"].ravel(), drawn["audio"].ravel(), bins=2)[0]

        assert stats.chisquare(pairs.ravel()).pvalue > UNLIKELY

    @pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
    def test_training_leaves_the_complement_of_the_share_whole_in_each_modality_on_its_own(self, share):
        lengths = {"text": 4000, "audio": 4000}
        drawn = protocol("frames", incomplete_share=share).training(KEYS[:1000], lengths, seed=0, epoch=0)
        whole = {name: mask.all(1) for name, mask in drawn.items()}

        for complete in whole.values():
            assert abs(complete.mean() - (1 - share)) < 5 * np.sqrt(share * (1 - share) / 1000) + 2e-3
        both = (whole["text"] & whole["audio"]).mean()
        assert abs(both - (1 - share) ** 2) < 0.08

    @pytest.mark.parametrize("other", [{"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}])
    def test_not_only_the_rate_but_the_frames_are_fresh_in_every_epoch(self, other):
        """With the same frame numbers and another rate, one epoch's mask would lie inside the other's."""
        chosen = protocol("frames", incomplete_share=1.0)
        first = chosen.training(KEYS, LENGTHS, seed=0, epoch=0)["audio"]
        second = chosen.training(KEYS, LENGTHS, **other)["audio"]

        crossing = (first & ~second).any(1) & (second & ~first).any(1)

        assert crossing.mean() > 0.5

    def test_the_rates_of_incomplete_training_samples_are_uniform(self):
        mask = protocol("frames", incomplete_share=1.0).training(KEYS[:1000], {"text": 2000}, seed=0, epoch=0)["text"]

        assert stats.kstest((~mask).mean(1), "uniform").pvalue > UNLIKELY


class TestModalities:
    def test_conditions_are_the_subsets(self):
        assert protocol("modalities").conditions({"text": 1, "audio": 1}) == ["audio", "text", "audio+text"]

    def test_evaluation_keeps_exactly_the_subset_that_the_condition_names(self):
        drawn = protocol("modalities").evaluation(KEYS[:2], LENGTHS, split="valid", mask_seed=0)

        for condition, masks in drawn.items():
            kept = {modality for modality, mask in masks.items() if mask.all()}
            assert kept == set(condition.split("+"))
            assert not any(mask.any() for modality, mask in masks.items() if modality not in kept)

    def test_training_never_removes_everything_and_a_modality_goes_as_a_whole(self):
        drawn = protocol("modalities", incomplete_share=1.0).training(KEYS, LENGTHS, seed=0, epoch=0)

        assert np.logical_or.reduce([mask.any(1) for mask in drawn.values()]).all()
        assert all((mask.any(1) == mask.all(1)).all() for mask in drawn.values())

    @pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
    def test_training_is_uniform_over_proper_subsets(self, names):
        lengths = dict.fromkeys(names, 2)
        drawn = protocol("modalities", incomplete_share=1.0).training(KEYS, lengths, seed=0, epoch=0)
        found = [tuple(name for name in names if drawn[name][row, 0]) for row in range(len(KEYS))]
        counts = [found.count(subset) for subset in subsets(names)[:-1]]

        assert sum(counts) == len(KEYS)
        assert stats.chisquare(counts).pvalue > UNLIKELY

    def test_the_share_of_incomplete_training_samples_is_the_spec_s(self):
        drawn = protocol("modalities", incomplete_share=0.3).training(KEYS, LENGTHS, seed=0, epoch=0)
        incomplete = ~np.logical_and.reduce([mask.all(1) for mask in drawn.values()])

        assert stats.binomtest(int(incomplete.sum()), len(KEYS), 0.3).pvalue > UNLIKELY

    def test_a_single_modality_always_stays(self):
        chosen = protocol("modalities", incomplete_share=1.0)

        assert chosen.conditions({"text": 3}) == ["text"]
        assert chosen.training(KEYS, {"text": 3}, seed=0, epoch=0)["text"].all()
