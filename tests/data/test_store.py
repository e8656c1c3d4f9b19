"""What is written is what is read, and what no longer is what was written is refused.

Nothing is faked: small datasets are written to a temporary folder, mapped, and compared with the arrays they came from.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.check import check, summary
from gapwise.data.exposure import EXPOSURE_FILE
from gapwise.data.manifest import read_manifest, write_manifest
from gapwise.data.store import Split, TestSplit, TrainSplit, ValidationSplit, open_dataset, statistics
from gapwise.errors import DataError

FIVE = {
    "text": (5, np.float16),
    "audio": (3, np.float32),
    "vision": (2, np.float32),
    "ecg": (1, np.float32),
    "pose-3d": (4, np.float16),
}


def expected_block(modality, row, max_length):
    frames = modality.values[modality.offsets[row] : modality.offsets[row + 1]].astype(np.float32)
    return np.pad(frames, ((0, max_length - len(frames)), (0, 0)))


@pytest.mark.parametrize("modalities", [None, FIVE], ids=["two-modalities", "five-modalities"])
@pytest.mark.parametrize("rows_per_part", [2, 4096], ids=["several-parts", "one-part"])
def test_a_batch_holds_exactly_the_written_frames(draw_splits, write, tmp_path, modalities, rows_per_part):
    splits = draw_splits(modalities)
    manifest = write(splits, tmp_path / "d", rows_per_part=rows_per_part)
    train, rows = open_dataset(tmp_path / "d").train, np.array([6, 0, 3, 3, 1])

    batch = train.batch(rows)

    assert set(batch.values) == set(splits["train"].modalities)
    for name, modality in splits["train"].modalities.items():
        longest = manifest.modalities[name].max_length
        wanted = np.stack([expected_block(modality, row, longest) for row in rows])
        lengths = np.diff(modality.offsets)[rows]
        assert batch.values[name].dtype == torch.float32
        np.testing.assert_array_equal(batch.values[name].numpy(), wanted)
        np.testing.assert_array_equal(batch.attend[name].numpy(), np.arange(longest) < lengths[:, None])
    np.testing.assert_array_equal(batch.labels.numpy(), splits["train"].labels[rows])
    np.testing.assert_array_equal(batch.rows.numpy(), rows)


def test_an_absent_modality_has_length_zero_and_is_never_attended(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")
    train = open_dataset(tmp_path / "d").train

    batch = train.batch(np.array([0, 3]))

    assert train.lengths["audio"][[0, 3]].tolist() == [0, 0]
    assert not batch.attend["audio"].any() and not batch.values["audio"].any()


def test_ids_groups_text_and_tokens_come_back(draw_splits, write, tmp_path):
    splits = draw_splits(text=True)
    write(splits, tmp_path / "d", rows_per_part=3)
    train = open_dataset(tmp_path / "d").train

    assert train.ids == splits["train"].ids
    assert train.groups == splits["train"].groups
    assert train.raw("text") == splits["train"].raw["text"]
    assert [ids.tolist() for ids in train.tokens("text")] == [[2 * row, 2 * row + 1] for row in range(len(train))]


def test_keys_depend_on_the_sample_id_only(draw_splits, write, tmp_path):
    splits = draw_splits()
    backwards = {
        name: dataclasses.replace(
            arrays,
            ids=arrays.ids[::-1],
        )
        for name, arrays in splits.items()
    }
    write(splits, tmp_path / "a")
    write(backwards, tmp_path / "b", rows_per_part=2)

    forth, back = open_dataset(tmp_path / "a").train.keys, open_dataset(tmp_path / "b").train.keys

    assert forth.dtype == np.uint64 and len(set(forth.tolist())) == len(forth)
    assert forth.tolist() == back.tolist()[::-1]


def test_the_three_splits_are_three_types(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")
    dataset = open_dataset(tmp_path / "d")

    kinds = [type(dataset.split(name, "a test")) for name in ("train", "valid", "test")]

    assert kinds == [TrainSplit, ValidationSplit, TestSplit]
    assert all(kind.__bases__ == (Split,) for kind in kinds)


def test_an_unknown_split_is_refused_and_the_known_ones_named(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")

    with pytest.raises(DataError, match=r"'dev'.*train, valid, test"):
        open_dataset(tmp_path / "d").split("dev", "")


def test_every_read_of_test_is_logged_with_its_reason(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")
    dataset = open_dataset(tmp_path / "d", verify=True)
    assert dataset.exposures() == 0

    split = dataset.test("gate")
    dataset.split("test", f'report on "fingerprint": "{split.fingerprint}"')

    entries = [json.loads(line) for line in (tmp_path / "d" / EXPOSURE_FILE).read_text().splitlines()]
    assert entries[0]["reason"] == "gate" and entries[0]["fingerprint"] == split.fingerprint
    assert {"time", "user"} <= entries[0].keys()
    assert dataset.exposures() == 2


def test_a_read_of_test_without_a_reason_is_refused(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")

    with pytest.raises(DataError, match="needs a reason"):
        open_dataset(tmp_path / "d").test(" ")


def test_exposures_go_to_the_home_folder_when_the_dataset_cannot_be_written(draw_splits, write, tmp_path, monkeypatch):
    monkeypatch.setenv("GAPWISE_HOME", str(tmp_path / "home"))
    write(draw_splits(), tmp_path / "d")
    (tmp_path / "d" / EXPOSURE_FILE).mkdir()  # stands for a read-only folder, which does not stop root
    dataset = open_dataset(tmp_path / "d")

    split = dataset.test("gate")

    assert (tmp_path / "home" / "exposures" / f"{split.fingerprint}.jsonl").is_file()
    assert dataset.exposures() == 1


def test_verify_detects_one_flipped_byte_of_content(draw_splits, write, tmp_path):
    splits = draw_splits()
    manifest = write(splits, tmp_path / "d")
    path = tmp_path / "d" / manifest.splits["test"].parts[0].file
    content = bytearray(path.read_bytes())
    place = content.index(splits["test"].modalities["audio"].values.tobytes())
    content[place + 5] ^= 1
    path.write_bytes(content)

    open_dataset(tmp_path / "d")
    with pytest.raises(DataError, match="no longer matches"):
        open_dataset(tmp_path / "d", verify=True)


def test_a_damaged_file_is_refused_or_still_has_its_content(draw_splits, write, tmp_path):
    """Wherever a byte flips, verification either refuses or the content is what it was (padding, unused metadata)."""
    manifest = write(draw_splits(text=True), tmp_path / "d")
    path = tmp_path / "d" / manifest.splits["valid"].parts[0].file
    whole, refused = path.read_bytes(), 0
    labels = open_dataset(tmp_path / "d").valid.labels.tolist()

    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            assert open_dataset(tmp_path / "d", verify=True).valid.labels.tolist() == labels
        except DataError:
            refused += 1

    assert refused > 10


@pytest.mark.parametrize("damage", ["gone", "torn", "empty"])
def test_a_part_that_is_not_there_whole_is_refused(draw_splits, write, tmp_path, damage):
    manifest = write(draw_splits(), tmp_path / "d")
    path = tmp_path / "d" / manifest.splits["train"].parts[0].file
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(whole[: len(whole) // 2] if damage == "torn" else b"")

    with pytest.raises(DataError, match=r"train-00000\.arrow: not a readable part"):
        _ = open_dataset(tmp_path / "d").train


def edit_manifest(folder: Path, **changes) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_newer_format_version_is_refused_even_with_keys_unknown_here(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")
    edit_manifest(tmp_path / "d", format_version=3, from_the_future=True)

    with pytest.raises(DataError, match=r"format version 3 is not known.*allowed: 1, 2"):
        open_dataset(tmp_path / "d")


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": "1"},
        {"task": "poetry"},
        {"surprise": 1},
        {"fingerprint": "abc"},
        {"splits": {}},
        {"modalities": {}},
    ],
)
def test_a_broken_manifest_is_refused_in_one_line(draw_splits, write, tmp_path, changes):
    write(draw_splits(), tmp_path / "d")
    edit_manifest(tmp_path / "d", **changes)

    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path / "d")
    assert "dataset.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_outside_the_folder_is_refused(draw_splits, write, tmp_path):
    manifest = write(draw_splits(), tmp_path / "d")
    splits = manifest.model_dump(mode="json")["splits"]
    splits["train"]["parts"][0]["file"] = "../elsewhere.arrow"
    edit_manifest(tmp_path / "d", splits=splits)

    with pytest.raises(DataError, match=r"splits.train.parts.0.file"):
        open_dataset(tmp_path / "d")


def test_an_overall_fingerprint_that_does_not_follow_is_refused(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")
    manifest = read_manifest(tmp_path / "d")
    write_manifest(manifest.model_copy(update={"fingerprint": "0" * 64}), tmp_path / "d")

    with pytest.raises(DataError, match="overall fingerprint"):
        open_dataset(tmp_path / "d", verify=True)


@pytest.mark.parametrize("edit", [{"label_range": [-1.0, 1.0]}, {"name": "other"}, {"repaired": {"text[0]": 3}}])
def test_a_manifest_that_was_edited_by_hand_is_refused(draw_splits, write, tmp_path, edit):
    write(draw_splits(), tmp_path / "d")
    edit_manifest(tmp_path / "d", **edit)

    with pytest.raises(DataError, match="it was edited"):
        open_dataset(tmp_path / "d")


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)

    with pytest.raises(DataError, match=r"dataset\.json"):
        open_dataset(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a gapwise dataset"):
        open_dataset(tmp_path / "nowhere")


def test_statistics_are_those_of_the_training_frames(draw_splits, write, tmp_path):
    splits = draw_splits(FIVE)
    write(splits, tmp_path / "d", rows_per_part=2)

    found = statistics(open_dataset(tmp_path / "d").train)

    for name, modality in splits["train"].modalities.items():
        frames = modality.values.astype(np.float64)
        np.testing.assert_allclose(found.modalities[name].mean, frames.mean(axis=0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.modalities[name].deviation, frames.std(axis=0), rtol=1e-5)
    assert found.label_mean == pytest.approx(splits["train"].labels.mean(dtype=np.float64))
    assert found.label_deviation == pytest.approx(splits["train"].labels.std(dtype=np.float64))


def test_a_constant_feature_has_deviation_one(draw_splits, write, tmp_path):
    splits = draw_splits()
    splits["train"].modalities["audio"].values[:, 1] = 211.1
    write(splits, tmp_path / "d", rows_per_part=2)

    moments = statistics(open_dataset(tmp_path / "d").train).modalities["audio"]

    assert moments.deviation[1] == 1.0 and moments.mean[1] == pytest.approx(211.1)


def test_a_summary_has_the_keys_that_scripts_rely_on(draw_splits, write, tmp_path):
    manifest = write(draw_splits(), tmp_path / "d")

    found = check(tmp_path / "d")

    assert found == summary(open_dataset(tmp_path / "d"))
    assert found["splits"] == {"train": 7, "valid": 4, "test": 5}
    assert found["modalities"]["text"] == {"dim": 5, "max_length": manifest.modalities["text"].max_length}
    assert (found["name"], found["task"], found["repaired"]) == ("toy", "regression", {})
    assert found["fingerprint"] == manifest.fingerprint and found["groups"]["train"] == 4
    assert found["exposures"] == 0 and found["label_range"] == [-3.0, 3.0]
    assert found["present"]["text"] == found["splits"], "the first modality is everywhere"
    assert found["present"]["audio"] == {"train": 4, "valid": 2, "test": 3}, "the second lacks every third sample"
    json.dumps(found)


def test_the_shape_is_what_a_model_needs(draw_splits, write, tmp_path):
    manifest = write(draw_splits(), tmp_path / "d")

    shape = open_dataset(tmp_path / "d").manifest.shape()

    assert shape.task == "regression" and shape.label_range == (-3.0, 3.0)
    assert {name: form.dim for name, form in shape.modalities.items()} == {"text": 5, "audio": 3}
    assert shape.modalities["text"].max_length == manifest.modalities["text"].max_length
