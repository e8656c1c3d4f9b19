"""Datasets of the synthetic task in other sizes and dimensions than the presets', written to a temporary folder.

Fewer features change nothing for the exact optimum, because the nuisance carries nothing, and make it quick to draw.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gapwise.data.drawing import draw_directions, generate
from gapwise.data.manifest import SourceRecord
from gapwise.data.presets import SynthPreset
from gapwise.data.store import Dataset, open_dataset
from gapwise.data.synth import Task
from gapwise.data.writer import WriteOptions, write_dataset

Draw = Callable[..., tuple[Dataset, Task]]


@pytest.fixture(scope="session")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """draw(preset, dim=..., train=..., valid=..., test=..., seed=...): the dataset and its task."""

    def drawn(preset: SynthPreset, *, dim: int = 0, seed: int = 0, **sizes: int) -> tuple[Dataset, Task]:
        modalities = {name: replace(one, dim=dim or one.dim) for name, one in preset.modalities.items()}
        changed = replace(preset, modalities=modalities, sizes={**preset.sizes, **sizes})
        folder: Path = tmp_path_factory.mktemp("drawn") / "data"
        source = SourceRecord(file="test", digest="0" * 64)
        options = WriteOptions(name="t", task="regression", source=source, groups="none", label_range=(-3.0, 3.0))
        write_dataset(generate(changed, seed), folder, options)
        return open_dataset(folder), Task(changed, draw_directions(changed))

    return drawn
