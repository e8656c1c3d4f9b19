"""The synthetic task's presets: every number that the generator and the exact optimum need, and no code that uses them.

A preset is frozen before any model is trained on it: a test pins its digest and its optimum. Amplitudes were chosen by
the enumerated optimum alone: MAE between .3 and .6 with nothing missing, towards the best constant's at a missing rate
of .9, text carrying most, irony plain in a whole audio track and doubtful in a tenth of one. The nuisance of the
larger ones was set by the plug-in optimum, to make the number of training samples matter. Values are float32: 277 MB
for `mosi-like-50` (2.1 GB at 16k), 315 MB for `mosi-like`, 3 GB for `large`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gapwise.errors import DataError, nearest

INVERTED_MODALITY, CUE_MODALITY = "text", "audio"
"""Whose sign irony turns, and who shows that it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthModality:
    dim: int
    """Features a frame."""
    min_length: int
    max_length: int
    """Frames of a sample: uniform between the two, both included."""
    amplitude: float
    """a_m: how far one unit of the label moves a frame along v_m."""
    noise_levels: tuple[float, ...]
    """What sigma_m may be; one value a sample."""
    noise_prior: tuple[float, ...]
    """Probability of each noise level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthPreset:
    name: str
    labels: tuple[float, ...]
    """The grid that y lies on."""
    prior: tuple[float, ...]
    """Probability of each label, up to a common factor."""
    irony: float
    """Probability that a sample is ironic: text then says -y."""
    irony_strength: float
    """b: the mean of an ironic audio frame along w."""
    irony_noise: float
    """tau: the deviation of every audio frame along w."""
    nuisance: float
    """Standard deviation of the nuisance in every direction that carries nothing."""
    modalities: Mapping[str, SynthModality]
    sizes: Mapping[str, int]
    """Samples by split."""
    samples_per_group: int
    """Samples of one synthetic speaker; speakers have no effect of their own."""
    direction_seed: int
    """Draws v_m and w."""


# Bayes-optimal MAE under `frames`, by enumeration on 20,000 draws: .38 at r = 0, .55 at r = .5, .97 at r = .9.
SMALL = SynthPreset(
    name="small",
    labels=(-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    prior=(2, 3, 5, 7, 8, 9, 9, 9, 8, 7, 5, 3, 2),
    irony=0.1,
    irony_strength=1.0,
    irony_noise=1.5,
    nuisance=0.5,
    modalities={
        "text": SynthModality(
            dim=16,
            min_length=4,
            max_length=8,
            amplitude=0.6,
            noise_levels=(0.5, 1.0, 2.0),
            noise_prior=(0.3, 0.4, 0.3),
        ),
        "audio": SynthModality(
            dim=6,
            min_length=6,
            max_length=12,
            amplitude=0.3,
            noise_levels=(0.5, 1.0, 2.0),
            noise_prior=(0.3, 0.4, 0.3),
        ),
        "vision": SynthModality(
            dim=8,
            min_length=5,
            max_length=10,
            amplitude=0.3,
            noise_levels=(0.5, 1.0, 2.0),
            noise_prior=(0.3, 0.4, 0.3),
        ),
    },
    sizes={"train": 400, "valid": 150, "test": 150},
    samples_per_group=5,
    direction_seed=20250601,
)

_RELIABILITIES = {"noise_levels": (0.5, 1.0, 2.0), "noise_prior": (0.3, 0.4, 0.3)}

# By enumeration on 8,000 draws: .41 at r = 0, .57 at r = .5, .97 at r = .9; text alone .68, audio or vision alone .85.
MOSI_LIKE_50 = replace(
    SMALL,
    name="mosi-like-50",
    irony_strength=0.8,
    irony_noise=2.0,
    nuisance=0.8,
    modalities={
        "text": SynthModality(dim=768, min_length=25, max_length=50, amplitude=0.25, **_RELIABILITIES),
        "audio": SynthModality(dim=74, min_length=25, max_length=50, amplitude=0.1, **_RELIABILITIES),
        "vision": SynthModality(dim=35, min_length=25, max_length=50, amplitude=0.1, **_RELIABILITIES),
    },
    sizes={"train": 1284, "valid": 229, "test": 686},
    direction_seed=20250602,
)

# The same information in longer sequences: .39, .57 and .93.
MOSI_LIKE = replace(
    MOSI_LIKE_50,
    name="mosi-like",
    irony_strength=0.3,
    modalities={
        "text": MOSI_LIKE_50.modalities["text"],
        "audio": SynthModality(dim=5, min_length=188, max_length=375, amplitude=0.0365, **_RELIABILITIES),
        "vision": SynthModality(dim=20, min_length=250, max_length=500, amplitude=0.0316, **_RELIABILITIES),
    },
    direction_seed=20250603,
)

LARGE = replace(
    MOSI_LIKE_50, name="large", sizes={"train": 16_000, "valid": 2_000, "test": 4_600}, direction_seed=20250604
)

PRESETS: Mapping[str, SynthPreset] = {preset.name: preset for preset in (SMALL, MOSI_LIKE_50, MOSI_LIKE, LARGE)}

TRAINING_SIZES: Mapping[str, Mapping[str, int]] = {MOSI_LIKE_50.name: {"5k": 5_000, "16k": 16_000}}
"""Larger training splits by preset and option; the first samples, validation and test stay what they are."""


def find_preset(name: str, size: str = "") -> SynthPreset:
    """The preset, with a larger training split if a `size` is named. Raises DataError for a name that is not known."""
    if name not in PRESETS:
        raise DataError(f"unknown synthetic preset {name!r}{nearest(name, PRESETS)}", allowed=PRESETS)
    preset, larger = PRESETS[name], TRAINING_SIZES.get(name, {})
    if not size:
        return preset
    if size not in larger:
        raise DataError(f"preset {name!r} has no size {size!r}", allowed=larger or "none for this preset")
    return replace(preset, sizes={**preset.sizes, "train": larger[size]})


def preset_digest(preset: SynthPreset) -> str:
    """SHA-256 of all of the preset's numbers."""
    return hashlib.sha256(json.dumps(asdict(preset), sort_keys=True).encode()).hexdigest()


def preset_from_json(tree: Mapping[str, Any]) -> SynthPreset:
    """The inverse of `asdict`, after a way through JSON. Raises DataError for fields that are not a preset's."""
    try:
        modalities = {name: SynthModality(**_tuples(one)) for name, one in tree["modalities"].items()}
        return SynthPreset(**{**_tuples(tree), "modalities": modalities})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not the parameters of a synthetic preset: {error}") from error


def _tuples(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}
