"""Token ids of a modality in place of its frames: collating them, and refusing those of another tokenizer.

Ids mean something only to the tokenizer that made them, so what a dataset or a caller brings is held against the
vocabulary and the special tokens of the one a model knows. Whoever has the raw text too can say more; see
`gapwise.models.reading`.

Shape legend: N samples of the split, B rows asked for, T steps, K tokens of a part.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gapwise.data.arrays import TokenArrays
from gapwise.data.batch import Tokens
from gapwise.data.shape import DataShape, Moments, Statistics, TokenShape
from gapwise.errors import DataError

_OTHER = "the ids were made by another tokenizer"


@dataclass(frozen=True, slots=True)
class TokenColumn:
    """A modality's token ids in a split. `ids` are those of each part, (K,) int32, mapped and never joined; `parts`,
    `starts` and `lengths` (N,) int64 say where a sample's tokens lie."""

    shape: TokenShape
    ids: tuple[NDArray[np.int32], ...]
    parts: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def collate(self, rows_B: NDArray[np.int64]) -> tuple[Tokens, torch.Tensor]:
        """The rows' tokens, and (B, T) bool where there are any; T is the longest of these rows, at least 1."""
        lengths_B, part_B = self.lengths[rows_B], self.parts[rows_B]
        steps_T = np.arange(max(1, lengths_B.max(initial=0)))
        real_BT = steps_T < lengths_B[:, None]
        source_BT = self.starts[rows_B][:, None] + steps_T
        ids_BT = np.full(real_BT.shape, self.shape.unknown, np.int64)
        for part in np.unique(part_B):
            mine_BT = real_BT & (part_B == part)[:, None]
            ids_BT[mine_BT] = self.ids[part][source_BT[mine_BT]]
        return as_tokens(ids_BT, real_BT, self.shape), torch.from_numpy(real_BT)


def as_tokens(ids_BT: NDArray[np.int64], real_BT: NDArray[np.bool_], shape: TokenShape) -> Tokens:
    """Ids with what the tokenizer says of them; `ids_BT` holds the unknown token wherever `real_BT` is false."""
    special_BT = real_BT & np.isin(ids_BT, shape.special)
    unknown_B = torch.full((len(ids_BT),), shape.unknown)
    return Tokens(torch.from_numpy(ids_BT), torch.from_numpy(special_BT), unknown_B)


def joined(parts: list[TokenArrays], shape: TokenShape) -> TokenColumn:
    """The column of a split from those of its parts."""
    return TokenColumn(
        shape=shape,
        ids=tuple(part.ids for part in parts),
        parts=np.repeat(np.arange(len(parts)), [len(part.offsets) - 1 for part in parts]),
        starts=np.concatenate([part.offsets[:-1] for part in parts]),
        lengths=np.concatenate([np.diff(part.offsets) for part in parts]),
    )


def refuse_foreign_ids(column: TokenColumn, where: str) -> None:
    """Raise DataError for ids outside the vocabulary, or sequences not framed by the tokenizer's special tokens."""
    shape = column.shape
    for part, ids in enumerate(column.ids):
        outside = ids[(ids < 0) | (ids >= shape.vocabulary)]
        if len(outside):
            raise DataError(f"token id {outside[0]}: {_OTHER}", where=where, allowed=f"0 to {shape.vocabulary - 1}")
        some = (column.parts == part) & (column.lengths > 0)
        first, last = column.starts[some], column.starts[some] + column.lengths[some] - 1
        _refuse_other_ends({"begins": (shape.opening, ids[first]), "ends": (shape.closing, ids[last])}, where)


def _refuse_other_ends(ends: dict[str, tuple[int | None, NDArray[np.int32]]], where: str) -> None:
    for verb, (expected, found) in ends.items():
        wrong = found[found != expected] if expected is not None else found[:0]
        if len(wrong):
            raise DataError(f"a sequence {verb} with token {wrong[0]}: {_OTHER}", where=where, allowed=str(expected))


def token_statistics(statistics: Statistics, shape: DataShape) -> Statistics:
    """The training statistics for a model of `shape`: ids are not standardised."""
    plain = Moments(mean=np.zeros(1, np.float32), deviation=np.ones(1, np.float32))
    read = {name: plain for name, one in shape.modalities.items() if one.tokens is not None}
    return statistics._replace(modalities={**statistics.modalities, **read})
