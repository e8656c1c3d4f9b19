"""Table rows, the form in which a served model is asked: what went out comes back, and what is wrong is said by row.

Nothing is faked; cells are written the way JSON, pandas and Arrow hand them over.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gapwise.data.batch import ModalityBatch, hide
from gapwise.data.rows import from_rows, to_rows
from gapwise.data.shape import DataShape, ModalityShape
from gapwise.errors import DataError

NAN = float("nan")
SHAPE = DataShape(
    task="regression",
    modalities={"text": ModalityShape(dim=2, max_length=4), "vision": ModalityShape(dim=3, max_length=1)},
    label_range=(-3.0, 3.0),
)


def draw_batch() -> ModalityBatch:
    """Five samples: lengths 4, 2, 1, 0 and 3 of text; vision in all but the second."""
    generator = torch.Generator().manual_seed(0)
    attend = {
        "text": torch.arange(4) < torch.tensor([4, 2, 1, 0, 3])[:, None],
        "vision": torch.tensor([[True], [False], [True], [True], [True]]),
    }
    values = {
        name: torch.where(
            attend[name][..., None],
            torch.randn(5, part.max_length, part.dim, generator=generator),
            torch.tensor(0.0),
        )
        for name, part in SHAPE.modalities.items()
    }
    return ModalityBatch(values=values, attend=attend, labels=torch.zeros(5), rows=torch.arange(5))


def same(first: ModalityBatch, second: ModalityBatch) -> bool:
    return all(
        torch.equal(first.values[name], second.values[name]) and torch.equal(first.attend[name], second.attend[name])
        for name in SHAPE.modalities
    )


def read(text: Any, *, mask_visible: bool = True) -> tuple[list[Any], list[bool]]:
    """One row with only a `text` cell: its values and what is attended."""
    batch = from_rows({"text": [text]}, SHAPE, mask_visible=mask_visible)
    return batch.values["text"][0].tolist(), batch.attend["text"][0].tolist()


class TestRoundTrip:
    @pytest.mark.parametrize("mask_visible", [True, False])
    def test_a_complete_batch_comes_back(self, mask_visible):
        assert same(from_rows(to_rows(draw_batch()), SHAPE, mask_visible=mask_visible), draw_batch())

    @pytest.mark.parametrize("mask_visible", [True, False])
    def test_a_masked_batch_comes_back(self, mask_visible):
        random = np.random.default_rng(1)
        observed = {
            name: torch.from_numpy(random.random((5, part.max_length)) > 0.5) for name, part in SHAPE.modalities.items()
        }
        masked = hide(draw_batch(), observed, mask_visible=mask_visible)

        assert same(from_rows(to_rows(masked), SHAPE, mask_visible=mask_visible), masked)

    def test_a_modality_that_is_not_there_is_null(self):
        rows = to_rows(draw_batch())

        assert rows["text"][3] is None
        assert rows["vision"][1] is None

    def test_it_survives_pandas_object_columns(self):
        frame = pd.DataFrame(to_rows(draw_batch()))
        columns = {name: frame[name].tolist() for name in frame.columns}

        assert same(from_rows(columns, SHAPE, mask_visible=True), draw_batch())

    def test_it_survives_json(self):
        masked = hide(
            draw_batch(),
            {
                "text": torch.tensor([True, False, True, True]).expand(5, 4),
                "vision": torch.ones(5, 1, dtype=torch.bool),
            },
            mask_visible=True,
        )
        plain = {
            name: [
                None if cell is None else [None if np.isnan(f).all() else f.tolist() for f in cell] for cell in column
            ]
            for name, column in to_rows(masked).items()
        }

        assert same(from_rows(json.loads(json.dumps(plain, allow_nan=False)), SHAPE, mask_visible=True), masked)


class TestCells:
    @pytest.mark.parametrize("frame", [None, [NAN, NAN], [None, None], np.array([NAN, NAN])])
    def test_a_missing_frame_keeps_its_position(self, frame):
        values, attend = read([[1.0, 2.0], frame, [5.0, 6.0]])

        assert values == [[1, 2], [0, 0], [5, 6], [0, 0]]
        assert attend == [True, False, True, False]

    def test_a_missing_frame_is_attended_as_zeros_where_masks_are_invisible(self):
        values, attend = read([[1.0, 2.0], None, [5.0, 6.0]], mask_visible=False)

        assert values == [[1, 2], [0, 0], [5, 6], [0, 0]]
        assert attend == [True, True, True, False]

    @pytest.mark.parametrize("cell", [None, NAN, np.float64("nan"), [], np.zeros((0, 2)), [None, [NAN, NAN]]])
    def test_a_missing_modality_is_null_or_has_no_frame(self, cell):
        values, attend = read(cell)

        assert values == [[0, 0]] * 4
        assert attend == [False] * 4

    @pytest.mark.parametrize("cell", [[1, 2, 3], [[1, 2, 3]], np.array([1.0, 2, 3]), (1.0, 2.0, 3.0)])
    def test_a_modality_of_one_step_may_be_flat(self, cell):
        batch = from_rows({"vision": [cell]}, SHAPE, mask_visible=True)

        assert batch.values["vision"].tolist() == [[[1, 2, 3]]]
        assert batch.attend["vision"].tolist() == [[True]]

    @pytest.mark.parametrize("dtype", [object, np.float64])
    def test_arrays_of_any_kind_are_frames(self, dtype):
        cell = np.empty(2, dtype=object)
        cell[:] = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
        values, _ = read(cell if dtype is object else np.stack(cell).astype(dtype))

        assert values[:2] == [[1, 2], [3, 4]]

    def test_a_modality_without_a_column_is_missing_in_every_row(self):
        batch = from_rows({"text": [[[1, 2]], [[3, 4]]]}, SHAPE, mask_visible=True)

        assert batch.size == 2
        assert not batch.attend["vision"].any()


class TestRefusals:
    @pytest.mark.parametrize(
        ("cell", "message"),
        [
            ([[1.0, 2.0, 3.0]], r"row 0, text: 3 features a frame \(allowed: 2\)"),
            ([[]], r"0 features a frame"),
            ([[1.0, 2.0]] * 5, r"row 0, text: 5 frames \(allowed: at most 4\)"),
            (
                [[1.0, NAN]],
                r"row 0, text: a number is not finite \(allowed: finite numbers, or null for a whole frame\)",
            ),
            ([[1.0, None]], "a number is not finite"),
            ([[1.0, float("inf")]], "a number is not finite"),
            ([1.0, None], "not a list of frames of numbers"),
            ([[1.0, 2.0], [3.0]], "not a list of frames of numbers"),
            ([["a", "b"]], "not a list of frames of numbers"),
            ("[[1, 2]]", "not a list of frames of numbers"),
            (3.0, "not a list of frames of numbers"),
            ([[[1.0, 2.0]]], "nested too deep"),
        ],
    )
    def test_a_wrong_cell_is_refused_by_row_and_modality(self, cell, message):
        with pytest.raises(DataError, match=message):
            read(cell)

    def test_an_unknown_column_is_refused_with_the_known_ones(self):
        with pytest.raises(DataError, match=r"unknown modality 'smell' \(allowed: text, vision\)"):
            from_rows({"text": [None], "smell": [None]}, SHAPE, mask_visible=True)

    @pytest.mark.parametrize(
        ("columns", "said"),
        [({}, r"no modality among the columns \(allowed: text, vision\)"), ({"text": []}, "no rows")],
    )
    def test_no_rows_and_no_columns_are_refused(self, columns, said):
        with pytest.raises(DataError, match=said):
            from_rows(columns, SHAPE, mask_visible=True)
