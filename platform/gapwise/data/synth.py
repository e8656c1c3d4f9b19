"""The synthetic task: data whose best possible prediction, under any mask, is known exactly.

A label y on a grid, a modality's hidden noise level sigma, and with a small probability irony. A frame of modality m is

    x = a_m * s_m * y * v_m  +  sigma_m * eps * v_m  +  nuisance,      s_text = -1 under irony, 1 otherwise,

and audio also has  (b * irony + tau * eps') * w  along a second direction. The nuisance is orthogonal to v_m (and w)
and independent of everything, so it carries nothing, and p(y | x) is a finite sum over (y, irony, sigma_1..sigma_M).
The noise level is the sample's true reliability. Synthetic is called synthetic wherever it is reported.

This file writes such a dataset with its parameters (`synthetic.json`) and truth beside it, and reads the parameters.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from gapwise.data.arrays import SplitArrays
from gapwise.data.drawing import Directions, draw_blocks, draw_directions
from gapwise.data.manifest import SPLIT_NAMES, Manifest, SourceRecord
from gapwise.data.presets import SynthPreset, find_preset, preset_from_json
from gapwise.data.spool import spool
from gapwise.data.store import Dataset, Split
from gapwise.data.truth import TRUTH_FILE, Truth, join_truths, pack
from gapwise.data.writer import WriteOptions, write_dataset
from gapwise.errors import DataError

SYNTHETIC_FILE = "synthetic.json"


class Task(NamedTuple):
    """The parameters of a dataset that was drawn from a preset."""

    preset: SynthPreset
    directions: Directions


def synthesise(preset_name: str, out: Path, seed: int, size: str = "") -> Manifest:
    """Write the preset's dataset, drawn with `seed`, to `out`, with `synthetic.json` and `truth.npz` beside it.

    `size` names a larger training split (`presets.TRAINING_SIZES`). Values pass through a scratch folder beside `out`,
    so memory holds a block of samples. Raises DataError for an unknown preset or size, or as `write_dataset` does.
    """
    preset = find_preset(preset_name, size)
    parameters = json.dumps(generator_parameters(preset, seed), indent=2, sort_keys=True) + "\n"
    label = f"{preset.name}-{size}" if size else preset.name
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".scratch") as scratch:
        splits, truths = _drawn_splits(preset, seed, Path(scratch))
        options = WriteOptions(
            name=f"synthetic-{label}",
            task="regression",
            source=SourceRecord(file=f"synthetic:{label}:seed={seed}", digest=_digest(parameters)),
            groups="synthetic speaker, without an effect of its own",
            label_range=(min(preset.labels), max(preset.labels)),
            extras={SYNTHETIC_FILE: parameters.encode(), TRUTH_FILE: pack(truths)},
        )
        return write_dataset(splits, out, options)


def generator_parameters(preset: SynthPreset, seed: int) -> dict[str, object]:
    """All that the exact optimum needs, as JSON values: the preset, the seed and the directions."""
    directions = draw_directions(preset)
    return {
        "format_version": 1,
        "seed": seed,
        "preset": asdict(preset),
        "label_directions": {name: vector.tolist() for name, vector in directions.label.items()},
        "irony_direction": directions.irony.tolist(),
    }


def read_task(dataset: Dataset | Split) -> Task | None:
    """The parameters that a synthetic dataset, or a split of one, was drawn with; None for what is not synthetic.

    None also for one that has grown, for nobody knows what its new samples were drawn from.
    Raises DataError if `synthetic.json` is not the one that the dataset was written with: an optimum computed from it
    would be another task's.
    """
    path = dataset.folder / SYNTHETIC_FILE
    if not path.is_file() or dataset.manifest.growth:
        return None
    text = path.read_text(encoding="utf-8")
    if _digest(text) != dataset.manifest.source.digest:
        raise DataError("is not what this dataset was drawn with; draw it again", where=str(path))
    preset = preset_from_json(json.loads(text)["preset"])
    return Task(preset, draw_directions(preset))


def _drawn_splits(preset: SynthPreset, seed: int, scratch: Path) -> tuple[dict[str, SplitArrays], dict[str, Truth]]:
    splits, truths = {}, {}
    for split in SPLIT_NAMES:
        (scratch / split).mkdir()
        parts: list[Truth] = []
        splits[split] = spool(_keeping_truth(preset, split, seed, parts), scratch / split)
        truths[split] = join_truths(parts)
    return splits, truths


def _keeping_truth(preset: SynthPreset, split: str, seed: int, parts: list[Truth]) -> Iterator[SplitArrays]:
    for block in draw_blocks(preset, split, seed):
        parts.append(block.truth)
        yield block.arrays


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
