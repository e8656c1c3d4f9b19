"""The protocols: fresh masks in training, fixed and nested ones in evaluation, and the mix that each one promises.

Every protocol inherits the contract; below it stands what only one of them promises. Nothing is faked: a protocol needs
sample keys and lengths only. Statistical bounds are missed by a sound generator less than once in a million.
"""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from gapwise.data.masks import Samples, kept_around_block, kept_cells, scramble, subsets
from gapwise.data.protocols import PROTOCOLS, build_protocol, refuse_impossible_rates
from gapwise.errors import SpecError
from gapwise.spec.protocol import CELL_GRID, FIELD_GRID, ProtocolSpec
from gapwise.testing.protocol_contract import ProtocolContract, drawn_samples, real

KEYS = scramble(np.arange(3000, dtype=np.uint64))
LENGTHS = {"text": 8, "audio": 12, "vision": 1}
UNLIKELY = 1e-6


class TestFramesContract(ProtocolContract):
    spec = ProtocolSpec(name="frames")


class TestBlockContract(ProtocolContract):
    spec = ProtocolSpec(name="block")


class TestModalitiesContract(ProtocolContract):
    spec = ProtocolSpec(name="modalities")


class TestRandomRateContract(ProtocolContract):
    spec = ProtocolSpec(name="random_rate")
    cells = True


def test_every_protocol_is_under_the_contract_and_a_spec_may_name_it():
    under = {one.spec.name for one in ProtocolContract.__subclasses__()}

    assert under == set(PROTOCOLS) == set(ProtocolSpec.model_fields["name"].annotation.__args__)


def test_a_name_without_a_class_is_refused_with_the_known_ones():
    with pytest.raises(SpecError, match=r"'wind' \(allowed: block, frames, modalities, random_rate\)"):
        build_protocol(ProtocolSpec.model_construct(name="wind"))


def protocol(name: str, **changes):
    return build_protocol(ProtocolSpec(name=name, **changes))


def full(lengths, keys=KEYS) -> Samples:
    """Samples that fill their padding."""
    return Samples(keys, {name: np.full(len(keys), length) for name, length in lengths.items()}, lengths)


class TestFrames:
    def test_conditions_are_the_rates(self):
        assert protocol("frames", rates=(0.0, 0.25, 0.5)).conditions(LENGTHS) == ["0.0", "0.25", "0.5"]

    def test_evaluation_hides_the_rate_s_share_of_every_modality(self):
        drawn = protocol("frames").evaluation(full(LENGTHS), split="valid", mask_seed=0)["0.3"]

        for mask in drawn.values():
            assert stats.binomtest(int((~mask).sum()), mask.size, 0.3).pvalue > UNLIKELY

    def test_modalities_are_masked_independently(self):
        drawn = protocol("frames").evaluation(full({"text": 8, "audio": 8}), split="valid", mask_seed=0)["0.5"]
        pairs = np.histogram2d(drawn["text"].ravel(), drawn["audio"].ravel(), bins=2)[0]

        assert stats.chisquare(pairs.ravel()).pvalue > UNLIKELY

    @pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
    def test_training_leaves_the_complement_of_the_share_whole_in_each_modality_on_its_own(self, share):
        lengths = {"text": 4000, "audio": 4000}
        drawn = protocol("frames", incomplete_share=share).training(full(lengths, KEYS[:1000]), seed=0, epoch=0)
        whole = {name: mask.all(1) for name, mask in drawn.items()}

        for complete in whole.values():
            assert abs(complete.mean() - (1 - share)) < 5 * np.sqrt(share * (1 - share) / 1000) + 2e-3
        both = (whole["text"] & whole["audio"]).mean()
        assert abs(both - (1 - share) ** 2) < 0.08

    @pytest.mark.parametrize("other", [{"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}])
    def test_not_only_the_rate_but_the_frames_are_fresh_in_every_epoch(self, other):
        """With the same frame numbers and another rate, one epoch's mask would lie inside the other's."""
        chosen = protocol("frames", incomplete_share=1.0)
        first = chosen.training(full(LENGTHS), seed=0, epoch=0)["audio"]
        second = chosen.training(full(LENGTHS), **other)["audio"]

        crossing = (first & ~second).any(1) & (second & ~first).any(1)

        assert crossing.mean() > 0.5

    def test_the_rates_of_incomplete_training_samples_are_uniform(self):
        mask = protocol("frames", incomplete_share=1.0).training(full({"text": 2000}, KEYS[:1000]), seed=0, epoch=0)[
            "text"
        ]

        assert stats.kstest((~mask).mean(1), "uniform").pvalue > UNLIKELY


class TestModalities:
    def test_conditions_are_the_subsets(self):
        assert protocol("modalities").conditions({"text": 1, "audio": 1}) == ["audio", "text", "audio+text"]

    def test_evaluation_keeps_exactly_the_subset_that_the_condition_names(self):
        drawn = protocol("modalities").evaluation(full(LENGTHS, KEYS[:2]), split="valid", mask_seed=0)

        for condition, masks in drawn.items():
            kept = {modality for modality, mask in masks.items() if mask.all()}
            assert kept == set(condition.split("+"))
            assert not any(mask.any() for modality, mask in masks.items() if modality not in kept)

    def test_training_never_removes_everything_and_a_modality_goes_as_a_whole(self):
        drawn = protocol("modalities", incomplete_share=1.0).training(full(LENGTHS), seed=0, epoch=0)

        assert np.logical_or.reduce([mask.any(1) for mask in drawn.values()]).all()
        assert all((mask.any(1) == mask.all(1)).all() for mask in drawn.values())

    @pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
    def test_training_is_uniform_over_proper_subsets(self, names):
        lengths = dict.fromkeys(names, 2)
        drawn = protocol("modalities", incomplete_share=1.0).training(full(lengths), seed=0, epoch=0)
        found = [tuple(name for name in names if drawn[name][row, 0]) for row in range(len(KEYS))]
        counts = [found.count(subset) for subset in subsets(names)[:-1]]

        assert sum(counts) == len(KEYS)
        assert stats.chisquare(counts).pvalue > UNLIKELY

    def test_the_share_of_incomplete_training_samples_is_the_spec_s(self):
        drawn = protocol("modalities", incomplete_share=0.3).training(full(LENGTHS), seed=0, epoch=0)
        incomplete = ~np.logical_and.reduce([mask.all(1) for mask in drawn.values()])

        assert stats.binomtest(int(incomplete.sum()), len(KEYS), 0.3).pvalue > UNLIKELY

    def test_a_single_modality_always_stays(self):
        chosen = protocol("modalities", incomplete_share=1.0)

        assert chosen.conditions({"text": 3}) == ["text"]
        assert chosen.training(full({"text": 3}), seed=0, epoch=0)["text"].all()


class TestBlock:
    PLACES = np.stack([np.tile(np.linspace(0, 1 - 2**-53, 41), 41), np.repeat(np.linspace(0, 1 - 2**-53, 41), 41)], 1)
    """A lattice over both numbers, the ends of the unit interval included."""

    @pytest.mark.parametrize("length", [0, 1, 2, 5, 12, 500])
    def test_one_run_inside_the_real_frames_within_a_frame_of_the_rate_and_nested(self, length):
        before = None
        for rate in np.linspace(0, 1, 21):
            kept = kept_around_block(self.PLACES, np.full(len(self.PLACES), length), length + 3, float(rate))
            missing = ~kept

            assert kept[:, length:].all()
            assert (np.abs(missing.sum(1) - rate * length) <= 1).all()
            assert (np.diff(missing.astype(int), axis=1, prepend=0, append=0) == 1).sum(1).max(initial=0) <= 1
            assert before is None or (missing >= before).all()
            before = missing

    def test_rate_0_keeps_everything_and_rate_1_nothing(self):
        samples = drawn_samples()
        drawn = protocol("block", rates=(0.0, 1.0)).evaluation(samples, split="valid", mask_seed=0)

        assert all(mask.all() for mask in drawn["0.0"].values())
        assert not any((mask & real(samples)[name]).any() for name, mask in drawn["1.0"].items())

    def test_the_run_begins_anywhere_it_fits_with_equal_probability(self):
        mask = protocol("block", rates=(0.5,)).evaluation(full({"text": 10}), split="valid", mask_seed=0)["0.5"]["text"]

        counts = np.bincount((~mask).argmax(1), minlength=6)

        assert (~mask).sum(1).tolist() == [5] * len(KEYS)
        assert stats.chisquare(counts[:6]).pvalue > UNLIKELY
        assert len(counts) == 6

    def test_a_single_step_is_missing_with_the_rate_as_probability(self):
        mask = protocol("block", rates=(0.3,)).evaluation(full({"text": 1}), split="valid", mask_seed=0)["0.3"]["text"]

        assert stats.binomtest(int((~mask).sum()), mask.size, 0.3).pvalue > UNLIKELY

    def test_a_sample_of_1_step_and_one_of_500_each_lose_their_own_share(self):
        samples = Samples(KEYS, {"text": np.where(np.arange(len(KEYS)) % 2, 500, 1)}, {"text": 500})
        missing = ~protocol("block", rates=(0.25,)).evaluation(samples, split="valid", mask_seed=0)["0.25"]["text"]

        assert set(missing[1::2].sum(1).tolist()) == {125}
        assert stats.binomtest(int(missing[::2].sum()), len(KEYS) // 2, 0.25).pvalue > UNLIKELY
        assert not missing[::2, 1:].any()

    def test_modalities_lose_their_runs_independently(self):
        samples = full({"text": 10, "audio": 10})
        drawn = protocol("block", rates=(0.5,)).evaluation(samples, split="valid", mask_seed=0)["0.5"]
        starts = [(~drawn[name]).argmax(1) for name in ("text", "audio")]

        assert stats.chi2_contingency(np.histogram2d(*starts, bins=6)[0]).pvalue > UNLIKELY

    def test_the_rates_of_incomplete_training_samples_are_uniform(self):
        samples = full({"text": 2000}, KEYS[:1000])
        mask = protocol("block", incomplete_share=1.0).training(samples, seed=0, epoch=0)["text"]

        assert stats.kstest((~mask).mean(1), "uniform").pvalue > UNLIKELY


class TestRandomRate:
    @pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
    def test_one_modality_of_each_sample_stays_up_to_the_limit_where_it_is_the_only_one(self, names):
        rates = (0.0, round(np.floor((len(names) - 1) / len(names) * 100) / 100, 2))
        samples = full(dict.fromkeys(names, 3))
        drawn = protocol("random_rate", rates=rates).evaluation(samples, split="valid", mask_seed=0)
        left = sum(mask.all(1).astype(int) for mask in list(drawn.values())[-1].values())

        assert left.min() == 1
        assert (left == 1).mean() > 0.9

    def test_a_modality_goes_as_a_whole(self):
        for seed in range(2):
            drawn = protocol("random_rate").evaluation(full(LENGTHS), split="valid", mask_seed=seed)
            assert all((mask.any(1) == mask.all(1)).all() for one in drawn.values() for mask in one.values())

    def test_patterns_are_gcnet_s_one_stays_and_the_others_go_independently(self):
        """At rate 1/3 of three modalities each of the two others goes with probability 1/2."""
        random = np.random.default_rng(0)
        has = np.ones((30_000, 3), bool)
        kept = kept_cells(random.random(30_000), random.random((30_000, 3)), has, 1 / 3)

        counts = [int((kept == pattern).all(1).sum()) for pattern in product((False, True), repeat=3)]

        # {} never; each single one 1/3 * 1/4; each pair 2/3 * 1/4; all 1/4
        assert counts[0] == 0
        expected = np.array([1, 1, 2, 1, 2, 2, 3]) / 12 * 30_000
        assert stats.chisquare(counts[1:], expected).pvalue > UNLIKELY

    def test_every_modality_is_missing_equally_often(self):
        drawn = protocol("random_rate", rates=(0.4,)).evaluation(full(LENGTHS), split="valid", mask_seed=0)["0.4"]

        for mask in drawn.values():
            assert stats.binomtest(int((~mask[:, 0]).sum()), len(KEYS), 0.4).pvalue > UNLIKELY

    def test_a_sample_that_lacks_a_modality_keeps_one_that_it_has_and_loses_the_rate_s_share_of_its_own(self):
        samples = drawn_samples()
        samples.lengths["text"][::4] = 0
        there = np.stack([samples.lengths[name] > 0 for name in LENGTHS], axis=1)
        drawn = protocol("random_rate", rates=(0.4,)).evaluation(samples, split="valid", mask_seed=0)["0.4"]
        kept = np.stack([drawn[name][:, 0] for name in LENGTHS], axis=1) & there

        assert (kept.any(1) == there.any(1)).all()
        cells = there[there.sum(1) > 1]
        assert stats.binomtest(int((~kept & there).sum()), int(cells.sum()), 0.4).pvalue > UNLIKELY

    @pytest.mark.parametrize(("names", "highest"), [("a", "0.0"), ("ab", "0.5"), ("abc", "0.66"), ("abcd", "0.75")])
    def test_a_rate_above_the_limit_is_one_error_that_names_the_limit_of_the_dataset(self, names, highest):
        beyond = ProtocolSpec(name="random_rate", rates=(0.0, float(highest) + 0.01))
        reached = ProtocolSpec(name="random_rate", rates=(float(highest),))

        refuse_impossible_rates(reached, names)
        with pytest.raises(
            SpecError, match=rf"^--rates or protocol.rates: .*with {len(names)} modalit.*= {highest}\)$"
        ):
            build_protocol(beyond).conditions(names)
        with pytest.raises(SpecError, match="keeps one modality"):
            build_protocol(beyond).evaluation(full(dict.fromkeys(names, 1)), split="valid", mask_seed=0)

    def test_training_rates_are_uniform_up_to_the_limit(self):
        names = [f"m{number:03d}" for number in range(300)]
        samples = full(dict.fromkeys(names, 1), KEYS[:1000])
        drawn = protocol("random_rate", rates=(0.0,), incomplete_share=1.0).training(samples, seed=0, epoch=0)
        share = 1 - np.mean([mask[:, 0] for mask in drawn.values()], axis=0)

        assert stats.kstest(share, "uniform").pvalue > UNLIKELY

    def test_a_spec_that_names_no_rates_gets_a_grid_that_three_modalities_allow(self):
        spec = ProtocolSpec(name="random_rate")

        assert spec.rates == CELL_GRID == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
        assert ProtocolSpec().rates == ProtocolSpec(name="block").rates == FIELD_GRID
        refuse_impossible_rates(spec, LENGTHS)
        with pytest.raises(SpecError, match=r"--rates.*2 modalities.*1/2 = 0.5"):
            refuse_impossible_rates(spec, "ab")
