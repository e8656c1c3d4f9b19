"""The named ways of going missing behind one interface (methods.md section 4).

A protocol turns samples into `Observed`: for each modality which frames remain. Training masks mix complete and
incomplete samples and are fresh every epoch. Evaluation masks are fixed by a mask seed and belong to a *condition*: a
missing rate, or a subset of modalities where the protocol has no rate. Masks cover frames a sample never had, which is
harmless: whoever applies a mask intersects it with the frames that exist.

Shape legend: B samples, T steps, M modalities in sorted order.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from gapwise.data.masks import (
    Keys,
    Mask,
    Samples,
    Uniform,
    available_patterns,
    highest_cell_rate,
    kept_around_block,
    kept_at,
    kept_cells,
    stream,
    subset_key,
    subsets,
    uniforms,
)
from gapwise.errors import SpecError
from gapwise.spec.protocol import ProtocolSpec, rate_key

Observed = dict[str, Mask]

_ROUNDING = 1e-9
"""Rates are decimals and limits are fractions: what differs by less is equal."""


class MissingnessProtocol(Protocol):
    """What training and evaluation ask of a protocol. The contract suite is `gapwise.testing.protocol_contract`."""

    seeded: bool
    """Whether evaluation masks differ between mask seeds; where they do not, one seed says it all."""

    def conditions(self, modalities: Iterable[str]) -> list[str]:
        """Names of what is evaluated: rates such as "0.3", or subsets such as "audio+text"."""

    def training(self, samples: Samples, *, seed: int, epoch: int) -> Observed:
        """(B, T) masks by modality for one epoch of training."""

    def evaluation(self, samples: Samples, *, split: str, mask_seed: int) -> dict[str, Observed]:
        """(B, T) masks by condition and modality for one mask seed."""


class _ByRate:
    """Conditions are the rates of the spec, and masks at every rate follow from numbers drawn once."""

    seeded = True

    def __init__(self, spec: ProtocolSpec) -> None:
        self.spec = spec

    def conditions(self, modalities: Iterable[str]) -> list[str]:
        refuse_impossible_rates(self.spec, modalities)
        return [rate_key(rate) for rate in self.spec.rates]

    def _training_rates(self, keys: Keys, *, seed: int, epoch: int, what: str) -> Uniform:
        """(B,): 0 for the complete, uniform in [0, 1) for the `incomplete_share`."""
        plan_B2 = uniforms(stream(seed=seed, split="train", epoch=epoch, purpose=f"rate of {what}"), keys, 2)
        return np.where(plan_B2[:, 0] < self.spec.incomplete_share, plan_B2[:, 1], 0.0)


class Frames(_ByRate):
    """Intra-modality: each frame is missing on its own. Nested in the rate, because one number decides all rates."""

    def training(self, samples: Samples, *, seed: int, epoch: int) -> Observed:
        observed = {}
        for name, steps in samples.steps.items():
            rate_B = self._training_rates(samples.keys, seed=seed, epoch=epoch, what=name)
            frames = uniforms(stream(seed=seed, split="train", epoch=epoch, purpose=name), samples.keys, steps)
            observed[name] = kept_at(frames, rate_B[:, None])
        return observed

    def evaluation(self, samples: Samples, *, split: str, mask_seed: int) -> dict[str, Observed]:
        frames = {
            name: uniforms(stream(seed=mask_seed, split=split, epoch=0, purpose=name), samples.keys, steps)
            for name, steps in samples.steps.items()
        }
        return {
            rate_key(rate): {name: kept_at(uniform, rate) for name, uniform in frames.items()}
            for rate in self.spec.rates
        }


class Block(_ByRate):
    """Sensor drop-out: one contiguous run of each modality's real frames is missing, modalities independently."""

    def training(self, samples: Samples, *, seed: int, epoch: int) -> Observed:
        places = self._places(samples, seed=seed, split="train", epoch=epoch)
        rates = {name: self._training_rates(samples.keys, seed=seed, epoch=epoch, what=name) for name in samples.steps}
        return {name: self._kept(samples, name, places[name], rates[name]) for name in samples.steps}

    def evaluation(self, samples: Samples, *, split: str, mask_seed: int) -> dict[str, Observed]:
        places = self._places(samples, seed=mask_seed, split=split, epoch=0)
        return {
            rate_key(rate): {name: self._kept(samples, name, places[name], rate) for name in samples.steps}
            for rate in self.spec.rates
        }

    def _places(self, samples: Samples, *, seed: int, split: str, epoch: int) -> dict[str, Uniform]:
        names = {
            name: stream(seed=seed, split=split, epoch=epoch, purpose=f"block of {name}") for name in samples.steps
        }
        return {name: uniforms(drawn, samples.keys, 2) for name, drawn in names.items()}

    def _kept(self, samples: Samples, name: str, place_B2: Uniform, rate: float | Uniform) -> Mask:
        return kept_around_block(place_B2, samples.lengths[name], samples.steps[name], rate)


class RandomRate(_ByRate):
    """GCNet's: the rate is the share of missing (sample, modality) cells; one modality of each sample stays."""

    def training(self, samples: Samples, *, seed: int, epoch: int) -> Observed:
        """The rates of incomplete samples are uniform up to the limit of the dataset's number of modalities."""
        rate_B = self._training_rates(samples.keys, seed=seed, epoch=epoch, what="the cells of a sample")
        return self._kept(
            samples, rate_B * highest_cell_rate(len(samples.steps)), seed=seed, split="train", epoch=epoch
        )

    def evaluation(self, samples: Samples, *, split: str, mask_seed: int) -> dict[str, Observed]:
        refuse_impossible_rates(self.spec, samples.steps)
        return {
            rate_key(rate): self._kept(samples, rate, seed=mask_seed, split=split, epoch=0) for rate in self.spec.rates
        }

    def _kept(self, samples: Samples, rate: float | Uniform, *, seed: int, split: str, epoch: int) -> Observed:
        def drawn(purpose: str) -> Uniform:
            return uniforms(stream(seed=seed, split=split, epoch=epoch, purpose=purpose), samples.keys, 1)[:, 0]

        names = sorted(samples.steps)
        cells_BM = np.stack([drawn(f"cell of {name}") for name in names], axis=1)
        has_BM = np.stack([samples.lengths[name] > 0 for name in names], axis=1)
        kept_BM = kept_cells(drawn("modality that stays"), cells_BM, has_BM, rate)
        return whole_modalities(dict(zip(names, kept_BM.T, strict=True)), samples.steps)


class Modalities:
    """Inter-modality: whole modalities are missing; reported by the subset that remains, never by a rate."""

    seeded = False

    def __init__(self, spec: ProtocolSpec) -> None:
        self.spec = spec

    def conditions(self, modalities: Iterable[str]) -> list[str]:
        return [subset_key(subset) for subset in subsets(modalities)]

    def training(self, samples: Samples, *, seed: int, epoch: int) -> Observed:
        name = stream(seed=seed, split="train", epoch=epoch, purpose="subset of modalities")
        plan_B2 = uniforms(name, samples.keys, 2)
        kept = available_patterns(plan_B2[:, 1], plan_B2[:, 0] < self.spec.incomplete_share, samples.steps)
        return whole_modalities(kept, samples.steps)

    def evaluation(self, samples: Samples, *, split: str, mask_seed: int) -> dict[str, Observed]:
        del split, mask_seed
        return {
            subset_key(subset): {
                name: np.full((len(samples.keys), steps), name in subset) for name, steps in samples.steps.items()
            }
            for subset in subsets(samples.steps)
        }


def whole_modalities(kept: Mapping[str, Mask], steps: Mapping[str, int]) -> Observed:
    """(B, T) masks by modality from (B,) ones."""
    return {name: np.repeat(kept[name][:, None], count, axis=1) for name, count in steps.items()}


PROTOCOLS: dict[str, Callable[[ProtocolSpec], MissingnessProtocol]] = {
    "block": Block,
    "frames": Frames,
    "modalities": Modalities,
    "random_rate": RandomRate,
}


def build_protocol(spec: ProtocolSpec) -> MissingnessProtocol:
    """The protocol a spec names. Raises SpecError for a name that has no class."""
    if spec.name not in PROTOCOLS:
        raise SpecError(f"unknown protocol {spec.name!r}", where="protocol.name", allowed=sorted(PROTOCOLS))
    return PROTOCOLS[spec.name](spec)


def refuse_impossible_rates(spec: ProtocolSpec, modalities: Iterable[str]) -> None:
    """Raises SpecError for a rate that `random_rate` cannot reach on a dataset of these modalities."""
    names = sorted(modalities)
    limit = highest_cell_rate(len(names))
    beyond = [rate for rate in spec.rates if rate > limit + _ROUNDING]
    if spec.name == "random_rate" and beyond:
        raise SpecError(
            f"random_rate keeps one modality of each sample, so {rate_key(beyond[0])} of the cells cannot be missing "
            f"with {len(names)} modalities ({', '.join(names)})",
            where="--rates or protocol.rates",
            allowed=f"rates up to {len(names) - 1}/{len(names)} = {_shown(limit)}",
        )


def _shown(limit: float) -> str:
    """The highest rate of two decimals that is still allowed."""
    return rate_key(np.floor(limit * 100 + _ROUNDING) / 100)
