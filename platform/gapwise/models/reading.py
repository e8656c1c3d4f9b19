"""Where a model's text encoder meets a dataset: the shape that a model of a spec reads, and a check that ids agree.

Ids of another tokenizer can lie inside the vocabulary and be framed alike (BERT's cased and uncased do), so where the
raw text is kept a few samples are tokenized and compared.
"""

from collections import Counter
from typing import Any

from gapwise.data.shape import DataShape, ModalityShape, TokenShape
from gapwise.data.store import Dataset
from gapwise.errors import DataError, SpecError, nearest
from gapwise.models import pretrained
from gapwise.spec.model import ModelSpec, PromiseSpec
from gapwise.spec.text import TextSpec

_SAMPLES = 32
_AGREEMENT = 0.5
"""Least share of the compared ids that the tokenizer must give too. Cut and cleaned text still agrees in nearly all."""


def read_shape(spec: ModelSpec, dataset: Dataset) -> DataShape:
    """The dataset's shape as a model of `spec` reads it: with token ids where the spec names a text encoder.

    Raises SpecError for an encoder that cannot be found or is too short, DataError for a dataset without such ids or
    with those of another tokenizer.
    """
    shape, text = dataset.manifest.shape(), spec.text
    if text is None:
        return shape
    if text.modality not in shape.modalities:
        raise SpecError(
            f"unknown modality {text.modality!r}{nearest(text.modality, shape.modalities)}",
            where="model.text.modality",
            allowed=sorted(shape.modalities),
        )
    folder = pretrained.locate(text.path)
    tokens, longest = pretrained.describe(folder), dataset.longest_tokens(text.modality)
    _refuse_too_long(longest + prompt_tokens(spec, text), pretrained.longest_input(folder))
    read = ModalityShape(dim=1, max_length=max(1, longest), tokens=tokens)
    read_as = shape.model_copy(update={"modalities": {**shape.modalities, text.modality: read}})
    for split in (dataset.train, dataset.valid):
        split.reading(read_as)
    if dataset.manifest.modalities[text.modality].raw:
        _refuse_other_tokenizer(dataset, text, tokens, pretrained.load_tokenizer(folder))
    return read_as


def prompt_tokens(spec: ModelSpec, text: TextSpec) -> int:
    """Tokens that stand before the encoder's input."""
    if text.mode != "prompted":
        return 0
    return spec.prompt_length if isinstance(spec, PromiseSpec) else text.prompts


def own_weights(shape: DataShape, text: TextSpec | None) -> DataShape:
    """The shape for a trained model that brings its encoder's weights itself, if it does."""
    if text is None or text.mode != "finetuned":
        return shape
    modality = shape.modalities[text.modality]
    assert modality.tokens is not None, "a model with a text encoder was built on tokens"
    bare = modality.model_copy(update={"tokens": modality.tokens.model_copy(update={"digest": ""})})
    return shape.model_copy(update={"modalities": {**shape.modalities, text.modality: bare}})


def _refuse_too_long(tokens: int, limit: int | None) -> None:
    if limit is not None and tokens > limit:
        raise SpecError(
            f"samples of {tokens} tokens, prompts included", where="model.text.path", allowed=f"at most {limit}"
        )


def _refuse_other_tokenizer(dataset: Dataset, text: TextSpec, shape: TokenShape, tokenizer: Any) -> None:
    raw, stored = dataset.train.raw(text.modality), dataset.train.tokens(text.modality)
    compared = agreed = 0
    for said, ids in zip(raw[:_SAMPLES], stored[:_SAMPLES], strict=True):
        kept, found = Counter(ids.tolist()), Counter(list(tokenizer(said)["input_ids"]))
        for special in shape.special:
            kept.pop(special, None)
        compared, agreed = compared + kept.total(), agreed + (kept & found).total()
    if agreed < _AGREEMENT * compared:
        raise DataError(
            f"the tokenizer of {text.path!r} gives {agreed} of {compared} stored token ids for the raw text: "
            "the ids were made by another tokenizer",
            where=f"{dataset.folder}/train/tokens:{text.modality}",
        )
