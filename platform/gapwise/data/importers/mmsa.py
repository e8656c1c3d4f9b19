"""MMSA pickles: the layout in which the field hands around MOSI, MOSEI and SIMS.

`{train|valid|test: {id, raw_text, text, text_bert, audio, vision, *_lengths, regression_labels, ...}}`, read through
the restricted unpickler. Modalities are text, audio and vision where present, plus those that the caller names: another
3-d array is not guessed to be one. Lengths come from the file; without them, text takes the token mask if that counts
the same steps, and anything else ends at its last frame that is not zero (at least 1). A zero frame inside the length
is an unknown word, and stays.

Groups: MOSI's ids are video and segment ("03bSnISJMiM_11", "03bSnISJMiM$_$11"), so if every id ends in a segment
number the group is the video. If any does not, the ids are videos themselves (a YouTube id may contain an underscore),
each its own group.

Shape legend: N samples, T steps, D features, L tokens.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapwise.data.arrays import Labels, ModalityArrays, SplitArrays, TokenArrays
from gapwise.data.importers.options import EACH_ITS_OWN, Content, ImportOptions, refuse_missing
from gapwise.data.importers.padded import as_block, as_labels, as_lengths, as_texts, pack
from gapwise.data.pickles import load_pickle
from gapwise.errors import DataError, nearest

_USUAL = ("text", "audio", "vision")
_LABEL_KEYS = {"regression": ("regression_labels",), "classification": ("classification_labels", "labels")}
_SEPARATOR = "$_$"
_SEGMENT = re.compile(r".+_\d+")

_Tree = Mapping[str, object]


def read_mmsa(path: Path, options: ImportOptions) -> Content:
    """The content of the pickle `path`. Raises DataError naming file and key."""
    refuse_missing(path)
    tree = _tree(load_pickle(path), (), str(path))
    names = options.splits_among(tree, path)
    tree = _tree(tree, names, str(path))
    ids = {split: as_texts(_entry(tree, split, path, "id"), f"{path}/{split}/id") for split in names}
    segmented = all(_is_segment(sample) for samples in ids.values() for sample in samples)
    splits = {}
    for split in names:
        where = f"{path}/{split}"
        groups = [_video(sample) if segmented else sample for sample in ids[split]]
        splits[split] = _split(_tree(tree[split], (), where), ids[split], groups, options, where)
    return Content(splits=splits, groups="video: the id without its segment" if segmented else EACH_ITS_OWN)


def _tree(value: object, required: tuple[str, ...], where: str) -> _Tree:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{type(value).__name__} where a dictionary by name was expected", where=where)
    missing = [key for key in required if key not in value]
    if missing:
        raise DataError(f"{missing[0]} is missing", where=where, allowed=required)
    return value


def _entry(tree: _Tree, split: str, path: Path, key: str) -> object:
    inside = _tree(tree[split], (key,), f"{path}/{split}")
    return inside[key]


def _split(tree: _Tree, ids: list[str], groups: list[str], options: ImportOptions, where: str) -> SplitArrays:
    names = _modality_names(tree, options, where)
    tokens = _tokens(tree, len(ids), where)
    return SplitArrays(
        ids=ids,
        groups=groups,
        labels=_labels(tree, options, where),
        modalities={name: _modality(tree, name, tokens, where) for name in names},
        raw={"text": as_texts(tree["raw_text"], f"{where}/raw_text")} if "raw_text" in tree and "text" in names else {},
        tokens={"text": tokens} if tokens is not None and "text" in names else {},
    )


def _modality_names(tree: _Tree, options: ImportOptions, where: str) -> list[str]:
    missing = [name for name in options.modalities if name not in tree]
    if missing:
        raise DataError(
            f"no modality {missing[0]!r} here{nearest(missing[0], filter(str.isidentifier, tree))}",
            where=where,
            allowed=[key for key in sorted(tree) if key.isidentifier()],
        )
    names = [name for name in _USUAL if name in tree]
    names += [name for name in options.modalities if name not in names]
    if not names:
        raise DataError("no modality found", where=where, allowed=_USUAL)
    return names


def _labels(tree: _Tree, options: ImportOptions, where: str) -> Labels:
    keys = _LABEL_KEYS[options.task]
    key = next((key for key in keys if key in tree), None)
    if key is None:
        raise DataError(f"labels for {options.task} are missing", where=where, allowed=keys)
    return as_labels(tree[key], options.task, f"{where}/{key}")


def _modality(tree: _Tree, name: str, tokens: TokenArrays | None, where: str) -> ModalityArrays:
    where = f"{where}/{name}"
    block_NTD = as_block(tree[name], where)
    if f"{name}_lengths" in tree:
        return pack(block_NTD, as_lengths(tree[f"{name}_lengths"], f"{where}_lengths"), where)
    bert = tree.get("text_bert")
    same_steps = isinstance(bert, np.ndarray) and bert.shape[-1] == block_NTD.shape[1]
    if name == "text" and tokens is not None and same_steps:
        return pack(block_NTD, np.diff(tokens.offsets), where)
    return pack(block_NTD, _length_by_content(block_NTD), where)


def _length_by_content(block_NTD: NDArray[np.floating]) -> NDArray[np.int64]:
    steps = np.arange(1, block_NTD.shape[1] + 1)
    # NaN counts as content: it is not zero.
    last_N: NDArray[np.int64] = (steps * (block_NTD != 0).any(axis=2)).max(axis=1, initial=1)
    return last_N


def _tokens(tree: _Tree, samples: int, where: str) -> TokenArrays | None:
    """Ids of `text_bert`, (N, 3, L) of ids, mask and segment, where the mask is 1."""
    if "text_bert" not in tree:
        return None
    where = f"{where}/text_bert"
    bert = tree["text_bert"]
    right = isinstance(bert, np.ndarray) and bert.ndim == 3 and bert.shape[:2] == (samples, 3)
    if not isinstance(bert, np.ndarray) or not right or bert.dtype.kind not in "fiu":
        found = f"{bert.dtype} {bert.shape}" if isinstance(bert, np.ndarray) else type(bert).__name__
        raise DataError(f"{found}", where=where, allowed=f"numbers of shape ({samples}, 3, tokens)")
    ids_NL, mask_NL = bert[:, 0], bert[:, 1] == 1
    kept = ids_NL[mask_NL]
    if not np.all((kept >= 0) & (kept < 2**31) & (kept == np.floor(kept))):
        raise DataError("token ids are not whole numbers of 31 bits", where=where)
    offsets = np.concatenate([[0], np.cumsum(mask_NL.sum(axis=1))]).astype(np.int64)
    return TokenArrays(ids=kept.astype(np.int32), offsets=offsets)


def _is_segment(sample: str) -> bool:
    return _SEPARATOR in sample or _SEGMENT.fullmatch(sample) is not None


def _video(sample: str) -> str:
    return sample.rsplit(_SEPARATOR if _SEPARATOR in sample else "_", 1)[0]
