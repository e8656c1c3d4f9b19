"""The writer: one content is one dataset, and nothing broken or half-written is ever left behind.

Nothing is faked, except where a test needs the disk to fail: then the function that writes a part raises.
"""

from dataclasses import replace

import numpy as np
import pytest

from gapwise.data import writer
from gapwise.data.arrays import TokenArrays
from gapwise.data.store import open_dataset
from gapwise.errors import DataError


def with_split(splits, name, **changes):
    return {**splits, name: replace(splits[name], **changes)}


def with_modality(splits, split, name, **changes):
    modalities = dict(splits[split].modalities)
    modalities[name] = replace(modalities[name], **changes)
    return with_split(splits, split, modalities=modalities)


def test_the_fingerprint_ignores_name_place_and_parts(draw_splits, write, tmp_path):
    first = write(draw_splits(text=True), tmp_path / "a")
    second = write(draw_splits(text=True), tmp_path / "deep" / "b", name="other", groups="speaker", rows_per_part=2)

    assert first.fingerprint == second.fingerprint
    assert len(second.splits["train"].parts) == 4


def change_value(splits):
    values = splits["valid"].modalities["audio"].values.copy()
    values[2, 1] = np.nextafter(values[2, 1], np.float32(9))
    return with_modality(splits, "valid", "audio", values=values)


CHANGES = {
    "one-value": change_value,
    "one-label": lambda s: with_split(s, "test", labels=s["test"].labels + np.eye(5, dtype=np.float32)[0]),
    "one-id": lambda s: with_split(s, "test", ids=["new_1", *s["test"].ids[1:]]),
    "one-group": lambda s: with_split(s, "test", groups=["new", *s["test"].groups[1:]]),
    "one-text": lambda s: with_split(s, "test", raw={"text": ["hm", *s["test"].raw["text"][1:]]}),
    "one-token": lambda s: with_split(
        s, "test", tokens={"text": replace(s["test"].tokens["text"], ids=np.arange(1, 11, dtype=np.int32))}
    ),
    "no-text": lambda s: {name: replace(arrays, raw={}) for name, arrays in s.items()},
    "order": lambda s: {**s, "train": s["train"].rows(0, 6)},
    "name-of-a-modality": lambda s: {
        name: replace(arrays, modalities={"text": arrays.modalities["text"], "sound": arrays.modalities["audio"]})
        for name, arrays in s.items()
    },
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_fingerprint_changes_with_the_content(draw_splits, write, tmp_path, change):
    splits = draw_splits(text=True)

    changed = write(change(splits), tmp_path / "b")

    assert changed.fingerprint != write(splits, tmp_path / "a").fingerprint


def test_the_order_of_modalities_is_no_content(draw_splits, write, tmp_path):
    splits = draw_splits()
    turned = {
        name: replace(arrays, modalities=dict(reversed(arrays.modalities.items()))) for name, arrays in splits.items()
    }

    assert write(splits, tmp_path / "a").fingerprint == write(turned, tmp_path / "b").fingerprint


def test_non_finite_values_become_zero_and_are_counted_by_column(draw_splits, write, tmp_path):
    splits = draw_splits()
    splits["train"].modalities["audio"].values[[0, 2], 1] = [-np.inf, np.nan]
    splits["test"].modalities["audio"].values[0, 1] = np.inf
    splits["test"].modalities["text"].values[0, 4] = np.inf

    manifest = write(splits, tmp_path / "d")

    assert manifest.repaired == {"audio[1]": 3, "text[4]": 1} and manifest.repair_rule == "zero"
    batch = open_dataset(tmp_path / "d", verify=True).train.batch(np.arange(7))
    assert all(values.isfinite().all() for values in batch.values.values())
    assert np.isinf(splits["train"].modalities["audio"].values[0, 1])  # the caller's array is left alone


def test_strict_refuses_non_finite_values(draw_splits, write, tmp_path):
    splits = draw_splits()
    splits["train"].modalities["audio"].values[0, 1] = np.nan

    with pytest.raises(DataError, match=r"audio\[1\] \(1\); strict"):
        write(splits, tmp_path / "d", strict=True)
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "no-test": (lambda s: {"train": s["train"], "valid": s["valid"]}, "exactly train, valid, test"),
    "empty-split": (lambda s: {**s, "valid": s["valid"].rows(0, 0)}, "no samples"),
    "twice-the-same-id": (lambda s: with_split(s, "train", ids=["a_1"] * 7), "'a_1' occurs more than once"),
    "leak": (
        lambda s: with_split(s, "test", ids=[s["train"].ids[0], *s["test"].ids[1:]]),
        "'train_video0_0' is in both train and test",
    ),
    "nan-label": (lambda s: with_split(s, "test", labels=np.full(5, np.nan, np.float32)), "label of row 0 is nan"),
    "too-few-labels": (lambda s: with_split(s, "test", labels=s["test"].labels[:3]), "3 entries for 5 samples"),
    "classes-as-scores": (lambda s: with_split(s, "test", labels=np.zeros(5, np.int64)), "labels of type int64"),
    "too-few-groups": (lambda s: with_split(s, "test", groups=["a"]), "1 entries for 5 samples"),
    "too-few-texts": (lambda s: with_split(s, "test", raw={"text": ["a"]}), "1 entries for 5 samples"),
    "an-empty-id": (lambda s: with_split(s, "test", ids=["", *s["test"].ids[1:]]), "empty string"),
    "text-of-no-modality": (lambda s: with_split(s, "test", raw={"smell": ["a"] * 5}), "'smell'"),
    "offsets-beyond-values": (
        lambda s: with_modality(s, "test", "text", offsets=s["test"].modalities["text"].offsets + 1),
        "do not cut",
    ),
    "falling-tokens": (
        lambda s: with_split(
            s, "test", tokens={"text": TokenArrays(ids=np.zeros(2, np.int32), offsets=np.array([0, 9, 1, 1, 1, 2]))}
        ),
        "do not cut",
    ),
    "present-without-frames": (
        lambda s: with_modality(s, "test", "audio", present=np.ones(5, bool)),
        "row 0 is present with no frame",
    ),
    "absent-with-frames": (
        lambda s: with_modality(s, "test", "text", present=np.zeros(5, bool)),
        "row 0 is absent with frames",
    ),
    "whole-numbers": (
        lambda s: with_modality(s, "test", "text", values=s["test"].modalities["text"].values.astype(int)),
        "values are int64",
    ),
    "other-dim": (
        lambda s: with_modality(s, "test", "text", values=s["test"].modalities["text"].values[:, :2]),
        r"float16\[2\]",
    ),
    "missing-modality": (
        lambda s: with_split(s, "test", modalities={"text": s["test"].modalities["text"]}),
        "test is label float32, text",
    ),
    "reserved-name": (
        lambda s: with_split(s, "test", modalities={"label": s["test"].modalities["text"]}),
        "'label' cannot name a modality",
    ),
    "name-with-plus": (
        lambda s: with_split(s, "test", modalities={"a+b": s["test"].modalities["text"]}),
        r"'a\+b' cannot name a modality",
    ),
    "no-modality": (lambda s: with_split(s, "test", modalities={}), "no modalities"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_content_is_refused_in_one_line_and_leaves_nothing(draw_splits, write, tmp_path, damage, message):
    with pytest.raises(DataError, match=message) as caught:
        write(damage(draw_splits()), tmp_path / "d")

    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_modality_that_no_sample_has_is_refused(draw_splits, write, tmp_path):
    splits = draw_splits()
    for name, arrays in splits.items():
        empty = np.zeros((0, 3), np.float32)
        nothing = {
            "values": empty,
            "offsets": np.zeros(len(arrays) + 1, np.int64),
            "present": np.zeros(len(arrays), bool),
        }
        splits = with_modality(splits, name, "audio", **nothing)

    with pytest.raises(DataError, match="absent from every sample"):
        write(splits, tmp_path / "d")


def test_a_group_in_two_splits_is_allowed_and_counted(draw_splits, write, tmp_path):
    splits = draw_splits()
    splits = with_split(splits, "test", groups=[splits["train"].groups[0], *splits["test"].groups[1:]])

    assert write(splits, tmp_path / "d").groups_shared_between_splits == 1


def test_the_label_range_is_the_smallest_standard_one(draw_splits, write, tmp_path):
    splits = draw_splits()
    scaled = {
        factor: {name: replace(a, labels=a.labels * np.float32(factor)) for name, a in splits.items()}
        for factor in (0.1, 1, 10)
    }
    ranges = {factor: write(content, tmp_path / f"{factor}").label_range for factor, content in scaled.items()}

    assert ranges[0.1] == (-1.0, 1.0) and ranges[1] == (-3.0, 3.0)
    assert ranges[10][0] == pytest.approx(min(a.labels.min() for a in scaled[10].values()))
    assert write(splits, tmp_path / "asked", label_range=(-5.0, 5.0)).label_range == (-5.0, 5.0)
    with pytest.raises(DataError, match="leave the label range"):
        write(splits, tmp_path / "narrow", label_range=(-0.1, 0.1))


def test_classes_are_counted_from_the_labels(draw_splits, write, tmp_path):
    splits = {name: replace(a, labels=np.arange(len(a)) % 3) for name, a in draw_splits().items()}

    manifest = write(splits, tmp_path / "d", task="classification")

    assert manifest.classes == 3 and manifest.label_range == (0.0, 2.0)
    assert open_dataset(tmp_path / "d").train.batch(np.array([4])).labels.tolist() == [1]


def test_writing_the_same_content_again_does_nothing(draw_splits, write, tmp_path):
    first = write(draw_splits(), tmp_path / "d")
    stamp = (tmp_path / "d" / "dataset.json").stat().st_mtime_ns

    assert write(draw_splits(), tmp_path / "d").fingerprint == first.fingerprint
    assert (tmp_path / "d" / "dataset.json").stat().st_mtime_ns == stamp


def test_another_content_never_replaces_a_dataset(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")

    with pytest.raises(DataError, match=r"already holds another dataset.*choose another folder or remove it"):
        write(draw_splits(seed=1), tmp_path / "d")
    open_dataset(tmp_path / "d", verify=True)


def test_the_same_content_under_another_label_range_is_refused(draw_splits, write, tmp_path):
    write(draw_splits(), tmp_path / "d")

    with pytest.raises(DataError, match="label range"):
        write(draw_splits(), tmp_path / "d", label_range=(-4.0, 4.0))


def test_a_folder_with_something_else_in_it_is_left_alone(draw_splits, write, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("dear")

    with pytest.raises(DataError, match="choose another folder"):
        write(draw_splits(), tmp_path / "d")
    assert [entry.name for entry in (tmp_path / "d").iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_filled(draw_splits, write, tmp_path):
    (tmp_path / "d").mkdir()

    write(draw_splits(), tmp_path / "d")

    open_dataset(tmp_path / "d", verify=True)


def test_a_failure_while_writing_leaves_nothing(draw_splits, write, tmp_path, monkeypatch):
    def fail(arrays, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(writer, "write_part", fail)

    with pytest.raises(OSError, match="no space"):
        write(draw_splits(), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_comes_second_in_a_race_accepts_the_same_content(draw_splits, write, tmp_path, monkeypatch):
    real, calls = writer.write_part, []

    def rival_finishes_first(arrays, path):
        if not calls:
            calls.append(path)
            write(draw_splits(), tmp_path / "d")
        real(arrays, path)

    monkeypatch.setattr(writer, "write_part", rival_finishes_first)

    write(draw_splits(), tmp_path / "d")

    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]
