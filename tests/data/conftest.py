"""Fixtures for datasets: small content drawn from a fixed seed, written to a temporary folder.

Nothing is faked but the content. The two real files of the field are used where they lie beside the repository (or
under $GAPWISE_SHARED); elsewhere a synthetic pickle of the same layout takes their place, and the test's id says which.
"""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapwise.data.arrays import ModalityArrays, SplitArrays, TokenArrays
from gapwise.data.manifest import Manifest, SourceRecord
from gapwise.data.writer import WriteOptions, write_dataset

SIZES = {"train": 7, "valid": 4, "test": 5}
Splits = dict[str, SplitArrays]


def shared_file(name: str) -> Path:
    root = os.environ.get("GAPWISE_SHARED") or Path(__file__).parents[3] / "shared"
    return Path(root) / "data" / name


def draw_modality(random: np.random.Generator, samples: int, dim: int, dtype: type, absent: bool) -> ModalityArrays:
    lengths = random.integers(1, 5, samples)
    if absent:
        lengths[::3] = 0
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = random.standard_normal((offsets[-1], dim)).astype(dtype)
    return ModalityArrays(values=values, offsets=offsets, present=lengths > 0)


@pytest.fixture
def draw_splits() -> Callable[..., Splits]:
    """Draws three splits with modalities {name: (dim, dtype)}; every third sample lacks each but the first."""

    def draw(modalities: dict[str, tuple[int, type]] | None = None, *, seed: int = 0, text: bool = False) -> Splits:
        chosen = modalities or {"text": (5, np.float16), "audio": (3, np.float32)}
        random = np.random.default_rng(seed)
        splits = {}
        for split, samples in SIZES.items():
            ids = [f"{split}_video{row // 2}_{row}" for row in range(samples)]
            splits[split] = SplitArrays(
                ids=ids,
                groups=[sample.rsplit("_", 1)[0] for sample in ids],
                labels=random.uniform(-2.5, 2.5, samples).astype(np.float32),
                modalities={
                    name: draw_modality(random, samples, dim, dtype, absent=number > 0)
                    for number, (name, (dim, dtype)) in enumerate(chosen.items())
                },
                raw={"text": [f"said {sample} é" for sample in ids]} if text else {},
                tokens={
                    "text": TokenArrays(ids=np.arange(2 * samples, dtype=np.int32), offsets=np.arange(samples + 1) * 2)
                }
                if text
                else {},
            )
        return splits

    return draw


@pytest.fixture
def write() -> Callable[..., Manifest]:
    """Writes splits with plain options; keywords override them."""

    def call(splits: Splits, out: Path, **overrides: Any) -> Manifest:
        plain = {"name": "toy", "task": "regression", "groups": "video"}
        source = SourceRecord(file="toy", digest="0" * 64)
        return write_dataset(splits, out, WriteOptions(**{**plain, "source": source, **overrides}))

    return call


@pytest.fixture
def mmsa_tree() -> Callable[..., dict[str, dict[str, Any]]]:
    """The layout of the field's pickles: text 4 steps, audio 6, vision 1; frames past the length are zero."""

    def draw(sizes: dict[str, int] | None = None) -> dict[str, dict[str, Any]]:
        random = np.random.default_rng(3)
        tree: dict[str, dict[str, Any]] = {}
        for split, samples in (sizes or SIZES).items():
            lengths = {"text": random.integers(2, 5, samples), "audio": random.integers(1, 7, samples)}
            inside: dict[str, Any] = {
                "id": [f"{split}vid{row // 2}_{row}" for row in range(samples)],
                "raw_text": [f"sentence {row}" for row in range(samples)],
                "text_bert": np.zeros((samples, 3, 4), dtype=np.float32),
                "vision": random.standard_normal((samples, 1, 2)),
                "regression_labels": random.uniform(-3, 3, samples).astype(np.float32),
                "classification_labels": random.integers(0, 3, samples).astype(np.float32),
                "annotations": ["Positive"] * samples,
            }
            for name, (steps, dim, dtype) in {"text": (4, 5, np.float16), "audio": (6, 3, np.float32)}.items():
                real = np.arange(steps) < lengths[name][:, None]
                block = random.standard_normal((samples, steps, dim)).astype(dtype)
                inside[name] = np.where(real[..., None], block, 0).astype(dtype)
                inside[f"{name}_lengths"] = lengths[name].tolist()
            inside["text_bert"][:, 0] = 101
            inside["text_bert"][:, 1] = np.arange(4) < lengths["text"][:, None]
            tree[split] = inside
        return tree

    return draw


@pytest.fixture
def dump(tmp_path: Path) -> Callable[..., Path]:
    """Pickles a value to a file and returns its path."""

    def call(value: object, name: str = "file.pkl", protocol: int = 4) -> Path:
        path = tmp_path / name
        path.write_bytes(pickle.dumps(value, protocol))
        return path

    return call


def _source(name: str) -> Any:
    path = shared_file(name)
    return pytest.param(path if path.is_file() else None, id="real-file" if path.is_file() else "synthetic-stand-in")


@pytest.fixture(params=[_source("mosi/mosi_official.pkl")])
def mosi(request: pytest.FixtureRequest) -> Path | None:
    """The real MOSI pickle, or None where it is not at hand."""
    return request.param


@pytest.fixture(params=[_source("mosei_video/mosei_video.pkl")])
def mosei(request: pytest.FixtureRequest) -> Path | None:
    """The real MOSEI video pickle, or None where it is not at hand."""
    return request.param
