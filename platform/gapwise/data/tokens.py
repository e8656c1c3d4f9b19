"""Token ids of a modality in place of its frames: collating them, and refusing those of another tokenizer.

Ids mean something only to the tokenizer that made them, so what a dataset or a caller brings is held against the
vocabulary and the special tokens of the one a model knows. Whoever has the raw text too can say more; see
`gapwise.models.reading`.

Shape legend: N samples of the split, B rows asked for, T steps, K tokens of all samples together.
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
    """A modality's token ids in a split: `ids` (K,) int32, `offsets` (N + 1,) int64."""

    shape: TokenShape
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each sample."""
        return np.diff(self.offsets)

    def collate(self, rows_B: NDArray[np.int64]) -> tuple[Tokens, torch.Tensor]:
        """The rows' tokens, and (B, T) bool where there are any; T is the longest of these rows, at least 1."""
        lengths_B = self.lengths[rows_B]
        steps_T = np.arange(max(1, lengths_B.max(initial=0)))
        real_BT = steps_T < lengths_B[:, None]
        ids_BT = np.full(real_BT.shape, self.shape.unknown, np.int64)
        ids_BT[real_BT] = self.ids[(self.offsets[rows_B][:, None] + steps_T)[real_BT]]
        return as_tokens(ids_BT, real_BT, self.shape), torch.from_numpy(real_BT)


def as_tokens(ids_BT: NDArray[np.int64], real_BT: NDArray[np.bool_], shape: TokenShape) -> Tokens:
    """Ids with what the tokenizer says of them; `ids_BT` holds the unknown token wherever `real_BT` is false."""
    special_BT = real_BT & np.isin(ids_BT, shape.special)
    unknown_B = torch.full((len(ids_BT),), shape.unknown)
    return Tokens(torch.from_numpy(ids_BT), torch.from_numpy(special_BT), unknown_B)


def joined(parts: list[TokenArrays], shape: TokenShape) -> TokenColumn:
    """The column of a split from those of its parts."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenColumn(shape, np.concatenate([part.ids for part in parts]), offsets)


def refuse_foreign_ids(column: TokenColumn, where: str) -> None:
    """Raise DataError for ids outside the vocabulary, or sequences not framed by the tokenizer's special tokens."""
    shape, ids = column.shape, column.ids
    outside = ids[(ids < 0) | (ids >= shape.vocabulary)]
    if len(outside):
        raise DataError(f"token id {outside[0]}: {_OTHER}", where=where, allowed=f"0 to {shape.vocabulary - 1}")
    some = column.lengths > 0
    ends = {
        "begins": (shape.opening, ids[column.offsets[:-1][some]]),
        "ends": (shape.closing, ids[column.offsets[1:][some] - 1]),
    }
    for verb, (expected, found) in ends.items():
        wrong = found[found != expected] if expected is not None else found[:0]
        if len(wrong):
            raise DataError(f"a sequence {verb} with token {wrong[0]}: {_OTHER}", where=where, allowed=str(expected))


def token_statistics(statistics: Statistics, shape: DataShape) -> Statistics:
    """The training statistics for a model of `shape`: ids are not standardised."""
    plain = Moments(mean=np.zeros(1, np.float32), deviation=np.ones(1, np.float32))
    read = {name: plain for name, one in shape.modalities.items() if one.tokens is not None}
    return statistics._replace(modalities={**statistics.modalities, **read})
