"""Which rows would be refused, or read otherwise, after a change of model. Nothing is faked: it is pure."""

from typing import Any

import pytest

from gapwise.data.shape import DataShape, ModalityShape, TokenShape
from gapwise.promotion.compatible import what_changed

TOKENS = TokenShape(vocabulary=100, unknown=1, opening=2, closing=3, config={}, digest="d")


def shape(**changes: Any) -> DataShape:
    modalities = {
        "audio": ModalityShape(dim=5, max_length=40),
        "text": ModalityShape(dim=1, max_length=9, tokens=TOKENS),
    }
    fields = {"task": "regression", "modalities": modalities, "label_range": (-3.0, 3.0)}
    return DataShape(**{**fields, **changes})


def with_audio(**changes: Any) -> DataShape:
    return with_modality("audio", **changes)


def with_modality(name: str, **changes: Any) -> DataShape:
    modalities = dict(shape().modalities)
    return shape(modalities={**modalities, name: modalities[name].model_copy(update=changes)})


@pytest.mark.parametrize(
    "asking",
    [
        shape(),
        with_audio(max_length=41),
        shape(modalities={**shape().modalities, "vision": ModalityShape(dim=3, max_length=2)}),
        shape(label_range=(-4.0, 4.0)),
    ],
)
def test_every_row_that_was_answered_still_is(asking: DataShape) -> None:
    assert what_changed(shape(), asking) == ""


@pytest.mark.parametrize(
    ("asking", "said"),
    [
        (with_audio(max_length=39), "at most 39 frames of audio, not 40"),
        (with_audio(dim=6), "6 features a frame of audio, not 5"),
        (shape(modalities={"text": shape().modalities["text"]}), "no audio"),
        (with_modality("text", tokens=None), "text as frames"),
        (with_audio(tokens=TOKENS), "audio as token ids"),
        (with_modality("text", tokens=TOKENS.model_copy(update={"unknown": 4})), "text in another tokenizer's ids"),
        (shape(task="classification", classes=3), "it answers one of 3 classes, not a score"),
    ],
)
def test_what_would_be_refused_or_read_otherwise_is_named(asking: DataShape, said: str) -> None:
    assert what_changed(shape(), asking) == said
