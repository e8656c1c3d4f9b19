"""`SplitArrays`: a split in memory, as an importer hands it to the writer, and the checks that it is well formed.

Ragged content is flat values plus offsets plus presence, never a padded block and never an object array, so that what
is hashed, what is stored and what is read back are the same three arrays. It refuses whatever would be ambiguous later:
a sample that is present with no frame, an absent one with frames, labels that are not finite, an id given twice.

Shape legend: N samples, F frames of all samples together, D features.
"""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gapwise.errors import DataError

Floats = NDArray[np.float16] | NDArray[np.float32]
Labels = NDArray[np.float32] | NDArray[np.int64]

# The other columns of a part, "+" between the modalities of a subset and ":" before a name must stay unambiguous.
MODALITY_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
RESERVED_NAMES = ("id", "group", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityArrays:
    """One modality of a split. Frames of sample i are `values[offsets[i]:offsets[i + 1]]`; none if it is absent."""

    values: Floats
    """(F, D), float16 or float32."""
    offsets: NDArray[np.int64]
    """(N + 1,), from 0 to F."""
    present: NDArray[np.bool_]
    """(N,), false where the sample has no such modality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenArrays:
    """Token ids of a split, ragged like the values: ids (K,) int32, offsets (N + 1,) int64."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitArrays:
    ids: Sequence[str]
    groups: Sequence[str]
    labels: Labels
    """(N,), float32 scores or int64 classes."""
    modalities: Mapping[str, ModalityArrays]
    raw: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Raw text by modality."""
    tokens: Mapping[str, TokenArrays] = field(default_factory=dict)
    """Token ids by modality."""

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, start: int, stop: int) -> "SplitArrays":
        """Rows start..stop as views; offsets begin at 0 again."""
        return SplitArrays(
            ids=self.ids[start:stop],
            groups=self.groups[start:stop],
            labels=self.labels[start:stop],
            modalities={name: _cut_modality(arrays, start, stop) for name, arrays in self.modalities.items()},
            raw={name: texts[start:stop] for name, texts in self.raw.items()},
            tokens={name: _cut_tokens(arrays, start, stop) for name, arrays in self.tokens.items()},
        )

    def take(self, rows: NDArray[np.int64]) -> "SplitArrays":
        """These rows in this order, copied."""
        return SplitArrays(
            ids=[self.ids[row] for row in rows],
            groups=[self.groups[row] for row in rows],
            labels=self.labels[rows],
            modalities={name: _take_modality(arrays, rows) for name, arrays in self.modalities.items()},
            raw={name: [texts[row] for row in rows] for name, texts in self.raw.items()},
            tokens={name: _take_tokens(arrays, rows) for name, arrays in self.tokens.items()},
        )


def _take_modality(arrays: ModalityArrays, rows: NDArray[np.int64]) -> ModalityArrays:
    places, offsets = _gathered(arrays.offsets, rows)
    return ModalityArrays(values=arrays.values[places], offsets=offsets, present=arrays.present[rows])


def _take_tokens(arrays: TokenArrays, rows: NDArray[np.int64]) -> TokenArrays:
    places, offsets = _gathered(arrays.offsets, rows)
    return TokenArrays(ids=arrays.ids[places], offsets=offsets)


def _gathered(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the frames of `rows` lie, one after the other, and the offsets that cut them into rows again."""
    lengths = np.diff(offsets)[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    places = np.repeat(offsets[rows] - ends[:-1], lengths) + np.arange(ends[-1])
    return places, ends


def _cut_modality(arrays: ModalityArrays, start: int, stop: int) -> ModalityArrays:
    first, last = arrays.offsets[start], arrays.offsets[stop]
    return ModalityArrays(
        values=arrays.values[first:last],
        offsets=arrays.offsets[start : stop + 1] - first,
        present=arrays.present[start:stop],
    )


def _cut_tokens(arrays: TokenArrays, start: int, stop: int) -> TokenArrays:
    first, last = arrays.offsets[start], arrays.offsets[stop]
    return TokenArrays(ids=arrays.ids[first:last], offsets=arrays.offsets[start : stop + 1] - first)


def is_sound_text(array: NDArray[np.generic]) -> bool:
    """False if a numpy text array holds numbers that are no characters: Python cannot even make a str of them."""
    if array.dtype.kind != "U" or array.dtype.itemsize == 0:
        return True
    code_points = array.ravel().view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool(np.all(code_points <= sys.maxunicode))


def check_split(arrays: SplitArrays, where: str) -> None:
    """Raise DataError, with `where` and the key inside, if the split is empty or its arrays contradict each other."""
    if len(arrays) == 0:
        raise DataError("has no samples; every split needs at least one", where=where)
    if not arrays.modalities:
        raise DataError("has no modalities", where=where)
    _check_ids(arrays, where)
    _check_labels(arrays.labels, len(arrays), f"{where}/label")
    for name, modality in arrays.modalities.items():
        _check_name(name, where)
        _check_modality(modality, len(arrays), f"{where}/{name}")
    for name, texts in arrays.raw.items():
        _check_count(len(texts), len(arrays), f"{where}/raw:{name}")
        _check_texts(texts, f"{where}/raw:{name}")
    for name, tokens in arrays.tokens.items():
        _check_offsets(tokens.offsets, len(arrays), len(tokens.ids), f"{where}/tokens:{name}")
    stray = sorted({*arrays.raw, *arrays.tokens} - set(arrays.modalities))
    if stray:
        raise DataError(f"raw text or tokens of {stray[0]!r}, which is no modality", where=where)


def check_together(splits: Mapping[str, SplitArrays], where: str) -> None:
    """Raise DataError if a sample is in two splits, or the splits disagree on modalities, features or stored types."""
    seen: dict[str, str] = {}
    for split, arrays in splits.items():
        leaked = next((sample for sample in arrays.ids if sample in seen), None)
        if leaked is not None:
            raise DataError(f"sample {leaked!r} is in both {seen[leaked]} and {split}: the splits leak", where=where)
        seen.update(dict.fromkeys(arrays.ids, split))
    (first_name, first), *others = splits.items()
    for split, arrays in others:
        if form(arrays) != form(first):
            raise DataError(f"{split} is {form(arrays)} but {first_name} is {form(first)}", where=where)


def shared_groups(splits: Mapping[str, SplitArrays]) -> int:
    """How many groups occur in more than one split."""
    counts = Counter(group for arrays in splits.values() for group in set(arrays.groups))
    return sum(count > 1 for count in counts.values())


def form(arrays: SplitArrays) -> str:
    """What all splits and parts of a dataset share, in words: types, modalities, features, whether text is kept."""
    parts = [f"label {arrays.labels.dtype}"]
    for name, modality in sorted(arrays.modalities.items()):
        kept = " raw" * (name in arrays.raw) + " tokens" * (name in arrays.tokens)
        parts.append(f"{name} {modality.values.dtype}[{modality.values.shape[1]}]{kept}")
    return ", ".join(parts)


def _check_name(name: str, where: str) -> None:
    if name in RESERVED_NAMES or not re.fullmatch(MODALITY_NAME, name):
        raise DataError(
            f"{name!r} cannot name a modality",
            where=where,
            allowed="letters, digits, _ and -, but not id, group, label",
        )


def _check_ids(arrays: SplitArrays, where: str) -> None:
    _check_count(len(arrays.groups), len(arrays), f"{where}/group")
    if len(set(arrays.ids)) != len(arrays.ids):
        twice = next(sample for sample, count in Counter(arrays.ids).items() if count > 1)
        raise DataError(f"sample id {twice!r} occurs more than once", where=f"{where}/id")
    for key, texts in (("id", arrays.ids), ("group", arrays.groups)):
        if not all(texts):
            raise DataError("an empty string names nothing", where=f"{where}/{key}")
        _check_texts(texts, f"{where}/{key}")


def _check_texts(texts: Sequence[str], where: str) -> None:
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"text that UTF-8 cannot hold: {error.reason}", where=where) from error


def _check_labels(labels: Labels, samples: int, where: str) -> None:
    if labels.dtype not in (np.float32, np.int64) or labels.ndim != 1:
        raise DataError(f"labels are {labels.dtype} {labels.shape}", where=where, allowed="float32 or int64, (N,)")
    _check_count(len(labels), samples, where)
    bad = np.flatnonzero(~np.isfinite(labels))
    if len(bad):
        raise DataError(f"label of row {bad[0]} is {labels[bad[0]]}; labels are never repaired", where=where)
    if labels.dtype == np.int64 and labels.min() < 0:
        raise DataError(f"class {labels.min()} is negative", where=where, allowed="0, 1, 2, ...")


def _check_modality(arrays: ModalityArrays, samples: int, where: str) -> None:
    if arrays.values.dtype not in (np.float16, np.float32) or arrays.values.ndim != 2 or arrays.values.shape[1] < 1:
        shape = f"{arrays.values.dtype} {arrays.values.shape}"
        raise DataError(f"values are {shape}", where=where, allowed="float16 or float32, (frames, features)")
    _check_offsets(arrays.offsets, samples, len(arrays.values), where)
    _check_count(len(arrays.present), samples, where)
    lengths = np.diff(arrays.offsets)
    wrong = np.flatnonzero((lengths > 0) != arrays.present)
    if len(wrong):
        state = "present with no frame" if arrays.present[wrong[0]] else "absent with frames"
        raise DataError(f"row {wrong[0]} is {state}", where=where)


def _check_offsets(offsets: NDArray[np.int64], samples: int, items: int, where: str) -> None:
    _check_count(len(offsets) - 1, samples, where)
    if offsets[0] != 0 or offsets[-1] != items or np.any(np.diff(offsets) < 0):
        raise DataError(f"offsets {offsets[0]}..{offsets[-1]} do not cut {items} frames into samples", where=where)


def _check_count(count: int, samples: int, where: str) -> None:
    if count != samples:
        raise DataError(f"{count} entries for {samples} samples", where=where)
