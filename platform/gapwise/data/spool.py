"""Blocks of rows put together as one split: in memory, or through scratch files where memory would not hold it.

Values dominate every other array by far, so only they are spooled: appended to one file a modality and mapped back.
The caller owns the scratch folder and removes it when the split has been written.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from gapwise.data.arrays import ModalityArrays, SplitArrays

Blocks = Iterable[SplitArrays]


def join(blocks: Sequence[SplitArrays]) -> SplitArrays:
    """All rows in order, copied. Blocks have the same modalities, and neither raw text nor tokens."""
    modalities = {name: _join_modality([block.modalities[name] for block in blocks]) for name in blocks[0].modalities}
    return SplitArrays(
        ids=[one for block in blocks for one in block.ids],
        groups=[one for block in blocks for one in block.groups],
        labels=np.concatenate([block.labels for block in blocks]),
        modalities=modalities,
    )


def spool(blocks: Blocks, scratch: Path) -> SplitArrays:
    """The same, with values mapped from `scratch/NAME.values`; memory holds one block of them."""
    hollow = []
    with ExitStack() as files:
        sinks = {}
        for block in blocks:
            for name, modality in block.modalities.items():
                if name not in sinks:
                    sinks[name] = files.enter_context((scratch / f"{name}.values").open("wb"))
                modality.values.tofile(sinks[name])
            hollow.append(_without_values(block))
    whole = join(hollow)
    mapped = {name: _mapped(modality, scratch / f"{name}.values") for name, modality in whole.modalities.items()}
    return replace(whole, modalities=mapped)


def _join_modality(parts: Sequence[ModalityArrays]) -> ModalityArrays:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return ModalityArrays(
        values=np.concatenate([part.values for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        present=np.concatenate([part.present for part in parts]),
    )


def _without_values(block: SplitArrays) -> SplitArrays:
    """The block with an empty (0, D) in the place of its values."""
    modalities = {
        name: replace(modality, values=modality.values[:0].copy()) for name, modality in block.modalities.items()
    }
    return replace(block, modalities=modalities)


def _mapped(modality: ModalityArrays, path: Path) -> ModalityArrays:
    shape = (int(modality.offsets[-1]), modality.values.shape[1])
    return replace(modality, values=np.memmap(path, dtype=modality.values.dtype, mode="r", shape=shape))
