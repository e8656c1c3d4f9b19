"""A place that producers append to, seen by those who train: a look at its fingerprint, and a frozen copy of it.

The place is a local folder or a URI of any file system that pyarrow knows (`file://`, `s3://`, `gs://`, `abfs://`,
`hdfs://`); region, endpoint and credentials come from the URI's parameters and the environment as pyarrow reads them.
`peek` reads the manifest and nothing else. `snapshot` copies what that one manifest names: parts never change and never
go, so an append in the middle gives the old dataset or the new one, never a mixture. A part that an earlier snapshot
holds is linked, not fetched again. Everything is held against its digest before the copy gets its name.

It needs neither torch nor ray, for a schedule looks often and trains seldom. No message shows what may be a secret: the
user information and the parameters of a URI.

Whoever fills an object store by copying a folder sends the parts first and `dataset.json` last.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
import pyarrow.fs as pafs  # type: ignore[import-untyped,unused-ignore]

from gapwise.data.durable import flush
from gapwise.data.exposure import EXPOSURE_FILE
from gapwise.data.fingerprint import split_fingerprint
from gapwise.data.lock import alone
from gapwise.data.manifest import MANIFEST_FILE, Manifest, PartRecord, parse_manifest, read_manifest
from gapwise.data.parts import Part, open_part
from gapwise.data.verify import verified_digests, verify_overall
from gapwise.errors import DataError

LOCK_FILE = ".snapshot.lock"
_SCHEMES = ("a local path", "file://", "s3://", "gs://", "abfs://", "hdfs://")
_BYTES_AT_ONCE = 1 << 22
_LONGEST = 300
_SECRET_KEY = re.compile("key|secret|token|pass|sig|cred", re.IGNORECASE)
_FINGERPRINT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder of some file system, and how messages call it."""

    filesystem: Any
    folder: str
    shown: str
    secrets: tuple[str, ...] = ()
    """What a message of a library may repeat and ours must not."""

    def file(self, name: str) -> str:
        return f"{self.folder.rstrip('/')}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A complete copy in a store."""

    path: Path
    fingerprint: str
    made_ns: int
    """When, in nanoseconds since 1970 by this machine's clock."""


def peek(uri: str) -> str:
    """The fingerprint of the dataset that is there now, from its manifest alone.

    Raises DataError if the place cannot be reached or holds no dataset.
    """
    return manifest_at(uri).fingerprint


def manifest_at(uri: str) -> Manifest:
    """The manifest of the dataset that is there now. Raises as `peek`."""
    return _manifest(located(uri))[0]


def snapshot(uri: str, store: Path) -> Path:
    """A frozen, verified copy of what is there now: `store/FINGERPRINT`; at once if it was made before.

    One at a time in a store; another waits. Raises DataError if the place cannot be reached, holds no dataset, or holds
    content that does not match its digests.
    """
    place = located(uri)
    manifest, content = _manifest(place)
    made = store / manifest.fingerprint
    store.mkdir(parents=True, exist_ok=True)
    with alone(store / LOCK_FILE, "making a snapshot", wait=True):
        for torn in store.glob(".*.partial"):  # of one that died, for nobody else holds the lock
            shutil.rmtree(torn)
        if made.is_dir():
            return made
        building = store / f".{manifest.fingerprint}.partial"
        building.mkdir()
        try:
            _fill(building, place, manifest, _held(store))
            (building / MANIFEST_FILE).write_bytes(content)
            (building / EXPOSURE_FILE).symlink_to(Path("..") / EXPOSURE_FILE)  # looks at test outlive a snapshot
            flush(building / MANIFEST_FILE)
            building.rename(made)
            flush(store)
        finally:
            shutil.rmtree(building, ignore_errors=True)  # after the rename there is nothing left to remove
    return made


def snapshots(store: Path) -> list[Snapshot]:
    """All complete snapshots of a store, newest first."""
    folders = [entry for entry in store.iterdir() if _FINGERPRINT.fullmatch(entry.name)] if store.is_dir() else []
    made = [(folder, folder / MANIFEST_FILE) for folder in folders]
    found = [
        Snapshot(path=folder, fingerprint=folder.name, made_ns=file.stat().st_mtime_ns)
        for folder, file in made
        if file.is_file()
    ]
    return sorted(found, key=lambda one: (one.made_ns, one.fingerprint), reverse=True)


def snapshots_to_drop(there: Iterable[Snapshot], keep: int, in_use: Collection[str]) -> list[Snapshot]:
    """All but the `keep` newest and those whose fingerprint is in use."""
    ordered = sorted(there, key=lambda one: (one.made_ns, one.fingerprint), reverse=True)
    return [one for one in ordered[max(keep, 0) :] if one.fingerprint not in in_use]


def drop(store: Path, unwanted: Iterable[Snapshot]) -> None:
    """Remove snapshots; one that is half removed no longer has its name. Linked parts live on in the others."""
    with alone(store / LOCK_FILE, "making a snapshot", wait=True):
        for one in unwanted:
            going = store / f".{one.fingerprint}.dropped.partial"
            one.path.rename(going)
            shutil.rmtree(going)


def located(uri: str) -> Place:
    """The place that a path or a URI names; nothing is read yet. Raises DataError for an unknown scheme."""
    if "://" not in uri:
        return Place(filesystem=pafs.LocalFileSystem(), folder=str(Path(uri).absolute()), shown=str(Path(uri)))
    shown, secrets = _without_secrets(uri)
    try:
        filesystem, folder = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        if "Unrecognized filesystem type" in str(error):
            raise DataError(f"unknown scheme {uri.split('://')[0]!r}", where=shown, allowed=_SCHEMES) from None
        raise DataError(f"cannot be used: {_said(error, secrets)}", where=shown) from None
    return Place(filesystem=filesystem, folder=folder, shown=shown, secrets=secrets)


def _without_secrets(uri: str) -> tuple[str, tuple[str, ...]]:
    """The URI as messages show it, and every piece that they must not repeat, longest first."""
    scheme, _, rest = uri.partition("://")
    address, _, query = rest.partition("?")
    user, _, public = address.rpartition("@")  # the last one: a key that nobody encoded may hold "/" and "@"
    named = [pair.partition("=") for pair in query.split("&")]
    values = [value for key, _, value in named if _SECRET_KEY.search(key)]
    pieces = [uri, rest, query, user, *user.split(":"), *values]
    known = {form for piece in pieces for form in (piece, unquote(piece)) if form}
    return f"{scheme}://{public}", tuple(sorted(known - {public}, key=len, reverse=True))


def _said(error: Exception, secrets: tuple[str, ...]) -> str:
    """What a library says, without secrets and no longer than a line: some list every place where they looked."""
    text = str(error)
    for secret in secrets:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


@contextmanager
def _told(place: Place, name: str) -> Iterator[None]:
    """What the file system says, as one line about the place."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"no {name} here: {_said(error, place.secrets)}", where=place.shown) from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read: {_said(error, place.secrets)}", where=place.shown) from None


def _manifest(place: Place) -> tuple[Manifest, bytes]:
    content = b"".join(_chunks(place, MANIFEST_FILE))
    return parse_manifest(content, f"{place.shown.rstrip('/')}/{MANIFEST_FILE}"), content


def _chunks(place: Place, name: str) -> Iterator[bytes]:
    with _told(place, name):
        stream = place.filesystem.open_input_stream(place.file(name))
    with stream:
        while True:
            with _told(place, name):
                chunk = stream.read(_BYTES_AT_ONCE)
            if not chunk:
                return
            yield chunk


_Held = Mapping[tuple[str, str], Path]
"""Parts that a store has, by name and digest."""


def _held(store: Path) -> _Held:
    held: dict[tuple[str, str], Path] = {}
    for one in snapshots(store):
        try:
            manifest = read_manifest(one.path)
        except DataError:
            continue  # a damaged snapshot has nothing to give; what it lacks is fetched
        named = [part for split in manifest.splits.values() for part in split.parts]
        held |= {(part.file, part.digest): one.path / part.file for part in named}
    return held


def _fill(building: Path, place: Place, manifest: Manifest, held: _Held) -> None:
    """All parts, each verified; then the fingerprints that follow from them."""
    for name, record in manifest.splits.items():
        parts, digests = [], []
        for part in record.parts:
            opened, fresh = _part(building, place, manifest, part, held)
            parts.append(opened)
            digests += fresh
        if split_fingerprint(parts[0].arrays, digests) != record.fingerprint:
            raise DataError(f"the content of {name} does not match its fingerprint", where=place.shown)
    verify_overall(building, manifest)


def _part(
    building: Path, place: Place, manifest: Manifest, record: PartRecord, held: _Held
) -> tuple[Part, list[bytes]]:
    target, earlier = building / record.file, held.get((record.file, record.digest))
    if earlier is not None and _linked(earlier, target):
        try:
            return _verified(building, manifest, record)
        except DataError:
            target.unlink()  # the earlier copy was damaged since: fetch it again
    with target.open("wb") as sink:
        for chunk in _chunks(place, record.file):
            sink.write(chunk)
    flush(target)
    try:
        return _verified(building, manifest, record)
    except DataError as error:
        raise DataError(f"{record.file}: {error.what}", where=place.shown) from error


def _verified(building: Path, manifest: Manifest, record: PartRecord) -> tuple[Part, list[bytes]]:
    part = open_part(building, record, manifest)
    return part, verified_digests(part)


def _linked(earlier: Path, target: Path) -> bool:
    """Whether the file system could link."""
    try:
        os.link(earlier, target)
    except OSError:
        return False
    return True
