"""A source seen from outside: what a look costs, and that a snapshot is whole, frozen, linked and one dataset.

The source is a local folder, reached by path, as `file://`, or as pyarrow's SubTreeFileSystem, which stands in for an
object store: no local path leads into it. S3 itself was tried by hand against a moto server; here nothing leaves the
machine. A producer in the middle of a copy is an append that runs between two reads of the copier.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest

from gapwise.data import source
from gapwise.data.growth import AppendOptions, append
from gapwise.data.manifest import read_manifest
from gapwise.data.source import Snapshot, drop, peek, snapshot, snapshots, snapshots_to_drop
from gapwise.data.store import open_dataset
from gapwise.errors import DataError

PLATFORM = Path(__file__).parents[2] / "platform"


@pytest.fixture
def producer(draw_splits, write, tmp_path):
    """A dataset, and `grow(name)`, which appends one sample to its training split."""
    write(draw_splits({"audio": (3, np.float32)}), tmp_path / "source")

    def grow(name):
        frames = np.ones((1, 2, 3), np.float32)
        columns = {"id": np.array([name]), "group": np.array(["train_video0"]), "label": np.zeros(1), "audio": frames}
        np.savez(tmp_path / f"{name}.npz", **{f"train/{key}": column for key, column in columns.items()})
        return append(tmp_path / f"{name}.npz", tmp_path / "source", "npz", AppendOptions()).manifest

    return tmp_path / "source", grow


def remote(folder):
    """The folder as a file system of its own."""
    inside = pafs.SubTreeFileSystem(str(folder.parent), pafs.LocalFileSystem())
    return source.Place(filesystem=inside, folder=folder.name, shown="store://bucket/data")


@pytest.fixture(params=["path", "file-uri", "other-file-system"])
def uri(request, producer, monkeypatch):
    folder, _ = producer
    if request.param == "other-file-system":
        monkeypatch.setattr(source, "located", lambda uri: remote(folder))
        return "store://bucket/data"
    return folder.as_uri() if request.param == "file-uri" else str(folder)


def files(folder):
    return {entry.name for entry in folder.iterdir()}


# --- a look -----------------------------------------------------------------------------------------------------------


def test_a_look_gives_the_fingerprint_and_follows_the_growth(producer, uri):
    _, grow = producer

    first = peek(uri)
    manifest = grow("n0")

    assert (first, peek(uri)) == (manifest.growth[0].parent, manifest.fingerprint)


def test_a_look_reads_the_manifest_alone(producer):
    folder, _ = producer
    expected = read_manifest(folder).fingerprint
    for part in folder.glob("*.arrow"):
        part.unlink()

    assert peek(str(folder)) == expected


def test_a_look_and_a_snapshot_load_neither_torch_nor_ray(producer, tmp_path):
    script = (
        "import sys; from pathlib import Path; from gapwise.data.source import peek, snapshot\n"
        "peek(sys.argv[1]); snapshot(sys.argv[1], Path(sys.argv[2]))\n"
        "sys.exit(','.join(sorted({'torch', 'ray', 'mlflow', 'optuna', 'sklearn'} & set(sys.modules))) or 0)"
    )
    command = [sys.executable, "-c", script, str(producer[0]), str(tmp_path / "store")]

    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PLATFORM)}, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


# --- a snapshot -------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_the_whole_dataset_under_its_fingerprint(producer, uri, tmp_path):
    folder, grow = producer
    grow("n0")

    made = snapshot(uri, tmp_path / "store")

    assert made == tmp_path / "store" / peek(uri)
    copied = open_dataset(made, verify=True)
    assert copied.manifest == read_manifest(folder)
    assert copied.train.ids == open_dataset(folder).train.ids
    assert files(tmp_path / "store") == {made.name, source.LOCK_FILE}


def test_a_snapshot_stays_as_it_is_while_the_source_grows(producer, uri, tmp_path):
    _, grow = producer
    made = snapshot(uri, tmp_path / "store")
    before = {name: (made / name).read_bytes() for name in files(made) if name.endswith((".arrow", ".json"))}

    grow("n0")
    later = snapshot(uri, tmp_path / "store")

    assert later != made
    assert {name: (made / name).read_bytes() for name in before} == before
    assert len(open_dataset(later, verify=True).train) == len(open_dataset(made, verify=True).train) + 1


def test_a_snapshot_that_was_made_before_is_not_made_again(producer, tmp_path):
    folder, _ = producer
    made = snapshot(str(folder), tmp_path / "store")
    stamp = (made / "dataset.json").stat().st_mtime_ns
    for part in folder.glob("*.arrow"):
        part.unlink()

    assert snapshot(str(folder), tmp_path / "store") == made
    assert (made / "dataset.json").stat().st_mtime_ns == stamp


def test_parts_that_an_earlier_snapshot_has_are_linked_and_not_fetched(producer, tmp_path, monkeypatch):
    folder, grow = producer
    first, fetched, real = snapshot(str(folder), tmp_path / "store"), [], source._chunks
    grow("n0")
    monkeypatch.setattr(source, "_chunks", lambda place, name: (fetched.append(name), real(place, name))[1])

    second = snapshot(str(folder), tmp_path / "store")

    assert fetched == ["dataset.json", "train-00001.arrow"]
    for name in ("train-00000.arrow", "valid-00000.arrow", "test-00000.arrow"):
        assert (second / name).samefile(first / name)


def test_a_part_of_the_same_name_with_another_content_is_fetched(producer, draw_splits, write, tmp_path):
    folder, _ = producer
    first = snapshot(str(folder), tmp_path / "store")
    write(draw_splits({"audio": (3, np.float32)}, seed=1), tmp_path / "other")

    second = snapshot(str(tmp_path / "other"), tmp_path / "store")

    assert not (second / "train-00000.arrow").samefile(first / "train-00000.arrow")
    open_dataset(second, verify=True)


def test_an_earlier_snapshot_that_was_damaged_since_is_not_believed(producer, tmp_path):
    folder, grow = producer
    first = snapshot(str(folder), tmp_path / "store")
    damage(first / "train-00000.arrow")
    grow("n0")

    second = snapshot(str(folder), tmp_path / "store")

    open_dataset(second, verify=True)
    assert not (second / "train-00000.arrow").samefile(first / "train-00000.arrow")


def damage(part):
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))


@pytest.mark.parametrize("after", ["dataset.json", "train-00000.arrow", "test-00000.arrow"])
def test_an_append_in_the_middle_of_the_copy_gives_the_old_dataset_whole(producer, tmp_path, monkeypatch, after):
    folder, grow = producer
    old, real = peek(str(folder)), source._chunks

    def growing(place, name):
        yield from real(place, name)
        if name == after:
            grow("n0")

    monkeypatch.setattr(source, "_chunks", growing)
    made = snapshot(str(folder), tmp_path / "store")

    monkeypatch.setattr(source, "_chunks", real)
    assert peek(str(folder)) != old
    assert open_dataset(made, verify=True).manifest.fingerprint == old == made.name


def test_content_that_does_not_match_its_digest_makes_no_snapshot(producer, uri, tmp_path):
    damage(producer[0] / "valid-00000.arrow")

    with pytest.raises(DataError) as caught:
        snapshot(uri, tmp_path / "store")

    assert "valid-00000.arrow" in str(caught.value) and "partial" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "store") == {source.LOCK_FILE}


def test_a_source_that_disappears_in_the_middle_makes_no_snapshot(producer, uri, tmp_path):
    (producer[0] / "test-00000.arrow").unlink()

    with pytest.raises(DataError, match=r"no test-00000\.arrow here"):
        snapshot(uri, tmp_path / "store")
    assert files(tmp_path / "store") == {source.LOCK_FILE}


def test_what_a_dead_copier_left_is_removed(producer, tmp_path):
    torn = tmp_path / "store" / f".{'0' * 64}.partial"
    torn.mkdir(parents=True)
    (torn / "train-00000.arrow").write_text("half")

    made = snapshot(str(producer[0]), tmp_path / "store")

    assert files(tmp_path / "store") == {made.name, source.LOCK_FILE}


def test_looks_at_the_test_split_are_counted_over_all_snapshots_and_outlive_them(producer, tmp_path):
    folder, grow = producer
    first = snapshot(str(folder), tmp_path / "store")
    open_dataset(first).test("a look")
    grow("n0")
    second = snapshot(str(folder), tmp_path / "store")

    drop(tmp_path / "store", [one for one in snapshots(tmp_path / "store") if one.path == first])

    assert not first.exists()
    assert open_dataset(second, verify=True).exposures() == 1
    open_dataset(second).test("another")
    assert open_dataset(second).exposures() == 2


# --- which snapshots go -----------------------------------------------------------------------------------------------


def known(*names):
    """Made in this order, one nanosecond apart."""
    return [Snapshot(path=Path(name), fingerprint=name, made_ns=when) for when, name in enumerate(names)]


@pytest.mark.parametrize(
    ("keep", "in_use", "gone"),
    [
        (2, (), ["b", "a"]),
        (4, (), []),
        (9, (), []),
        (1, ("a", "c"), ["b"]),
        (0, ("d",), ["c", "b", "a"]),
        (0, (), ["d", "c", "b", "a"]),
        (-1, (), ["d", "c", "b", "a"]),
    ],
)
def test_all_but_the_newest_and_those_in_use_are_dropped(keep, in_use, gone):
    there = known("a", "b", "c", "d")

    assert [one.fingerprint for one in snapshots_to_drop(there[::-1], keep, in_use)] == gone


def test_snapshots_are_listed_newest_first_and_nothing_else_is(producer, tmp_path):
    folder, grow = producer
    store = tmp_path / "store"
    assert snapshots(store) == []
    made = [snapshot(str(folder), store)]
    grow("n0")
    made.append(snapshot(str(folder), store))
    os.utime(made[0] / "dataset.json", ns=(0, time.time_ns() + 10**12))
    (store / "notes").mkdir()
    (store / ("0" * 64)).mkdir()  # no manifest: nothing complete

    assert [one.path for one in snapshots(store)] == made


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [peek, lambda uri: snapshot(uri, Path("store"))], ids=["peek", "snapshot"])
def test_a_place_that_is_not_there_is_refused_in_one_line(tmp_path, monkeypatch, look):
    monkeypatch.chdir(tmp_path)
    for uri in (str(tmp_path / "gone"), (tmp_path / "gone").as_uri(), ""):
        with pytest.raises(DataError, match=r"no dataset\.json here") as caught:
            look(uri)
        assert str(caught.value).startswith(uri or ".") and "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_manifest_that_is_none_is_refused_naming_the_place(producer):
    folder, _ = producer
    (folder / "dataset.json").write_text("{")

    with pytest.raises(DataError, match="cannot be read") as caught:
        peek(folder.as_uri())
    assert str(caught.value).startswith(f"{folder.as_uri()}/dataset.json")


def test_an_unknown_scheme_is_refused_naming_those_that_are_known():
    with pytest.raises(DataError, match=r"s4://bucket/x: unknown scheme 's4' \(allowed: a local path, file://, s3://"):
        peek("s4://bucket/x")


@pytest.mark.parametrize(
    "uri",
    [
        "s4://AKIAKEY:pass%2Fword@bucket/data",
        "s3://AKIAKEY:pass/word@bucket/data",  # not encoded, as people paste it
        "s3://AKIAKEY:pass%2Fword@bucket/data?nonsense=1",
        "abfs://:pass%2Fword@bucket/data?nonsense=1",
        "abfs://bucket/data?client_secret=pass%2Fword&nonsense=1",
        "gs://AKIAKEY:pass%2Fword@bucket/data",
    ],
)
def test_no_message_shows_a_secret(uri):
    with pytest.raises(DataError) as caught:
        peek(uri)

    said = str(caught.value)
    assert said.startswith(f"{uri[: uri.index(':')]}://bucket/data: ") and "\n" not in said
    assert not [piece for piece in ("AKIAKEY", "pass%2Fword", "pass/word", "pass", "word") if piece in said]


class Refusing:
    """A file system that says what an object store says, secrets and all, on several lines."""

    def open_input_stream(self, path):
        raise OSError(f"AWS Error ACCESS_DENIED for {path}\nwith AKIAKEY and pass/word; {'x' * 5000}")


def test_what_the_file_system_says_is_one_line_without_secrets(monkeypatch):
    shown, secrets = source._without_secrets("s3://AKIAKEY:pass%2Fword@bucket/data?region=eu")
    place = source.Place(filesystem=Refusing(), folder="bucket/data", shown=shown, secrets=secrets)
    monkeypatch.setattr(source, "located", lambda uri: place)

    with pytest.raises(DataError) as caught:
        peek("s3://")

    said = str(caught.value)
    assert said.startswith(
        "s3://bucket/data: dataset.json cannot be read: AWS Error ACCESS_DENIED for bucket/data/data"
    )
    assert "\n" not in said and "AKIAKEY" not in said and "pass/word" not in said and len(said) < 500


def test_a_full_disk_here_is_not_the_source_s_fault(producer, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(source, "flush", full)

    with pytest.raises(OSError, match="No space left") as caught:
        snapshot(str(producer[0]), tmp_path / "store")
    assert not isinstance(caught.value, DataError)
    assert files(tmp_path / "store") == {source.LOCK_FILE}
