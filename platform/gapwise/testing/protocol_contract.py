"""`ProtocolContract`: what every way of going missing must do.

Inherit it in a test file and set `spec`. Samples are keys and lengths only, of three modalities: one of uneven lengths,
one that some samples lack, one of a single step. Statistical bounds are five standard errors around the truth, with
fixed keys: each is a test of a constant.

Shape legend: B samples, T steps.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gapwise.data.masks import Samples, scramble
from gapwise.data.protocols import MissingnessProtocol, Observed, build_protocol
from gapwise.spec.protocol import ProtocolSpec

SAMPLES = 3000
STEPS = {"text": 8, "audio": 12, "vision": 1}
SIGMAS = 5.0


def drawn_samples(count: int = SAMPLES, *, whole: bool = False) -> Samples:
    """Text of 1 to 8 frames, audio of 0 to 12 (absent from some samples, unless `whole`), vision of one."""
    keys = scramble(np.arange(count, dtype=np.uint64))
    random = np.random.default_rng(0)
    lengths = {"text": random.integers(1, 9, count), "audio": random.integers(0, 13, count), "vision": np.ones(count)}
    lengths = {name: np.maximum(one, 1) if whole else one for name, one in lengths.items()}
    return Samples(keys, {name: one.astype(np.int64) for name, one in lengths.items()}, STEPS)


def taken(samples: Samples, rows: NDArray[np.int64]) -> Samples:
    return Samples(samples.keys[rows], {name: one[rows] for name, one in samples.lengths.items()}, samples.steps)


def real(samples: Samples) -> Observed:
    """Which positions hold a frame of the sample."""
    return {name: np.arange(steps) < samples.lengths[name][:, None] for name, steps in samples.steps.items()}


def same(first: Observed, second: Observed) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


class ProtocolContract:
    """Set `spec` in a subclass whose name starts with Test, and `cells` where the rate counts whole modalities."""

    spec: ClassVar[ProtocolSpec]
    cells: ClassVar[bool] = False

    def build(self, **changes: Any) -> MissingnessProtocol:
        return build_protocol(ProtocolSpec.model_validate({**self.spec.model_dump(), **changes}))

    def training(self, samples: Samples, *, seed: int = 0, epoch: int = 0, **changes: Any) -> Observed:
        return self.build(**changes).training(samples, seed=seed, epoch=epoch)

    def evaluation(
        self, samples: Samples, *, split: str = "valid", mask_seed: int = 0, **changes: Any
    ) -> Mapping[str, Observed]:
        return self.build(**changes).evaluation(samples, split=split, mask_seed=mask_seed)

    def drawings(self, samples: Samples) -> Iterator[Observed]:
        """Every mask that the protocol makes of these samples, in training and at evaluation."""
        yield self.training(samples)
        yield from self.evaluation(samples).values()

    def hidden_share(self, observed: Observed, samples: Samples) -> float:
        """What the rate of the protocol counts: hidden frames of a sample's modality, or hidden cells."""
        there = real(samples)
        shares = []
        for name, mask in observed.items():
            length_B = there[name].sum(1)
            shares.append(((~mask & there[name]).sum(1) / np.maximum(length_B, 1))[length_B > 0])
        return float(np.concatenate(shares).mean())

    def test_a_mask_follows_its_sample_in_any_batch_order_and_subset(self) -> None:
        samples = drawn_samples()
        rows = np.random.default_rng(1).permutation(SAMPLES)[:40]
        for part, whole in zip(self.drawings(taken(samples, rows)), self.drawings(samples), strict=True):
            assert same(part, {name: mask[rows] for name, mask in whole.items()})

    def test_a_batch_of_one_has_the_mask_that_the_sample_has_in_company(self) -> None:
        samples = drawn_samples(20)
        for row in range(20):
            alone = self.drawings(taken(samples, np.array([row])))
            for one, whole in zip(alone, self.drawings(samples), strict=True):
                assert same(one, {name: mask[row : row + 1] for name, mask in whole.items()})

    def test_padding_moves_nothing(self) -> None:
        samples = drawn_samples(200)
        padded = samples._replace(steps={name: steps + 7 for name, steps in STEPS.items()})
        for longer, mask in zip(self.drawings(padded), self.drawings(samples), strict=True):
            assert same({name: longer[name][:, :steps] for name, steps in STEPS.items()}, mask)

    def test_the_order_of_modalities_does_not_matter(self) -> None:
        samples = drawn_samples(200)
        turned = samples._replace(steps=dict(reversed(STEPS.items())))
        for first, second in zip(self.drawings(samples), self.drawings(turned), strict=True):
            assert same(first, second)

    def test_masks_are_bool_of_the_shape_of_the_modality(self) -> None:
        for observed in self.drawings(drawn_samples(30)):
            assert {name: mask.shape for name, mask in observed.items()} == {n: (30, t) for n, t in STEPS.items()}
            assert all(mask.dtype == np.bool_ for mask in observed.values())

    def test_no_sample_is_an_empty_mask(self) -> None:
        for observed in self.drawings(drawn_samples(0)):
            assert {name: mask.shape for name, mask in observed.items()} == {n: (0, t) for n, t in STEPS.items()}

    def test_conditions_are_what_evaluation_answers_in_that_order(self) -> None:
        assert list(self.evaluation(drawn_samples(3))) == self.build().conditions(STEPS)

    def test_training_is_the_same_again_and_fresh_in_every_epoch_and_seed(self) -> None:
        samples, there = drawn_samples(), real(drawn_samples())
        first = self.training(samples)
        assert same(first, self.training(samples))
        for other in (self.training(samples, epoch=1), self.training(samples, seed=1)):
            moved = np.concatenate([((first[name] != other[name]) & there[name]).any(1) for name in STEPS])
            assert moved.mean() > 0.2

    def test_nothing_is_hidden_in_training_where_the_incomplete_share_is_0(self) -> None:
        samples = drawn_samples()
        drawn, there = self.training(samples, incomplete_share=0.0), real(samples)
        assert all((mask | ~there[name]).all() for name, mask in drawn.items())

    def test_half_of_the_training_samples_are_complete_by_default(self) -> None:
        """At most: an incomplete one may by chance lose nothing. Counted by modality, or by sample for whole ones."""
        samples = drawn_samples(whole=True)._replace(lengths={name: np.full(SAMPLES, t) for name, t in STEPS.items()})
        drawn = self.training(samples)
        counted = list(STEPS) if self.cells or not self.spec.has_rates else ["audio"]
        share = np.logical_and.reduce([drawn[name].all(1) for name in counted]).mean()
        assert 0.5 - SIGMAS * 0.5 / np.sqrt(SAMPLES) < share < 0.72

    def test_evaluation_is_fixed_by_the_mask_seed_and_differs_between_seeds_iff_it_says_so(self) -> None:
        samples, half = drawn_samples(), (0.5,)
        first, again = (self.evaluation(samples, rates=half) for _ in range(2))
        others = [self.evaluation(samples, mask_seed=1, rates=half), self.evaluation(samples, split="test", rates=half)]
        for condition, observed in first.items():
            assert same(observed, again[condition])
            for other in others:
                assert same(observed, other[condition]) != self.build().seeded

    def test_what_is_missing_at_a_rate_is_missing_at_every_higher_one_and_nothing_is_at_0(self) -> None:
        samples = drawn_samples()
        drawn = list(self.evaluation(samples).values()) if self.spec.has_rates else []
        for name in STEPS:
            assert all((high[name] <= low[name]).all() for low, high in pairwise(drawn))
            assert not drawn or (drawn[0][name] | ~real(samples)[name]).all()

    def test_evaluation_does_not_depend_on_which_other_rates_are_on_the_grid(self) -> None:
        samples = drawn_samples(200)
        for condition, observed in self.evaluation(samples, rates=(0.3,)).items():
            assert same(observed, self.evaluation(samples)[condition])

    def test_the_share_that_is_missing_is_the_rate(self) -> None:
        """Of a split of 3000 whole samples, at each rate of the grid and for three mask seeds."""
        samples = drawn_samples(whole=True)
        for mask_seed in range(3 if self.spec.has_rates else 0):
            for rate, observed in self.evaluation(samples, mask_seed=mask_seed).items():
                share = self.hidden_share(observed, samples)
                assert abs(share - float(rate)) < SIGMAS * 0.5 / np.sqrt(len(STEPS) * SAMPLES), (rate, share)
