"""Samples as table rows, the form in which a served model is asked: one column a modality, JSON-compatible cells.

A cell is a list of frames, each a list of numbers; a modality of one step may be one flat list. A missing modality is
null. A missing frame is null or a frame of NaN: its position still counts, for positions carry meaning. Where a model
reads token ids, a token is a frame of one number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gapwise.data.batch import ModalityBatch, Tokens
from gapwise.data.shape import DataShape, ModalityShape, TokenShape
from gapwise.data.tokens import as_tokens
from gapwise.errors import DataError, nearest

Frames = NDArray[np.float32]


def to_rows(batch: ModalityBatch) -> dict[str, list[Frames | None]]:
    """Columns by modality. Frames that are not attended become NaN, up to the last attended one; none is null."""
    numbers = {name: one.ids.unsqueeze(-1).float() for name, one in batch.tokens.items()}
    columns: dict[str, list[Frames | None]] = {}
    for name, value_BTD in {**batch.values, **numbers}.items():
        column: list[Frames | None] = []
        for frames_TD, attend_T in zip(value_BTD.numpy(), batch.attend[name].numpy(), strict=True):
            length = int(attend_T.nonzero()[0].max()) + 1 if attend_T.any() else 0
            cell = np.where(attend_T[:length, None], frames_TD[:length], np.nan).astype(np.float32)
            column.append(cell if length else None)
        columns[name] = column
    return columns


def from_rows(columns: Mapping[str, Sequence[Any]], shape: DataShape, *, mask_visible: bool) -> ModalityBatch:
    """A batch from columns; a modality without a column is missing in every row.

    Raises DataError for no modality at all, an unknown one, another number of features, more frames than the model was
    built for, a number that is not finite inside a frame that is otherwise there, or token ids of another tokenizer.
    """
    if not columns:
        raise DataError("no modality among the columns", where="input", allowed=sorted(shape.modalities))
    unknown = sorted(set(columns) - set(shape.modalities))
    if unknown:
        raise DataError(
            f"unknown modality {unknown[0]!r}{nearest(unknown[0], shape.modalities)}",
            where="input columns",
            allowed=sorted(shape.modalities),
        )
    count = len(next(iter(columns.values()), ()))
    if not count:
        raise DataError("no rows to predict", where="input")
    values, attend, tokens = {}, {}, {}
    for name, modality in shape.modalities.items():
        cells = columns[name] if name in columns else [None] * count
        value_BTD = np.zeros((count, modality.max_length, modality.dim), np.float32)
        attend_BT = np.zeros((count, modality.max_length), bool)
        seen_BT = np.zeros_like(attend_BT)
        for row, cell in enumerate(cells):
            frames_TD, seen_T = _frames(cell, modality, where=f"row {row}, {name}")
            value_BTD[row, : len(frames_TD)] = frames_TD
            attend_BT[row, : len(frames_TD)] = seen_T if mask_visible else True
            seen_BT[row, : len(frames_TD)] = seen_T
        attend[name] = torch.from_numpy(attend_BT)
        if modality.tokens is None:
            values[name] = torch.from_numpy(value_BTD)
        else:
            tokens[name] = _tokens(value_BTD[:, :, 0], seen_BT, modality.tokens, where=name)
    return ModalityBatch(values, attend, torch.zeros(count), torch.arange(count), tokens)


def _tokens(number_BT: Frames, seen_BT: NDArray[np.bool_], shape: TokenShape, *, where: str) -> Tokens:
    """Ids from numbers; where no token was seen, the unknown one."""
    wrong = number_BT[
        seen_BT & ((number_BT != np.floor(number_BT)) | (number_BT < 0) | (number_BT >= shape.vocabulary))
    ]
    if len(wrong):
        allowed = f"whole numbers from 0 to {shape.vocabulary - 1}"
        raise DataError(f"{wrong[0]:g} is no token id", where=where, allowed=allowed)
    return as_tokens(np.where(seen_BT, number_BT, shape.unknown).astype(np.int64), seen_BT, shape)


def _frames(cell: Any, modality: ModalityShape, *, where: str) -> tuple[Frames, NDArray[np.bool_]]:
    """(T, D) values with zeros for missing frames, and (T,) which of them are there."""
    frames_TD = _as_array(cell, modality.dim, where)
    if len(frames_TD) > modality.max_length:
        raise DataError(f"{len(frames_TD)} frames", where=where, allowed=f"at most {modality.max_length}")
    missing_T: NDArray[np.bool_] = np.asarray(np.isnan(frames_TD).all(1))
    if not np.isfinite(frames_TD[~missing_T]).all():
        raise DataError("a number is not finite", where=where, allowed="finite numbers, or null for a whole frame")
    seen_T: NDArray[np.bool_] = ~missing_T
    return np.where(missing_T[:, None], np.float32(0), frames_TD).astype(np.float32), seen_T


def _as_array(cell: Any, dim: int, where: str) -> Frames:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return np.zeros((0, dim), np.float32)
    try:
        listed = [np.full(dim, np.nan) if frame is None else frame for frame in cell]
        frames = np.array([np.asarray(frame, np.float32) for frame in listed], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError("not a list of frames of numbers", where=where) from error
    if not len(frames):
        return np.zeros((0, dim), np.float32)
    frames = frames[None] if frames.ndim == 1 else frames
    if frames.ndim != 2:
        raise DataError("not a list of frames of numbers: nested too deep", where=where)
    if frames.shape[1] != dim:
        raise DataError(f"{frames.shape[1]} features a frame", where=where, allowed=str(dim))
    return frames
