"""The named ways of going missing behind one interface (methods.md section 4).

A protocol turns samples into `Observed`: for each modality which frames remain. Training masks mix complete and
incomplete samples and are fresh every epoch. Evaluation masks are fixed by a mask seed and belong to a *condition*: a
missing rate, or a subset of modalities where the protocol has no rate. Masks cover frames a sample never had, which is
harmless: whoever applies a mask intersects it with the frames that exist.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from gapwise.data.masks import (
    Keys,
    Mask,
    available_patterns,
    kept_at,
    stream,
    subset_key,
    subsets,
    uniforms,
)
from gapwise.errors import SpecError
from gapwise.spec.protocol import ProtocolSpec, rate_key

Observed = dict[str, Mask]
Lengths = Mapping[str, int]


class MissingnessProtocol(Protocol):
    """What training and evaluation ask of a protocol. `lengths` are the steps T of each modality's tensor."""

    def conditions(self, modalities: Lengths) -> list[str]:
        """Names of what is evaluated: rates such as "0.3", or subsets such as "audio+text"."""

    def training(self, keys: Keys, lengths: Lengths, *, seed: int, epoch: int) -> Observed:
        """(B, T) masks by modality for one epoch of training."""

    def evaluation(self, keys: Keys, lengths: Lengths, *, split: str, mask_seed: int) -> dict[str, Observed]:
        """(B, T) masks by condition and modality for one mask seed."""


class Frames:
    """Intra-modality: each frame is missing on its own. Nested in the rate, because one number decides all rates."""

    def __init__(self, spec: ProtocolSpec) -> None:
        self.spec = spec

    def conditions(self, modalities: Lengths) -> list[str]:
        del modalities
        return [rate_key(rate) for rate in self.spec.rates]

    def training(self, keys: Keys, lengths: Lengths, *, seed: int, epoch: int) -> Observed:
        observed = {}
        for name, length in lengths.items():
            plan = uniforms(stream(seed=seed, split="train", epoch=epoch, purpose=f"rate of {name}"), keys, 2)
            rate_B1 = np.where(plan[:, :1] < self.spec.incomplete_share, plan[:, 1:], 0.0)
            frames = uniforms(stream(seed=seed, split="train", epoch=epoch, purpose=name), keys, length)
            observed[name] = kept_at(frames, rate_B1)
        return observed

    def evaluation(self, keys: Keys, lengths: Lengths, *, split: str, mask_seed: int) -> dict[str, Observed]:
        frames = {
            name: uniforms(stream(seed=mask_seed, split=split, epoch=0, purpose=name), keys, length)
            for name, length in lengths.items()
        }
        return {
            rate_key(rate): {name: kept_at(uniform, rate) for name, uniform in frames.items()}
            for rate in self.spec.rates
        }


class Modalities:
    """Inter-modality: whole modalities are missing; reported by the subset that remains, never by a rate."""

    def __init__(self, spec: ProtocolSpec) -> None:
        self.spec = spec

    def conditions(self, modalities: Lengths) -> list[str]:
        return [subset_key(subset) for subset in subsets(modalities)]

    def training(self, keys: Keys, lengths: Lengths, *, seed: int, epoch: int) -> Observed:
        plan = uniforms(stream(seed=seed, split="train", epoch=epoch, purpose="subset of modalities"), keys, 2)
        kept = available_patterns(plan[:, 1], plan[:, 0] < self.spec.incomplete_share, lengths)
        return {name: np.repeat(kept[name][:, None], length, axis=1) for name, length in lengths.items()}

    def evaluation(self, keys: Keys, lengths: Lengths, *, split: str, mask_seed: int) -> dict[str, Observed]:
        del split, mask_seed
        return {
            subset_key(subset): {name: np.full((len(keys), length), name in subset) for name, length in lengths.items()}
            for subset in subsets(lengths)
        }


PROTOCOLS: dict[str, type[Frames] | type[Modalities]] = {"frames": Frames, "modalities": Modalities}


def build_protocol(spec: ProtocolSpec) -> MissingnessProtocol:
    """The protocol a spec names. Raises SpecError for a name that has no class."""
    if spec.name not in PROTOCOLS:
        raise SpecError(f"unknown protocol {spec.name!r}", where="protocol.name", allowed=sorted(PROTOCOLS))
    return PROTOCOLS[spec.name](spec)
