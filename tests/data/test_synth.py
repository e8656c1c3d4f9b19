"""The synthetic task: reproducible, frozen, and with nothing about the label outside the declared directions.

Nothing is faked. Correlations are measured on a larger draw of the same preset, with a fixed seed.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from gapwise.data.store import open_dataset
from gapwise.data.synth import SMALL, SYNTHETIC_FILE, draw_directions, find_preset, generate, synthesise
from gapwise.errors import DataError


@pytest.fixture(scope="module")
def many():
    """4000 samples of the small preset, and the directions."""
    return generate(replace(SMALL, sizes={"train": 4000, "valid": 1, "test": 1}), 7)["train"], draw_directions(SMALL)


def sample_means(modality) -> np.ndarray:
    lengths = np.diff(modality.offsets)
    return np.add.reduceat(modality.values.astype(np.float64), modality.offsets[:-1], axis=0) / lengths[:, None]


def test_the_same_seed_gives_the_same_dataset(tmp_path):
    first, second = synthesise("small", tmp_path / "a", 3), synthesise("small", tmp_path / "b", 3)

    assert first == second
    assert synthesise("small", tmp_path / "c", 4).fingerprint != first.fingerprint


def test_an_unknown_preset_is_refused_and_the_known_ones_named():
    with pytest.raises(DataError, match=r"'medium'.*allowed: small"):
        find_preset("medium")


def test_a_negative_seed_is_refused():
    with pytest.raises(DataError, match="seed -1"):
        generate(SMALL, -1)


def test_the_small_preset_is_frozen():
    noise = {"noise_levels": (0.5, 1.0, 2.0), "noise_prior": (0.3, 0.4, 0.3)}

    assert SMALL.labels == tuple(np.arange(-6, 7) / 2)
    assert SMALL.prior == (2, 3, 5, 7, 8, 9, 9, 9, 8, 7, 5, 3, 2)
    assert (SMALL.irony, SMALL.irony_strength, SMALL.irony_noise, SMALL.nuisance) == (0.1, 1.0, 1.5, 0.5)
    assert (SMALL.samples_per_group, SMALL.direction_seed) == (5, 20250601)
    assert SMALL.sizes == {"train": 400, "valid": 150, "test": 150}
    found = {name: (m.dim, m.min_length, m.max_length, m.amplitude) for name, m in SMALL.modalities.items()}
    assert found == {"text": (16, 4, 8, 0.6), "audio": (6, 6, 12, 0.3), "vision": (8, 5, 10, 0.3)}
    for modality in SMALL.modalities.values():
        assert {"noise_levels": modality.noise_levels, "noise_prior": modality.noise_prior} == noise


def test_the_first_values_are_pinned():
    train = generate(SMALL, 0)["train"]

    assert train.labels[:6].tolist() == [1.5, 1.0, 0.5, 0.0, 1.0, -1.0]
    first = train.modalities["text"].values[0, :3]
    np.testing.assert_allclose(first, [-1.1783543, -0.7168413, 0.5492589], rtol=1e-5)


def test_the_dataset_has_the_presets_form_and_its_parameters_beside_it(tmp_path):
    manifest = synthesise("small", tmp_path / "d", 0)

    train = open_dataset(tmp_path / "d", verify=True).train
    assert {name: (record.dim, record.max_length) for name, record in manifest.modalities.items()} == {
        "text": (16, 8),
        "audio": (6, 12),
        "vision": (8, 10),
    }
    assert manifest.splits["train"].groups == 80 and manifest.groups_shared_between_splits == 0
    assert len(set(train.lengths["text"].tolist())) == 5
    parameters = json.loads((tmp_path / "d" / SYNTHETIC_FILE).read_text())
    directions = draw_directions(SMALL)
    assert parameters["irony_direction"] == directions.irony.tolist()
    assert parameters["label_directions"]["text"] == directions.label["text"].tolist()
    assert parameters["preset"]["modalities"]["audio"]["amplitude"] == 0.3


def test_directions_are_unit_vectors_and_irony_is_orthogonal_to_audio():
    directions = draw_directions(SMALL)

    for vector in (*directions.label.values(), directions.irony):
        assert np.linalg.norm(vector) == pytest.approx(1)
    assert directions.irony @ directions.label["audio"] == pytest.approx(0, abs=1e-12)


def test_splits_and_modalities_are_drawn_apart():
    splits = generate(SMALL, 0)

    assert not np.array_equal(splits["valid"].labels, splits["test"].labels)


def test_nothing_outside_the_informative_directions_varies_with_label_irony_or_noise(many):
    """Frames less their components along v_m (and w) are the same nuisance for every label and reliability."""
    train, directions = many
    bound = 4.5 / np.sqrt(len(train))  # 4.5 deviations of a correlation between independent variables
    for name, modality in train.modalities.items():
        means_ND = sample_means(modality)
        informative = [directions.label[name]] + [directions.irony] * (name == "audio")
        for vector in informative:
            means_ND = means_ND - (means_ND @ vector)[:, None] * vector
        for target in (train.labels, np.abs(train.labels), np.sign(train.labels)):
            found = [np.corrcoef(column, target)[0, 1] for column in means_ND.T]
            assert np.abs(found).max() < bound, name


def test_the_nuisance_is_orthogonal_to_every_informative_direction():
    """Without signal and without noise along v_m and w, a frame has no component along them."""
    silent = {
        name: replace(modality, amplitude=0.0, noise_levels=(0.0,), noise_prior=(1.0,))
        for name, modality in SMALL.modalities.items()
    }
    quiet = replace(SMALL, modalities=silent, irony_strength=0.0, irony_noise=0.0)
    train, directions = generate(quiet, 0)["train"], draw_directions(SMALL)

    for name, modality in train.modalities.items():
        assert np.abs(modality.values @ directions.label[name]).max() < 1e-6
        assert modality.values.std() > 0.3
    assert np.abs(train.modalities["audio"].values @ directions.irony).max() < 1e-6


def test_the_label_moves_frames_by_the_stated_amplitude_and_irony_turns_text(many):
    train, directions = many
    slopes = {}
    for name, modality in train.modalities.items():
        along = sample_means(modality) @ directions.label[name]
        slopes[name] = np.polyfit(train.labels, along, 1)[0]

    assert slopes["audio"] == pytest.approx(0.3, abs=0.02) and slopes["vision"] == pytest.approx(0.3, abs=0.02)
    assert slopes["text"] == pytest.approx(0.6 * (1 - 2 * SMALL.irony), abs=0.03)


def test_irony_shows_in_audio_and_only_as_often_as_stated(many):
    train, directions = many

    shown = train.modalities["audio"].values @ directions.irony

    assert shown.mean() == pytest.approx(SMALL.irony * SMALL.irony_strength, abs=0.04)
    assert shown.std() == pytest.approx(np.sqrt(1.5**2 + 0.1 * 0.9), abs=0.03)
