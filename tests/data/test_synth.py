"""The synthetic task: reproducible, frozen, and with nothing about the label outside the declared directions.

Nothing is faked. Correlations are measured on a larger draw of the same preset, with a fixed seed.
"""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from gapwise.data.drawing import draw_directions, generate, generate_truth
from gapwise.data.presets import MOSI_LIKE_50, PRESETS, SMALL, find_preset, preset_from_json
from gapwise.data.store import open_dataset
from gapwise.data.synth import SYNTHETIC_FILE, read_task, synthesise
from gapwise.data.truth import TRUTH_FILE, pack, read_truth
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


def test_the_small_dataset_of_seed_0_is_the_one_it_always_was(tmp_path):
    manifest = synthesise("small", tmp_path / "d", 0)

    assert manifest.fingerprint == "9a184d1274def483fb6f5c202534704c50ca2aab6a52b8302e23cf388b55165c"


def test_a_larger_training_split_begins_with_the_smaller_one_and_leaves_the_others_alone():
    thin = {name: replace(one, dim=3) for name, one in MOSI_LIKE_50.modalities.items()}
    smaller = generate(replace(MOSI_LIKE_50, modalities=thin), 0)
    larger = generate(replace(find_preset("mosi-like-50", "5k"), modalities=thin), 0)

    assert (len(smaller["train"]), len(larger["train"])) == (1284, 5000)
    for split, cut in (("train", 1284), ("valid", 229), ("test", 686)):
        first = larger[split].rows(0, cut)
        assert (first.ids, first.groups) == (smaller[split].ids, smaller[split].groups)
        np.testing.assert_array_equal(first.labels, smaller[split].labels)
        for name, modality in smaller[split].modalities.items():
            np.testing.assert_array_equal(first.modalities[name].values, modality.values)
    assert len(larger["test"]) == 686


def test_blocks_are_drawn_apart():
    thin = {name: replace(one, dim=3) for name, one in MOSI_LIKE_50.modalities.items()}
    train = generate(replace(MOSI_LIKE_50, modalities=thin), 0)["train"]

    assert not np.array_equal(train.labels[:512], train.labels[512:1024])


@pytest.mark.parametrize(("preset", "size"), [("small", "5k"), ("mosi-like-50", "6k")])
def test_a_size_that_a_preset_has_not_is_refused(preset, size):
    with pytest.raises(DataError, match=f"{preset}.*no size '{size}'.*allowed: "):
        find_preset(preset, size)


def test_every_preset_survives_a_way_through_json():
    for preset in PRESETS.values():
        assert preset_from_json(json.loads(json.dumps(asdict(preset)))) == preset


def test_json_that_is_no_preset_is_refused():
    with pytest.raises(DataError, match="not the parameters of a synthetic preset"):
        preset_from_json({"name": "x", "modalities": {}})


def test_the_truth_beside_the_dataset_is_what_the_samples_were_drawn_with(tmp_path):
    synthesise("small", tmp_path / "d", 0)
    train = open_dataset(tmp_path / "d").train

    truth = read_truth(train)

    assert truth.irony.mean() == pytest.approx(SMALL.irony, abs=0.05)
    directions, drawn = draw_directions(SMALL), generate(SMALL, 0)["train"]
    for name, modality in SMALL.modalities.items():
        sign = np.where(truth.irony & (name == "text"), -1, 1)
        lengths = train.lengths[name]
        along = drawn.modalities[name].values @ directions.label[name]
        noise = along - np.repeat(modality.amplitude * sign * train.labels, lengths)
        scaled = noise / np.repeat(truth.sigma[name], lengths)
        assert scaled.std() == pytest.approx(1, abs=4.5 / np.sqrt(2 * len(scaled)))
        assert set(truth.sigma[name].tolist()) == set(modality.noise_levels)


def test_the_truth_is_no_part_of_the_fingerprint_and_needed_by_nothing_else(tmp_path):
    synthesise("small", tmp_path / "d", 0)
    (tmp_path / "d" / TRUTH_FILE).unlink()

    train = open_dataset(tmp_path / "d", verify=True).train

    with pytest.raises(DataError, match=r"no truth\.npz here"):
        read_truth(train)


def test_a_broken_truth_is_one_clear_error(tmp_path):
    synthesise("small", tmp_path / "d", 0)
    (tmp_path / "d" / TRUTH_FILE).write_bytes(b"not a zip file")

    with pytest.raises(DataError, match=r"truth\.npz: cannot be read"):
        read_truth(open_dataset(tmp_path / "d").train)


def test_the_truth_of_another_dataset_is_refused(tmp_path):
    synthesise("small", tmp_path / "d", 0)
    truths = {"train": generate_truth(SMALL, "valid", 0)}
    (tmp_path / "d" / TRUTH_FILE).write_bytes(pack(truths))

    with pytest.raises(DataError, match="not of the 400 samples of train"):
        read_truth(open_dataset(tmp_path / "d").train)


def test_a_dataset_knows_the_task_it_was_drawn_from(tmp_path):
    synthesise("small", tmp_path / "d", 5)

    task = read_task(open_dataset(tmp_path / "d"))

    assert task is not None and task.preset == SMALL
    np.testing.assert_array_equal(task.directions.irony, draw_directions(SMALL).irony)


def test_parameters_that_are_not_the_dataset_s_own_are_refused(tmp_path):
    synthesise("small", tmp_path / "d", 0)
    path = tmp_path / "d" / SYNTHETIC_FILE
    path.write_text(path.read_text().replace('"irony": 0.1', '"irony": 0.2'))

    with pytest.raises(DataError, match="not what this dataset was drawn with"):
        read_task(open_dataset(tmp_path / "d"))


def test_a_dataset_without_parameters_has_no_task(tmp_path):
    synthesise("small", tmp_path / "d", 0)
    (tmp_path / "d" / SYNTHETIC_FILE).unlink()

    assert read_task(open_dataset(tmp_path / "d")) is None


def test_no_scratch_is_left_behind(tmp_path):
    synthesise("small", tmp_path / "d", 0)

    assert [path.name for path in tmp_path.iterdir()] == ["d"]
