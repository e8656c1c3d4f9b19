"""Estimated missing rates: of frames, of tokens, of modalities that are not there. Nothing is faked."""

import pytest
import torch

from gapwise.data.batch import ModalityBatch
from gapwise.data.missing_rate import missing_rates
from gapwise.data.rows import from_rows
from gapwise.data.shape import DataShape, ModalityShape, TokenShape

TOKENS = TokenShape(vocabulary=100, unknown=1, opening=2, closing=3, config={}, digest="d")
SHAPE = DataShape(
    task="regression",
    modalities={"audio": ModalityShape(dim=2, max_length=4), "text": ModalityShape(dim=1, max_length=6, tokens=TOKENS)},
    label_range=(-3.0, 3.0),
)
FRAME, WORD = [1.0, 2.0], [50.0]


def asked(audio: object, text: object) -> float:
    batch = from_rows({"audio": [audio], "text": [text]}, SHAPE, mask_visible=False)
    return float(missing_rates(batch, SHAPE)[0])


@pytest.mark.parametrize(
    ("audio", "text", "rate"),
    [
        ([FRAME] * 4, [[2.0], WORD, WORD, [3.0]], 0.0),
        ([FRAME, None, None, FRAME], [[2.0], WORD, WORD, [3.0]], 0.25),
        ([FRAME], [[2.0], WORD, [1.0], [1.0], [1.0], [3.0]], 0.375),
        ([FRAME], [[2.0], [3.0]], 0.5),
        ([FRAME, [0.0, 0.0]], [[2.0], WORD, None, [3.0]], 0.5),
        (None, [[2.0], WORD, [3.0]], 0.5),
        (None, None, 1.0),
    ],
)
def test_the_share_of_missing_frames_is_averaged_over_modalities(audio: object, text: object, rate: float) -> None:
    assert asked(audio, text) == pytest.approx(rate)


def test_a_frame_is_there_if_any_feature_is(small_values: float = -0.0) -> None:
    values = torch.tensor([[[small_values, 1e-9], [0.0, 0.0]]])
    batch = ModalityBatch(
        {"audio": values}, {"audio": torch.ones(1, 2, dtype=torch.bool)}, torch.zeros(1), torch.zeros(1)
    )
    one = SHAPE.model_copy(update={"modalities": {"audio": SHAPE.modalities["audio"]}})
    assert missing_rates(batch, one).tolist() == [0.5]
