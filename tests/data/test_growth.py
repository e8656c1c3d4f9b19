"""Growth: what an append adds, where it puts it, what it refuses, and what a reader or a crash in the middle sees.

Files to append are npz, drawn from a fixed seed; MMSA and Parquet only where they differ. A crash is a process that
ends inside the append (`os._exit`), so that no clean-up of ours runs; a failure is a function that raises.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gapwise.data import growth
from gapwise.data.arrays import ModalityArrays, SplitArrays
from gapwise.data.check import check
from gapwise.data.fingerprint import sample_digests
from gapwise.data.growth import AppendOptions, append
from gapwise.data.importers import ImportOptions, import_dataset
from gapwise.data.manifest import SPLIT_NAMES, Manifest, SourceRecord, parse_manifest, read_manifest, write_manifest
from gapwise.data.parts import write_part
from gapwise.data.placement import hashed, homes, placed, settled_shares
from gapwise.data.store import open_dataset, opened
from gapwise.data.synth import read_task
from gapwise.data.truth import truth_if_any
from gapwise.data.writer import WriteOptions, write_dataset
from gapwise.errors import DataError

PLAIN = AppendOptions()
ALL_TO_TRAIN = AppendOptions(shares=(1, 0, 0))


def drawn(ids, groups, *, seed=0, dims=None, labels=None):
    random = np.random.default_rng(seed)
    modalities = {}
    for name, dim in (dims or {"audio": 3, "text": 2}).items():
        lengths = random.integers(1, 4, len(ids))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = random.standard_normal((offsets[-1], dim)).astype(np.float32)
        modalities[name] = ModalityArrays(values=values, offsets=offsets, present=np.ones(len(ids), bool))
    labels = random.uniform(-1, 1, len(ids)).astype(np.float32) if labels is None else np.array(labels, np.float32)
    return SplitArrays(ids=ids, groups=groups, labels=labels, modalities=modalities)


def npz(path, splits, *, grouped=True):
    content = {}
    for split, arrays in splits.items():
        content |= {f"{split}/id": np.array(arrays.ids), f"{split}/label": arrays.labels}
        content |= {f"{split}/group": np.array(arrays.groups)} if grouped else {}
        for name, modality in arrays.modalities.items():
            lengths = np.diff(modality.offsets)
            block = np.zeros((len(lengths), lengths.max(), modality.values.shape[1]), modality.values.dtype)
            block[np.arange(block.shape[1]) < lengths[:, None]] = modality.values
            content |= {f"{split}/{name}": block, f"{split}/{name}_lengths": lengths}
    np.savez(path, **content)
    return path


def part(tmp_path, ids, groups, *, split="train", name="part", **changes):
    return npz(tmp_path / f"{name}.npz", {split: drawn(ids, groups, seed=len(ids) + 50, **changes)})


BASE = {
    "train": drawn([f"a{row}" for row in range(6)], ["ann", "ann", "bob", "bob", "cy", "cy"]),
    "valid": drawn(["b0", "b1"], ["dee", "dee"], seed=1),
    "test": drawn(["c0", "c1", "c2"], ["eve", "eve", "flo"], seed=2),
}


def put(splits, out, **changes):
    plain = {"name": "toy", "task": "regression", "groups": "speaker", "label_range": (-3.0, 3.0)}
    return write_dataset(
        splits, out, WriteOptions(**plain | {"source": SourceRecord(file="base", digest="0" * 64)} | changes)
    )


@pytest.fixture
def folder(tmp_path):
    put(BASE, tmp_path / "d")
    return tmp_path / "d"


def contents(folder):
    """Every file by name, the lock aside, which holds nothing."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name != growth.LOCK_FILE}


def where(folder):
    """The split of every sample."""
    dataset = open_dataset(folder)
    return {sample: split for split in SPLIT_NAMES for sample in dataset.split(split, "a test of growth").ids}


# --- what an append adds ----------------------------------------------------------------------------------------------


def test_a_grown_dataset_has_a_new_fingerprint_its_parent_and_parts_that_say_which_step_brought_them(folder, tmp_path):
    before = read_manifest(folder)
    append(part(tmp_path, ["n0", "n1"], ["ann", "eve"], name="may"), folder, "npz", PLAIN)
    between = read_manifest(folder)

    grown = append(part(tmp_path, ["n2"], ["bob"], name="june"), folder, "npz", PLAIN).manifest

    assert grown == read_manifest(folder) and grown.format_version == 2
    assert [step.parent for step in grown.growth] == [before.fingerprint, between.fingerprint]
    assert len({before.fingerprint, between.fingerprint, grown.fingerprint}) == 3
    assert [step.source.file for step in grown.growth] == ["may.npz", "june.npz"]
    assert [dict(step.added) for step in grown.growth] == [
        {"train": 1, "valid": 0, "test": 1},
        {"train": 1, "valid": 0, "test": 0},
    ]
    assert [one.step for one in grown.splits["train"].parts] == [0, 1, 2]
    assert [one.step for one in grown.splits["test"].parts] == [0, 1]
    assert grown.splits["valid"] == before.splits["valid"]
    assert open_dataset(folder, verify=True).train.steps.tolist() == [0] * 6 + [1, 2]


def test_data_that_grew_are_the_same_dataset_as_the_same_rows_imported_at_once(folder, tmp_path):
    fresh = drawn(["n0", "n1", "n2"], ["ann", "gus", "gus"], seed=9)
    append(npz(tmp_path / "p.npz", {"train": fresh}), folder, "npz", AppendOptions(shares=(1, 0, 0), rows_per_part=2))

    grown = open_dataset(folder, verify=True)

    joined = drawn([*BASE["train"].ids, *fresh.ids], [*BASE["train"].groups, *fresh.groups])
    modalities = {
        name: ModalityArrays(
            values=np.concatenate([old.values, fresh.modalities[name].values]),
            offsets=np.concatenate([old.offsets, old.offsets[-1] + fresh.modalities[name].offsets[1:]]),
            present=np.ones(9, bool),
        )
        for name, old in BASE["train"].modalities.items()
    }
    labels = np.concatenate([BASE["train"].labels, fresh.labels])
    once = put({**BASE, "train": replace(joined, modalities=modalities, labels=labels)}, tmp_path / "once")
    assert grown.manifest.fingerprint == once.fingerprint
    assert grown.manifest.modalities == once.modalities and once.format_version == 1
    assert {name: one.groups for name, one in grown.manifest.splits.items()} == {"train": 4, "valid": 1, "test": 2}


def test_the_longest_sample_grows_with_the_data_and_repairs_are_counted_for_the_step_and_in_all(tmp_path):
    base = {name: replace(one, modalities=dict(one.modalities)) for name, one in BASE.items()}
    base["train"].modalities["audio"] = replace(
        base["train"].modalities["audio"], values=base["train"].modalities["audio"].values.copy()
    )
    base["train"].modalities["audio"].values[0, 1] = np.nan
    put(base, tmp_path / "d")
    fresh = drawn(["n0"], ["ann"])
    frames = np.array([[1, np.inf, 0]] * 8, np.float32)
    long = ModalityArrays(values=frames, offsets=np.array([0, 8]), present=np.ones(1, bool))
    file = npz(tmp_path / "p.npz", {"train": replace(fresh, modalities={**fresh.modalities, "audio": long})})

    with pytest.raises(DataError, match=r"strict refuses"):
        append(file, tmp_path / "d", "npz", AppendOptions(strict=True))
    grown = append(file, tmp_path / "d", "npz", PLAIN).manifest

    assert grown.modalities["audio"].max_length == 8
    assert grown.growth[0].repaired == {"audio[1]": 8} and grown.repaired == {"audio[1]": 9}
    batch = open_dataset(tmp_path / "d", verify=True).train.batch(np.array([0, 6]))
    assert batch.values["audio"].shape[1] == 8 and batch.values["audio"].isfinite().all()


def test_old_parts_are_never_touched_and_what_was_opened_before_stays_as_it_was(folder, tmp_path):
    before, opened = contents(folder), open_dataset(folder)
    train = opened.train

    append(part(tmp_path, ["n0"], ["ann"]), folder, "npz", PLAIN)

    after = contents(folder)
    assert {name: after[name] for name in before if name != "dataset.json"} == {
        name: content for name, content in before.items() if name != "dataset.json"
    }
    np.testing.assert_array_equal(train.batch(np.arange(6)).labels.numpy(), BASE["train"].labels)
    assert opened.valid.ids == ["b0", "b1"] and len(train) == 6


def test_a_worker_that_opens_the_data_after_they_grew_refuses_them_where_others_were_begun_with(folder, tmp_path):
    begun_with = open_dataset(folder).manifest.fingerprint
    opened(str(folder), begun_with)
    append(npz(tmp_path / "more.npz", {"train": drawn(["x"], ["g"])}), folder, "npz", ALL_TO_TRAIN)
    opened.cache_clear()  # another process

    with pytest.raises(DataError, match="the dataset changed while it was trained on"):
        opened(str(folder), begun_with)
    assert opened(str(folder))[0].manifest.fingerprint != begun_with


def test_raw_text_and_tokens_of_an_mmsa_part_come_along(mmsa_tree, dump, tmp_path):
    import_dataset(dump(mmsa_tree()), tmp_path / "d", "mmsa", ImportOptions(name="toy"))
    tree = {"valid": mmsa_tree({"valid": 3})["valid"]}
    tree["valid"] |= {"id": ["trainvid0_90", "validvid1_91", "trainvid0_92"], "raw_text": ["x", "y", "z"]}
    kept = tree["valid"]["text_bert"][:, 1].sum(axis=1)

    grown = append(dump(tree, "part.pkl"), tmp_path / "d", "mmsa", PLAIN)

    dataset = open_dataset(tmp_path / "d", verify=True)
    assert dataset.train.ids[-2:] == ["trainvid0_90", "trainvid0_92"] and dataset.train.raw("text")[-2:] == ["x", "z"]
    assert dataset.valid.raw("text")[-1] == "y" and len(dataset.valid.tokens("text")[-1]) == kept[1]
    assert [len(one) for one in dataset.train.tokens("text")[-2:]] == [kept[0], kept[2]]
    assert (grown.placed_elsewhere, grown.new_groups) == (2, 0)


def test_a_parquet_part_may_hold_one_split_alone(folder, tmp_path):
    frames = [[[0.0, 1.0, 2.0]]]
    table = {"id": ["n0"], "split": ["test"], "label": [0.5], "group": ["ann"], "audio": frames, "text": [[[1.0, 2.0]]]}
    kinds = {"audio": pa.list_(pa.list_(pa.float32())), "text": pa.list_(pa.list_(pa.float32()))}
    columns = {name: pa.array(column, kinds.get(name)) for name, column in table.items()}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")

    grown = append(tmp_path / "p.parquet", folder, "parquet", PLAIN)

    assert grown.placed_elsewhere == 1 and where(folder)["n0"] == "train"
    with pytest.raises(DataError, match="sample"):  # an import still needs all three
        import_dataset(tmp_path / "p.parquet", tmp_path / "e", "parquet", ImportOptions(name="toy"))


def test_check_shows_the_parent_and_the_growth(folder, tmp_path):
    parent = check(folder)
    assert parent["parent"] is None and parent["growth"] == []

    append(part(tmp_path, ["n0"], ["ann"], name="may"), folder, "npz", PLAIN)

    found = check(folder)
    assert found["parent"] == parent["fingerprint"] and found["splits"]["train"] == 7
    assert [(step["source"]["file"], step["added"]["train"]) for step in found["growth"]] == [("may.npz", 1)]
    json.dumps(found)


def test_synthetic_data_that_grew_by_other_samples_have_neither_a_task_nor_truth(small, tmp_path):
    folder = shutil.copytree(small, tmp_path / "d")
    before = open_dataset(folder)
    assert read_task(before) is not None and truth_if_any(before.train) is not None
    dims = {name: one.dim for name, one in before.manifest.modalities.items()}

    append(part(tmp_path, ["n0"], ["ann"], dims=dims), folder, "npz", ALL_TO_TRAIN)

    after = open_dataset(folder, verify=True)
    assert read_task(after) is None and truth_if_any(after.train) is None
    assert truth_if_any(after.valid) is not None, "its samples are those that were drawn"


def test_looks_at_the_test_split_before_it_grew_still_count(folder, tmp_path):
    open_dataset(folder).test("a look")
    append(part(tmp_path, ["n0"], ["eve"]), folder, "npz", PLAIN)
    append(part(tmp_path, ["n1"], ["ann"], name="other"), folder, "npz", PLAIN)

    assert open_dataset(folder).exposures() == 1
    open_dataset(folder).test("another")
    assert open_dataset(folder).exposures() == 2


# --- where new samples go ---------------------------------------------------------------------------------------------


def test_samples_of_known_groups_join_their_split_whatever_the_file_says(folder, tmp_path):
    before = where(folder)

    grown = append(part(tmp_path, ["n0", "n1", "n2"], ["eve", "dee", "cy"], split="valid"), folder, "npz", PLAIN)

    after = where(folder)
    assert {sample: after[sample] for sample in before} == before
    assert [after[one] for one in ("n0", "n1", "n2")] == ["test", "valid", "train"]
    assert (grown.placed_elsewhere, grown.new_groups) == (2, 0)


@pytest.mark.parametrize(("shared", "joined"), [(("train", "test"), "train"), (("valid", "test"), "valid")])
def test_a_group_in_several_splits_is_joined_in_the_first_so_that_no_further_split_sees_it(tmp_path, shared, joined):
    splits = {
        name: replace(one, groups=["both", *one.groups[1:]]) if name in shared else one for name, one in BASE.items()
    }
    put(splits, tmp_path / "d")

    append(part(tmp_path, ["n0"], ["both"]), tmp_path / "d", "npz", PLAIN)

    assert where(tmp_path / "d")["n0"] == joined


def test_unknown_groups_are_placed_by_the_groups_of_the_import_and_stay_so(folder, tmp_path):
    names = [f"g{number}" for number in range(40)]
    for month, mine in (("may", names[:20]), ("june", names[20:])):
        append(part(tmp_path, [f"{month}-{one}" for one in mine], mine, name=month), folder, "npz", PLAIN)

    manifest, found = read_manifest(folder), where(folder)

    assert [dict(step.shares) for step in manifest.growth] == [{"train": 3, "valid": 1, "test": 2}] * 2
    assert {found[f"{'may' if number < 20 else 'june'}-{one}"] for number, one in enumerate(names)} == set(SPLIT_NAMES)
    for number, one in enumerate(names):
        assert found[f"{'may' if number < 20 else 'june'}-{one}"] == hashed(one, manifest.growth[0].shares)


def test_shares_are_fixed_by_the_first_append(folder, tmp_path):
    append(part(tmp_path, ["n0"], ["gus"], name="may"), folder, "npz", AppendOptions(shares=(8, 2, 0)))
    before = contents(folder)

    with pytest.raises(DataError, match=r"fixed by the first append \(allowed: 4 1 0\)"):
        append(part(tmp_path, ["n1"], ["hal"], name="june"), folder, "npz", AppendOptions(shares=(1, 1, 1)))
    assert contents(folder) == before
    append(part(tmp_path, ["n1"], ["hal"], name="june"), folder, "npz", AppendOptions(shares=(4, 1, 0)))


@pytest.mark.parametrize("shares", [(0, 0, 0), (2, -1, 1)])
def test_shares_that_cannot_be_are_refused(folder, shares):
    with pytest.raises(DataError, match="three whole numbers from 0, not all 0"):
        settled_shares(read_manifest(folder), shares)


def test_the_hash_is_the_same_for_ever():
    shares = {"train": 2, "valid": 1, "test": 1}

    found = [hashed(name, shares) for name in ("ann", "bob", "Zoë", "", "speaker 12", "x")]

    assert found == ["test", "valid", "train", "train", "valid", "train"], (
        "a changed hash would put a known speaker's twin dataset into another split"
    )


def test_unknown_groups_are_spread_by_the_weights():
    shares = {"train": 7, "valid": 1, "test": 2}
    count = 20000

    found = placed([f"group {number}" for number in range(count)], {}, shares)

    for name, weight in shares.items():  # 5 standard deviations of a binomial count
        assert abs(found.count(name) - count * weight / 10) < 5 * np.sqrt(count * 0.25)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4)


@settings(deadline=None, derandomize=True)
@given(
    known=st.dictionaries(names, st.sets(st.sampled_from(SPLIT_NAMES), min_size=1), max_size=4),
    parts=st.lists(st.lists(names, min_size=1, max_size=5), min_size=1, max_size=4),
    weights=st.tuples(*[st.integers(0, 5)] * 3).filter(any),
    order=st.randoms(use_true_random=False),
)
def test_a_group_lands_in_one_split_whatever_part_brings_it_and_in_whatever_order(known, parts, weights, order):
    shares = dict(zip(SPLIT_NAMES, weights, strict=True))

    def grow(arriving):
        groups = {name: {group for group, splits in known.items() if name in splits} for name in SPLIT_NAMES}
        for one in arriving:
            for group, split in zip(one, placed(one, homes(groups), shares), strict=True):
                groups[split].add(group)
        return groups

    grown = grow(parts)
    shuffled = [order.sample(one, len(one)) for one in order.sample(parts, len(parts))]

    assert grow(shuffled) == grown
    for group in {group for one in parts for group in one}:
        splits = {name for name in SPLIT_NAMES if group in grown[name]}
        assert splits == known.get(group, splits) and (group in known or len(splits) == 1)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    groups=st.lists(st.sampled_from(["ann", "eve", "ned", "oda", "pia"]), min_size=2, max_size=6), cut=st.integers(1, 5)
)
def test_no_speaker_leaks_on_disk_whatever_is_appended_in_whatever_order(groups, cut):
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        ids = [f"n{row}" for row in range(len(groups))]
        cut = min(cut, len(groups) - 1)
        halves = [(ids[:cut], groups[:cut], "one"), (ids[cut:], groups[cut:], "two")]
        found = []
        for turn, ordered in enumerate((halves, halves[::-1])):
            put(BASE, root / f"d{turn}")
            for some, of, name in ordered:
                append(part(root, some, of, name=name), root / f"d{turn}", "npz", PLAIN)
            dataset = open_dataset(root / f"d{turn}", verify=True)
            found.append(where(root / f"d{turn}"))
            assert dataset.manifest.groups_shared_between_splits == 0
            by_split = [set(dataset.split(name, "a test of growth").groups) for name in SPLIT_NAMES]
            assert sum(map(len, by_split)) == len(set.union(*by_split))
        assert found[0] == found[1]


# --- refusals ---------------------------------------------------------------------------------------------------------


def labelled(label):
    return {"labels": [label, 0.0]}


REFUSED = {
    "other-modality": ({"dims": {"audio": 3, "smell": 2}}, {}, r"smell float32\[2\] but the dataset is .*text"),
    "one-modality-less": ({"dims": {"audio": 3}}, {}, r"it is label float32, audio float32\[3\] but"),
    "one-modality-more": ({"dims": {"audio": 3, "smell": 1, "text": 2}}, {}, "smell"),
    "other-dims": ({"dims": {"audio": 4, "text": 2}}, {}, r"audio float32\[4\].*audio float32\[3\]"),
    "label-beyond-the-range": (labelled(3.5), {}, r"labels are 0 to 3.5 \(allowed: -3 to 3\)"),
    "label-below-the-range": (labelled(-4), {}, r"labels are -4 to 0"),
    "label-missing": (labelled(np.nan), {}, "label of row 0 is nan"),
    "an-id-twice": ({}, {"ids": ["n0", "n0"]}, "'n0' occurs more than once"),
    "a-known-id": ({}, {"ids": ["n0", "c1"]}, r"'c1' is in the dataset already, in test; 1 of 2 are"),
    "all-ids-known": ({}, {"ids": ["a1", "c1"]}, "all of its 2 samples are in the dataset already"),
}


@pytest.mark.parametrize(("changes", "rows", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_part_that_does_not_fit_is_refused_in_one_line_and_changes_nothing(folder, tmp_path, changes, rows, said):
    before = contents(folder)
    file = part(tmp_path, rows.get("ids", ["n0", "n1"]), ["ann", "new"], **changes)

    with pytest.raises(DataError, match=said) as caught:
        append(file, folder, "npz", PLAIN)

    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
    assert contents(folder) == before


def test_an_id_in_two_splits_of_the_part_is_refused(folder, tmp_path):
    file = npz(tmp_path / "p.npz", {"train": drawn(["n0"], ["ann"]), "test": drawn(["n0"], ["ann"])})

    with pytest.raises(DataError, match="'n0' is in both train and test"):
        append(file, folder, "npz", PLAIN)


def test_classes_and_text_must_be_those_of_the_dataset(mmsa_tree, dump, tmp_path):
    put(
        {name: replace(one, labels=np.arange(len(one)) % 3) for name, one in BASE.items()},
        tmp_path / "c",
        task="classification",
        label_range=None,
    )
    with pytest.raises(DataError, match=r"labels are 0 to 3 \(allowed: 0 to 2\)"):
        append(part(tmp_path, ["n0", "n1"], ["x", "y"], labels=[0, 3]), tmp_path / "c", "npz", PLAIN)
    with pytest.raises(DataError, match="class labels are not whole"):
        append(part(tmp_path, ["n0", "n1"], ["x", "y"], labels=[0.5, 1]), tmp_path / "c", "npz", PLAIN)

    import_dataset(dump(mmsa_tree()), tmp_path / "d", "mmsa", ImportOptions(name="toy"))
    for key, said in (
        ("raw_text", r"it is .*text float16\[5\] tokens"),
        ("text_bert", r"it is .*text float16\[5\] raw"),
    ):
        inside = mmsa_tree({"train": 1})["train"] | {"id": ["fresh_1"]}
        del inside[key]
        with pytest.raises(DataError, match=said):
            append(dump({"train": inside}, "part.pkl"), tmp_path / "d", "mmsa", PLAIN)


def test_a_part_without_groups_is_refused_where_the_dataset_has_them_for_a_speaker_would_leak(folder, tmp_path):
    file = npz(tmp_path / "p.npz", {"train": drawn(["n0"], ["ann"])}, grouped=False)

    with pytest.raises(DataError, match=r"a group is 'sample: each id is its own group' here but 'speaker'"):
        append(file, folder, "npz", PLAIN)


def test_a_file_is_taken_in_once(tmp_path):
    base = npz(tmp_path / "base.npz", BASE)
    import_dataset(base, tmp_path / "d", "npz", ImportOptions(name="toy"))
    may = part(tmp_path, ["n0"], ["ann"], name="may")
    append(may, tmp_path / "d", "npz", PLAIN)
    before = contents(tmp_path / "d")

    for file, said in (
        (may, r"may\.npz: was appended before \(step 1\)"),
        (base, "the file that the dataset was imported"),
    ):
        with pytest.raises(DataError, match=said):
            append(file, tmp_path / "d", "npz", PLAIN)
    assert contents(tmp_path / "d") == before


@pytest.mark.parametrize(
    ("file", "kind", "said"),
    [("none.npz", "npz", "no such file"), ("x.csv", "csv", "unknown format"), ("empty.npz", "npz", "holds no split")],
)
def test_a_file_that_is_none_is_refused(folder, tmp_path, file, kind, said):
    (tmp_path / "x.csv").write_text("a,b")
    np.savez(tmp_path / "empty.npz", nothing=np.zeros(1))

    with pytest.raises(DataError, match=said):
        append(tmp_path / file, folder, kind, PLAIN)


def test_a_folder_without_a_dataset_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "d").mkdir()

    with pytest.raises(DataError, match="not a gapwise dataset"):
        append(part(tmp_path, ["n0"], ["ann"]), tmp_path / "d", "npz", PLAIN)
    assert list((tmp_path / "d").iterdir()) == []


def test_damaged_data_do_not_grow(folder, tmp_path):
    file = folder / "train-00000.arrow"
    content, value = bytearray(file.read_bytes()), BASE["train"].modalities["audio"].values[0].tobytes()
    content[content.index(value)] ^= 1
    file.write_bytes(bytes(content))
    before = contents(folder)

    with pytest.raises(DataError, match=r"train-00000\.arrow: the content no longer matches"):
        append(part(tmp_path, ["n0"], ["ann"]), folder, "npz", PLAIN)
    assert contents(folder) == before


# --- one at a time, whole or not at all -------------------------------------------------------------------------------


def test_a_second_append_at_the_same_time_is_refused(folder, tmp_path):
    with (folder / growth.LOCK_FILE).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("process 12")
        other.flush()
        with pytest.raises(DataError, match="process 12 is appending to this dataset"):
            append(part(tmp_path, ["n0"], ["ann"]), folder, "npz", PLAIN)
    append(part(tmp_path, ["n0"], ["ann"]), folder, "npz", PLAIN)


@pytest.mark.parametrize("failing", ["write_part", "write_manifest"])
def test_a_failure_leaves_the_old_dataset_and_nothing_else(folder, tmp_path, monkeypatch, failing):
    def fail(what, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(growth, failing, fail)
    before = contents(folder)

    with pytest.raises(OSError, match="no space"):
        append(part(tmp_path, ["n0", "n1"], ["ann", "eve"]), folder, "npz", PLAIN)
    assert contents(folder) == before


DYING = """
import os, sys
from pathlib import Path
from gapwise.data import growth
real, calls = growth.{dies_in}, []
def dying(*words):
    if len(calls) == {after}:
        os._exit(9)
    calls.append(real(*words))
growth.{dies_in} = dying
growth.append(Path(sys.argv[1]), Path(sys.argv[2]), "npz", growth.AppendOptions())
"""


@pytest.mark.parametrize(("dies_in", "after"), [("write_part", 1), ("flush", 0), ("write_manifest", 0)])
def test_a_death_in_the_middle_leaves_the_old_dataset_and_the_next_append_cleans_up(folder, tmp_path, dies_in, after):
    before, file = read_manifest(folder), part(tmp_path, ["n0", "n1"], ["ann", "eve"])
    (folder / "notes.arrow").write_text("not ours")
    script = DYING.format(dies_in=dies_in, after=after)
    command = [sys.executable, "-c", script, str(file), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "platform")}

    assert subprocess.run(command, env=environment, check=False).returncode == 9

    left = set(contents(folder)) - {"dataset.json", "notes.arrow", *(f"{name}-00000.arrow" for name in SPLIT_NAMES)}
    assert left, "the death left nothing to clean up"
    assert open_dataset(folder, verify=True).manifest == before
    append(file, folder, "npz", PLAIN)
    named = {one.file for split in read_manifest(folder).splits.values() for one in split.parts}
    assert set(contents(folder)) == named | {"dataset.json", "notes.arrow"}
    open_dataset(folder, verify=True)


def test_the_manifest_is_replaced_after_all_parts_are_there(folder, tmp_path, monkeypatch):
    seen = []

    def look(manifest, at):
        seen.append({one.file for split in manifest.splits.values() for one in split.parts} <= set(contents(at)))
        write_manifest(manifest, at)

    monkeypatch.setattr(growth, "write_manifest", look)

    append(part(tmp_path, ["n0", "n1"], ["ann", "eve"]), folder, "npz", PLAIN)

    assert seen == [True]


# --- the manifest -----------------------------------------------------------------------------------------------------

VERSION_1 = """{
  "format_version": 1, "name": "old", "task": "regression", "label_range": [-1.0, 1.0], "classes": 0,
  "modalities": {"audio": {"dim": 2, "max_length": 1, "dtype": "float32", "raw": false, "tokens": false}},
  "groups": "speaker", "groups_shared_between_splits": 0,
  "splits": {
    "train": {"samples": 3, "groups": 2, "parts": [{"file": "train-00000.arrow", "samples": 3,
      "digest": "ad675ea268d51ad996adb8d0de96a67f1b9f6af5ea0c3534508648422925156e"}],
      "fingerprint": "61d6f1ddf657ec54027cb3af684093114688f7ddfce7d7baf7229a57da9479ad"},
    "valid": {"samples": 2, "groups": 1, "parts": [{"file": "valid-00000.arrow", "samples": 2,
      "digest": "f719a419c9fbf01a614cbd1b43f73cf0a63b8bd897dbdd4a5b4503e137905036"}],
      "fingerprint": "3e89ac4e91a05893ddfd4e042cf01aee2ff939bb3daf007cf645a8ef548c7034"},
    "test": {"samples": 1, "groups": 1, "parts": [{"file": "test-00000.arrow", "samples": 1,
      "digest": "05f14165edc0b66c8b7aecfb4741e7f7248c08ba569321705a807bc57afe109f"}],
      "fingerprint": "432738ef625649582c4106e3b4e442fd113ae1a999f584afdf732ba73b2dbb8d"}
  },
  "fingerprint": "fa6688dcb6a31070aaeefba1cb2520d5fac8de85dc6244a0489c58344a1cd92b",
  "source": {"file": "old.npz", "digest": "0000000000000000000000000000000000000000000000000000000000000000"},
  "repaired": {}, "repair_rule": "zero",
  "manifest_digest": "f2dfa5973fe9f39a49ecf87b87f42801a40646f1984d8a01abc93f91b94f2d6b"
}"""
"""As gapwise wrote it before datasets could grow."""


def old_split(name, samples):
    frames = np.arange(2 * samples, dtype=np.float32).reshape(samples, 2)
    audio = ModalityArrays(values=frames, offsets=np.arange(samples + 1), present=np.ones(samples, bool))
    return SplitArrays(
        ids=[f"{name}{row}" for row in range(samples)],
        groups=[f"{name}-speaker{row // 2}" for row in range(samples)],
        labels=np.arange(samples, dtype=np.float32) / 4,
        modalities={"audio": audio},
    )


OLD = {name: old_split(name, samples) for name, samples in {"train": 3, "valid": 2, "test": 1}.items()}


def test_a_version_1_folder_is_read_as_before_and_can_grow(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "dataset.json").write_text(VERSION_1)
    for name, arrays in OLD.items():
        write_part(arrays, folder / f"{name}-00000.arrow")

    dataset = open_dataset(folder, verify=True)

    assert dataset.manifest.fingerprint.startswith("fa6688dcb6a3") and dataset.manifest.growth == ()
    assert dataset.train.ids == ["train0", "train1", "train2"]
    append(part(tmp_path, ["n0"], ["train-speaker1"], dims={"audio": 2}), folder, "npz", PLAIN)
    assert open_dataset(folder, verify=True).manifest.growth[0].parent == dataset.manifest.fingerprint


def test_a_dataset_that_never_grew_is_written_as_before(tmp_path):
    put(OLD, tmp_path / "d", name="old", source=SourceRecord(file="old.npz", digest="0" * 64), label_range=None)

    assert json.loads((tmp_path / "d" / "dataset.json").read_text()) == json.loads(VERSION_1)


def test_steps_since_an_ancestor_are_those_that_came_after_it(folder, tmp_path):
    first = read_manifest(folder).fingerprint
    append(part(tmp_path, ["n0"], ["ann"], name="may"), folder, "npz", PLAIN)
    second = read_manifest(folder).fingerprint
    append(part(tmp_path, ["n1"], ["ann"], name="june"), folder, "npz", PLAIN)
    manifest = read_manifest(folder)

    assert list(manifest.steps_since(first)) == [1, 2]
    assert list(manifest.steps_since(second)) == [2]
    assert list(manifest.steps_since(manifest.fingerprint)) == []
    with pytest.raises(DataError, match="did not grow out of a dataset 000000000000"):
        manifest.steps_since("0" * 64)


def untrue(manifest: Manifest) -> dict[str, Manifest]:
    step = manifest.growth[0]
    moved = {
        **manifest.splits,
        "train": manifest.splits["train"].model_copy(
            update={
                "parts": tuple(one.model_copy(update={"step": one.step * 3}) for one in manifest.splits["train"].parts)
            }
        ),
    }
    return {
        "1 with 1 growth steps": manifest.model_copy(update={"format_version": 1}),
        "2 with 0 growth steps": manifest.model_copy(update={"growth": ()}),
        "disagrees with the parts of splits.train": manifest.model_copy(
            update={"growth": (step.model_copy(update={"added": {**step.added, "train": 5}}),)}
        ),
        "disagrees with the parts of splits": manifest.model_copy(update={"splits": moved}),
    }


def test_a_history_that_does_not_fit_the_parts_is_refused(folder, tmp_path):
    grown = append(part(tmp_path, ["n0"], ["ann"]), folder, "npz", PLAIN).manifest
    for said, wrong in untrue(grown).items():
        write_manifest(wrong, folder)
        with pytest.raises(DataError, match=said):
            parse_manifest((folder / "dataset.json").read_bytes(), "here")


def test_rows_that_are_taken_keep_their_content():
    arrays = BASE["train"]
    rows = np.array([4, 0, 3])

    taken = arrays.take(rows)

    assert sample_digests(taken) == [sample_digests(arrays)[row] for row in rows]
