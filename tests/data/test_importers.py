"""Importers: each format becomes the same kind of dataset, and a broken file is one line that says where.

The real MOSI and MOSEI files are used where they are at hand; otherwise a small pickle of the same layout stands in,
and the test's id says so. Everything else is drawn in `conftest.py`.
"""

import io
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gapwise.data.importers import IMPORTERS, ImportOptions, import_dataset
from gapwise.data.store import open_dataset
from gapwise.errors import DataError

TOY = ImportOptions(name="toy")


def test_an_unknown_format_is_refused_and_the_known_ones_named(tmp_path):
    with pytest.raises(DataError, match=r"'csv'.*mmsa, parquet, npz"):
        import_dataset(tmp_path / "a.csv", tmp_path / "d", "csv", TOY)


@pytest.mark.parametrize("file_format", IMPORTERS)
def test_a_missing_file_is_refused(tmp_path, file_format):
    with pytest.raises(DataError, match="no such file"):
        import_dataset(tmp_path / "nothing", tmp_path / "d", file_format, TOY)


@pytest.mark.parametrize("file_format", IMPORTERS)
def test_a_file_of_another_format_is_refused_in_one_line(tmp_path, file_format):
    (tmp_path / "x").write_bytes(b"hello, I am no data file at all\n" * 9)

    with pytest.raises(DataError) as caught:
        import_dataset(tmp_path / "x", tmp_path / "d", file_format, TOY)
    assert str(caught.value).startswith(str(tmp_path / "x")) and "\n" not in str(caught.value)
    assert not (tmp_path / "d").exists()


# --- MMSA -----------------------------------------------------------------------------------------------------------


def test_mosi_has_its_official_sizes_and_videos_as_groups(mosi, mmsa_tree, dump, tmp_path):
    path = mosi or dump(mmsa_tree())

    manifest = import_dataset(path, tmp_path / "d", "mmsa", TOY)

    sizes = {name: record.samples for name, record in manifest.splits.items()}
    groups = {name: record.groups for name, record in manifest.splits.items()}
    if mosi:
        assert sizes == {"train": 1284, "valid": 229, "test": 686}
        assert groups == {"train": 52, "valid": 10, "test": 31}
        assert set(manifest.modalities) == {"text", "audio"}
        assert manifest.modalities["text"].dtype == "float16" and manifest.modalities["text"].dim == 300
        assert manifest.label_range == (-3.0, 3.0) and manifest.groups_shared_between_splits == 0
    else:
        assert sizes == {"train": 7, "valid": 4, "test": 5} and groups == {"train": 4, "valid": 2, "test": 3}


def test_mosi_batches_are_the_arrays_of_the_pickle(mosi, mmsa_tree, dump, tmp_path):
    path = mosi or dump(mmsa_tree())
    import_dataset(path, tmp_path / "d", "mmsa", TOY)
    source = pickle.loads(path.read_bytes())["valid"]  # our own file: trusted here, to compare with
    valid = open_dataset(tmp_path / "d", verify=True).valid

    batch = valid.batch(np.arange(len(valid)))

    for name in ("text", "audio"):
        steps = batch.values[name].shape[1]
        np.testing.assert_array_equal(batch.values[name].numpy(), source[name][:, :steps].astype(np.float32))
        assert valid.lengths[name].tolist() == list(source[f"{name}_lengths"])
    assert valid.raw("text") == source["raw_text"]
    mask = source["text_bert"][3, 1] == 1
    assert valid.tokens("text")[3].tolist() == source["text_bert"][3, 0][mask].astype(int).tolist()
    np.testing.assert_array_equal(batch.labels.numpy(), source["regression_labels"])


def test_mosei_audio_column_seven_is_repaired_and_counted(mosei, mmsa_tree, dump, tmp_path):
    if mosei is None:
        tree = mmsa_tree()
        tree["train"]["audio"][:, 0, 2] = -np.inf
        manifest = import_dataset(dump(tree), tmp_path / "d", "mmsa", TOY)
        assert manifest.repaired == {"audio[2]": 7}
        return

    manifest = import_dataset(mosei, tmp_path / "d", "mmsa", TOY)

    assert {name: record.samples for name, record in manifest.splits.items()} == {
        "train": 634,
        "valid": 85,
        "test": 179,
    }
    assert manifest.repaired == {"audio[7]": 645}
    assert manifest.splits["test"].groups == 179  # video ids, some with underscores and digits: each its own group
    with pytest.raises(DataError, match="strict"):
        import_dataset(mosei, tmp_path / "strict", "mmsa", ImportOptions(name="x", strict=True))


def test_importing_the_same_file_twice_gives_the_same_fingerprint(mmsa_tree, dump, tmp_path):
    first = import_dataset(dump(mmsa_tree(), "a.pkl", protocol=2), tmp_path / "a", "mmsa", TOY)
    second = import_dataset(dump(mmsa_tree(), "b.pkl", protocol=5), tmp_path / "b", "mmsa", ImportOptions(name="other"))

    assert first.fingerprint == second.fingerprint
    assert first.source.file == "a.pkl" and first.source.digest != second.source.digest


def test_float64_is_stored_as_float32(mmsa_tree, dump, tmp_path):
    manifest = import_dataset(dump(mmsa_tree()), tmp_path / "d", "mmsa", TOY)

    assert {name: record.dtype for name, record in manifest.modalities.items()} == {
        "text": "float16",
        "audio": "float32",
        "vision": "float32",
    }


def test_a_value_beyond_float32_counts_as_not_finite(mmsa_tree, dump, tmp_path):
    tree = mmsa_tree()
    tree["train"]["vision"][0, 0, 1] = 1e300

    assert import_dataset(dump(tree), tmp_path / "d", "mmsa", TOY).repaired == {"vision[1]": 1}


def test_other_arrays_are_modalities_only_when_named(mmsa_tree, dump, tmp_path):
    tree = mmsa_tree()
    for inside in tree.values():
        inside["ecg"] = np.ones((len(inside["id"]), 3, 2), np.float32)
    path = dump(tree)

    plain = import_dataset(path, tmp_path / "a", "mmsa", TOY)
    named = import_dataset(path, tmp_path / "b", "mmsa", ImportOptions(name="toy", modalities=("ecg",)))

    assert set(plain.modalities) == {"text", "audio", "vision"}
    assert set(named.modalities) == {"text", "audio", "vision", "ecg"}
    with pytest.raises(DataError, match=r"train: no modality 'gsr'.*ecg"):
        import_dataset(path, tmp_path / "c", "mmsa", ImportOptions(name="toy", modalities=("gsr",)))


def without(tree, *keys):
    return {split: {key: value for key, value in inside.items() if key not in keys} for split, inside in tree.items()}


def test_text_length_comes_from_the_token_mask_when_it_counts_the_same_steps(mmsa_tree, dump, tmp_path):
    tree = without(mmsa_tree(), "text_lengths")
    tree["train"]["text"][0, 1:] = 0  # unknown words inside the sentence stay frames
    import_dataset(dump(tree), tmp_path / "d", "mmsa", TOY)

    wanted = tree["train"]["text_bert"][:, 1].sum(axis=1).astype(int)
    assert open_dataset(tmp_path / "d").train.lengths["text"].tolist() == wanted.tolist()


def test_without_lengths_a_sample_ends_at_its_last_frame_that_is_not_zero(mmsa_tree, dump, tmp_path):
    whole = mmsa_tree()
    tree = without(whole, "text_lengths", "audio_lengths", "text_bert")
    tree["train"]["audio"][0] = 0
    tree["train"]["audio"][1, :4] = [[0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 2, 0]]
    tree["train"]["audio"][1, 4:] = 0
    import_dataset(dump(tree), tmp_path / "d", "mmsa", TOY)

    lengths = open_dataset(tmp_path / "d").train.lengths
    assert lengths["audio"].tolist() == [1, 4, *whole["train"]["audio_lengths"][2:]]
    assert lengths["text"].tolist() == whole["train"]["text_lengths"]


@pytest.mark.parametrize(
    ("ids", "groups"),
    [
        (["a_b_1", "a_b_12", "c$_$x"], ["a_b", "a_b", "c"]),
        (["a_b_1", "a_b_12", "x266rUJQC_z"], ["a_b_1", "a_b_12", "x266rUJQC_z"]),
        ([17, 18, 19], ["17", "18", "19"]),
    ],
    ids=["segments", "one-video-id-among-them", "numbers"],
)
def test_groups_are_videos_only_if_every_id_names_a_segment(mmsa_tree, dump, tmp_path, ids, groups):
    tree = mmsa_tree({"train": 3, "valid": 2, "test": 2})
    tree["train"]["id"] = ids
    import_dataset(dump(tree), tmp_path / "d", "mmsa", TOY)

    assert open_dataset(tmp_path / "d").train.groups == groups


@pytest.mark.parametrize("key", ["classification_labels", "labels"])
def test_class_labels_are_read_on_request(mmsa_tree, dump, tmp_path, key):
    tree = mmsa_tree()
    for inside in tree.values():
        inside[key] = inside.pop("classification_labels")
    manifest = import_dataset(dump(tree), tmp_path / "d", "mmsa", ImportOptions(name="toy", task="classification"))

    train = open_dataset(tmp_path / "d").train
    assert manifest.classes == 3 and train.labels.tolist() == tree["train"][key].astype(int).tolist()


def test_object_arrays_of_text_are_ids_too(mmsa_tree, dump, tmp_path):
    tree = mmsa_tree()
    for inside in tree.values():
        inside["id"] = np.array(inside["id"], dtype=object)
        inside["raw_text"] = np.array(inside["raw_text"])

    manifest = import_dataset(dump(tree), tmp_path / "d", "mmsa", TOY)

    assert manifest.fingerprint == import_dataset(dump(mmsa_tree()), tmp_path / "e", "mmsa", TOY).fingerprint


def broken(key, value):
    def change(tree):
        tree["test"][key] = value(tree["test"]) if callable(value) else value
        return tree

    return change


def removed(key):
    return lambda tree: {**tree, "test": {name: value for name, value in tree["test"].items() if name != key}}


BROKEN_TREES = {
    "no-split": (lambda tree: {"train": tree["train"]}, "valid is missing"),
    "no-dictionary": (lambda tree: [1, 2], "list where a dictionary"),
    "split-is-a-list": (lambda tree: {**tree, "test": [1]}, "test: list where a dictionary"),
    "no-ids": (removed("id"), "test: id is missing"),
    "no-labels": (removed("regression_labels"), "test: labels for regression are missing"),
    "a-missing-modality": (removed("audio"), "test is .* but train is"),
    "nan-label": (broken("regression_labels", np.array([0, 1, np.nan, 0, 0], np.float32)), "row 2 is nan"),
    "label-none": (broken("regression_labels", [0.0, None, 0.0, 0.0, 0.0]), "row 1 is nan"),
    "label-of-text": (broken("regression_labels", ["a"] * 5), "regression_labels: not numbers"),
    "too-many-labels": (broken("regression_labels", np.zeros(6)), "6 entries for 5 samples"),
    "length-beyond-the-array": (broken("audio_lengths", [7, 1, 1, 1, 1]), "audio: length 7 of row 0 for 6 steps"),
    "negative-length": (broken("audio_lengths", [-1, 1, 1, 1, 1]), "length -1 of row 0"),
    "too-few-lengths": (broken("audio_lengths", [1]), "1 lengths for 5 samples"),
    "half-a-length": (broken("audio_lengths", [0.5, 1, 1, 1, 1]), "not whole numbers"),
    "nan-length": (broken("audio_lengths", [np.nan, 1, 1, 1, 1]), "not whole numbers"),
    "duplicate-ids": (broken("id", ["a_1"] * 5), "'a_1' occurs more than once"),
    "leaked-id": (broken("id", lambda inside: ["trainvid0_0", *inside["id"][1:]]), "in both train and test"),
    "half-a-character": (broken("id", ["a\ud800", *"bcde"]), "id: text that UTF-8 cannot hold"),
    "ids-of-floats": (broken("id", np.zeros(5)), "id: ndarray where a list of text"),
    "integer-features": (broken("audio", np.ones((5, 6, 3), int)), "audio: features are int64"),
    "flat-features": (broken("audio", np.ones(5)), r"audio: features are float64 \(5,\)"),
    "features-of-text": (broken("audio", "loud"), "audio: features are str"),
    "too-few-features": (broken("vision", np.ones((3, 1, 2))), "entries for 5 samples"),
    "another-dim": (broken("vision", np.ones((5, 1, 9))), "test is"),
    "bert-of-another-shape": (broken("text_bert", np.ones((5, 2, 4))), r"text_bert: float64 \(5, 2, 4\)"),
    "negative-token": (broken("text_bert", lambda inside: inside["text_bert"] - [[[102], [0], [0]]]), "token ids"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN_TREES.values(), ids=BROKEN_TREES.keys())
def test_a_broken_mmsa_file_is_refused_with_file_and_key(mmsa_tree, dump, tmp_path, damage, message):
    path = dump(damage(mmsa_tree()))

    with pytest.raises(DataError, match=message) as caught:
        import_dataset(path, tmp_path / "d", "mmsa", TOY)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.pkl"]


# --- Parquet --------------------------------------------------------------------------------------------------------


def as_table(splits, **replacements) -> pa.Table:
    columns = {"id": [], "split": [], "label": [], "group": [], "text": [], "audio": []}
    for split, arrays in splits.items():
        columns["id"] += arrays.ids
        columns["split"] += [split] * len(arrays)
        columns["label"] += arrays.labels.tolist()
        columns["group"] += arrays.groups
        for name, modality in arrays.modalities.items():
            blocks = np.split(modality.values, modality.offsets[1:-1])
            columns[name] += [block.tolist() if len(block) else None for block in blocks]
    types = {"text": pa.list_(pa.list_(pa.float16())), "audio": pa.list_(pa.list_(pa.float32())), "label": pa.float32()}
    columns.update(replacements)
    return pa.table({name: pa.array(column, types.get(name)) for name, column in columns.items() if column is not None})


def test_parquet_holds_the_same_dataset(draw_splits, write, tmp_path):
    splits = draw_splits()
    pq.write_table(as_table(splits), tmp_path / "x.parquet", row_group_size=3)

    manifest = import_dataset(tmp_path / "x.parquet", tmp_path / "d", "parquet", TOY)

    assert manifest.fingerprint == write(splits, tmp_path / "e").fingerprint


def test_a_folder_of_parquet_files_is_one_table(draw_splits, write, tmp_path):
    table = as_table(draw_splits())
    (tmp_path / "x").mkdir()
    pq.write_table(table.slice(0, 5), tmp_path / "x" / "0.parquet")
    pq.write_table(table.slice(5), tmp_path / "x" / "1.parquet")

    manifest = import_dataset(tmp_path / "x", tmp_path / "d", "parquet", TOY)

    assert manifest.fingerprint == write(draw_splits(), tmp_path / "e").fingerprint


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64())])
def test_a_list_of_numbers_is_one_frame_and_null_is_absent(draw_splits, tmp_path, kind):
    table = as_table(draw_splits(), audio=None, group=None)
    gaze = [[1.0, 2.0], None] * 8
    pq.write_table(table.append_column("gaze", pa.array(gaze, kind)), tmp_path / "x.parquet")

    manifest = import_dataset(tmp_path / "x.parquet", tmp_path / "d", "parquet", TOY)

    train = open_dataset(tmp_path / "d").train
    assert manifest.modalities["gaze"].dim == 2 and manifest.modalities["gaze"].max_length == 1
    assert train.lengths["gaze"].tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert train.batch(np.array([2])).values["gaze"].tolist() == [[[1.0, 2.0]]]
    assert train.groups == train.ids


def test_lists_of_fixed_size_are_frames_too(draw_splits, tmp_path):
    """Without nulls: pyarrow itself cannot read those back from Parquet in this type."""
    gaze = pa.array([[1.0, 2.0]] * 16, pa.list_(pa.float32(), 2))
    pq.write_table(as_table(draw_splits()).append_column("gaze", gaze), tmp_path / "x.parquet")

    manifest = import_dataset(tmp_path / "x.parquet", tmp_path / "d", "parquet", TOY)

    assert (manifest.modalities["gaze"].dim, manifest.modalities["gaze"].max_length) == (2, 1)


def test_a_modality_may_be_absent_from_a_whole_split(draw_splits, tmp_path):
    audio = [[[1.0, 2.0]]] * 7 + [None] * 9
    pq.write_table(as_table(draw_splits(), audio=audio), tmp_path / "x.parquet")

    import_dataset(tmp_path / "x.parquet", tmp_path / "d", "parquet", TOY)

    assert open_dataset(tmp_path / "d").valid.lengths["audio"].tolist() == [0, 0, 0, 0]


def test_a_null_inside_a_frame_is_repaired_and_counted(draw_splits, tmp_path):
    audio = [[[1.0, None]]] * 3 + [[[1.0, 2.0]]] * 13
    pq.write_table(as_table(draw_splits(), audio=audio), tmp_path / "x.parquet")

    assert import_dataset(tmp_path / "x.parquet", tmp_path / "d", "parquet", TOY).repaired == {"audio[1]": 3}


BROKEN_TABLES = {
    "no-label": ({"label": None}, "column label is missing"),
    "unknown-split": ({"split": ["dev"] * 16}, "unknown split 'dev'.*train, valid, test"),
    "null-split": ({"split": ["train"] * 15 + [None]}, "split: list where a list of text"),
    "only-train": ({"split": ["train"] * 16}, "valid: has no samples"),
    "null-label": ({"label": [None] * 16}, "label: label of row 0 is nan"),
    "line-break-in-a-name": ({"gr\nup": [[1.0]] * 16}, r"the name 'gr\\nup'"),
    "a-number-column": ({"seconds": [1.5] * 16}, "seconds: double is no modality"),
    "whole-number-features": ({"gaze": [[1, 2]] * 16}, "gaze: features are int64"),
    "ragged-frames": ({"gaze": [[1.0, 2.0]] * 15 + [[1.0]]}, r"gaze: frames of \[1, 2\] features"),
    "empty-frames": ({"gaze": [[[]]] * 16}, "gaze: "),
    "null-frame": ({"gaze": [[[1.0], None]] * 16}, "gaze: a null among the frames"),
    "no-frame": ({"gaze": [[]] + [[[1.0]]] * 15}, "gaze: row 0 is present with no frame"),
}


@pytest.mark.parametrize(("replacements", "message"), BROKEN_TABLES.values(), ids=BROKEN_TABLES.keys())
def test_a_broken_table_is_refused_with_file_and_column(draw_splits, tmp_path, replacements, message):
    path = tmp_path / "x.parquet"
    pq.write_table(as_table(draw_splits(), **replacements), path)

    with pytest.raises(DataError, match=message) as caught:
        import_dataset(path, tmp_path / "d", "parquet", TOY)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_only_the_named_columns_are_read(draw_splits, tmp_path):
    pq.write_table(as_table(draw_splits(), seconds=[1.5] * 16), tmp_path / "x.parquet")

    manifest = import_dataset(
        tmp_path / "x.parquet", tmp_path / "d", "parquet", ImportOptions(name="toy", modalities=("text",))
    )

    assert set(manifest.modalities) == {"text"}


# --- npz ------------------------------------------------------------------------------------------------------------


def as_arrays(splits) -> dict[str, np.ndarray]:
    arrays = {}
    for split, content in splits.items():
        arrays[f"{split}/id"] = np.array(content.ids)
        arrays[f"{split}/group"] = np.array(content.groups)
        arrays[f"{split}/label"] = content.labels
        for name, modality in content.modalities.items():
            lengths = np.diff(modality.offsets)
            block = np.zeros((len(content), 6, modality.values.shape[1]), modality.values.dtype)
            block[np.arange(6) < lengths[:, None]] = modality.values
            arrays[f"{split}/{name}"], arrays[f"{split}/{name}_lengths"] = block, lengths
    return arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_holds_the_same_dataset(draw_splits, write, tmp_path, save):
    save(tmp_path / "x.npz", **as_arrays(draw_splits()))

    manifest = import_dataset(tmp_path / "x.npz", tmp_path / "d", "npz", TOY)

    assert manifest.fingerprint == write(draw_splits(), tmp_path / "e").fingerprint


def test_npz_without_lengths_keeps_every_step(draw_splits, tmp_path):
    arrays = {key: array for key, array in as_arrays(draw_splits()).items() if not key.endswith(("_lengths", "group"))}
    np.savez(tmp_path / "x.npz", **arrays)

    import_dataset(tmp_path / "x.npz", tmp_path / "d", "npz", TOY)

    train = open_dataset(tmp_path / "d").train
    assert set(train.lengths["audio"].tolist()) == {6} and train.groups == train.ids


BROKEN_ARRAYS = {
    "no-label": ({"test/label": None}, "key test/label is missing"),
    "nan-label": ({"test/label": np.full(5, np.nan)}, "test/label: label of row 0 is nan"),
    "objects": ({"test/id": np.array(["a"] * 5, dtype=object)}, "test/id: numpy type object is refused"),
    "structured": ({"test/audio": np.zeros(5, "f4,i8")}, "test/audio: numpy type .* is refused"),
    "line-break-in-a-key": ({"test/a\nb": np.ones((5, 6, 3))}, r"the name 'test/a\\nb"),
    "no-characters": ({"test/id": np.full(5, 2**31, np.uint32).view("U1")}, "test/id: numbers that are no characters"),
    "integers": ({"test/audio": np.zeros((5, 6, 3), int)}, "test/audio: features are int64"),
    "length-too-long": ({"test/audio_lengths": np.full(5, 7)}, "test/audio: length 7 of row 0 for 6 steps"),
    "too-few-lengths": ({"test/audio_lengths": np.ones(2)}, "2 lengths for 5 samples"),
    "no-modality": ({"test/audio": None, "test/text": None}, "test: no modality"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN_ARRAYS.values(), ids=BROKEN_ARRAYS.keys())
def test_a_broken_npz_is_refused_with_file_and_key(draw_splits, tmp_path, changes, message):
    arrays = {**as_arrays(draw_splits()), **changes}
    np.savez(tmp_path / "x.npz", **{key: array for key, array in arrays.items() if array is not None})

    with pytest.raises(DataError, match=message) as caught:
        import_dataset(tmp_path / "x.npz", tmp_path / "d", "npz", TOY)
    assert str(caught.value).startswith(str(tmp_path / "x.npz")) and "\n" not in str(caught.value)


def test_an_npy_header_of_a_terabyte_is_refused(draw_splits, tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**38,)})
    np.savez(tmp_path / "x.npz", **as_arrays(draw_splits()))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("train/vision.npy", header.getvalue() + b"abcd")

    with pytest.raises(DataError, match=r"train/vision: the header declares 1099511627\d+ bytes"):
        import_dataset(tmp_path / "x.npz", tmp_path / "d", "npz", TOY)


def test_a_deflate_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/text.npy", bytes(10_000_000))

    with pytest.raises(DataError, match="declares 10000000 bytes in a file of"):
        import_dataset(tmp_path / "x.npz", tmp_path / "d", "npz", TOY)


def test_a_torn_npz_is_refused(draw_splits, tmp_path):
    np.savez(tmp_path / "x.npz", **as_arrays(draw_splits()))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DataError, match="not readable as npz"):
        import_dataset(tmp_path / "x.npz", tmp_path / "d", "npz", TOY)
