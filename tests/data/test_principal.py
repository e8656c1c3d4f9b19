"""Principal directions of a training split, on a small dataset written here with known ones."""

from pathlib import Path

import numpy as np
import pytest

from gapwise.data import store
from gapwise.data.principal import principal_directions, with_directions
from gapwise.data.store import TrainSplit, open_dataset, statistics
from gapwise.data.synth import read_task, synthesise


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> TrainSplit:
    folder = tmp_path_factory.mktemp("principal") / "d"
    synthesise("small", folder, seed=3)
    return open_dataset(folder).train


def reference(train: TrainSplit, name: str, number: int) -> np.ndarray:
    """By the book: the sample means, weighted by the root of their length, through an SVD."""
    moments = statistics(train).modalities[name]
    frames = (np.concatenate(list(train.frames(name))) - moments.mean) / moments.deviation
    parts = np.split(frames, np.cumsum(train.lengths[name])[:-1])
    means = np.stack([part.mean(0) * np.sqrt(len(part)) for part in parts])
    return np.linalg.svd(means)[2][:number]


@pytest.mark.parametrize("name", ["text", "audio", "vision"])
def test_directions_are_those_of_an_svd_of_sample_means(train: TrainSplit, name: str) -> None:
    found = principal_directions(train, name, statistics(train).modalities[name], 3)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs((unit * reference(train, name, 3)).sum(1)) == pytest.approx(1.0, abs=1e-4)


def test_projected_frames_have_deviation_one(train: TrainSplit) -> None:
    moments = statistics(train).modalities["text"]
    frames = (np.concatenate(list(train.frames("text"))) - moments.mean) / moments.deviation
    projected = frames @ principal_directions(train, "text", moments, 3).T
    assert (projected**2).mean(0) == pytest.approx(1.0, abs=1e-3)


def test_the_synthetic_label_direction_is_among_the_first(train: TrainSplit) -> None:
    task = read_task(open_dataset(Path(train.folder)))
    assert task is not None
    moments = statistics(train).modalities["text"]
    basis = np.linalg.qr(principal_directions(train, "text", moments, 2).T)[0]
    direction = task.directions.label["text"] / moments.deviation
    assert np.linalg.norm(basis.T @ direction) / np.linalg.norm(direction) > 0.95


def test_blocks_change_next_to_nothing(train: TrainSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = statistics(train).modalities["audio"]
    whole = principal_directions(train, "audio", moments, 2)
    monkeypatch.setattr(store, "_FRAMES_AT_ONCE", 500)
    assert principal_directions(train, "audio", moments, 2) == pytest.approx(whole, abs=0.05)


def test_more_directions_than_features_are_not_invented(train: TrainSplit) -> None:
    found = with_directions(statistics(train), train, train.manifest.modalities).principal
    assert {name: len(one) for name, one in found.items()} == {"text": 16, "audio": 6, "vision": 8}
