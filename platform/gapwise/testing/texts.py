"""Text for tests: a pretrained encoder of a few thousand weights with its tokenizer, and a dataset of its token ids.

The encoder is a BERT with random weights: it knows nothing, but loads, saves and differentiates like a real one. A
dataset's sentences are drawn from its words; the label is how many of them are good less how many are bad.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapwise.data.arrays import ModalityArrays, SplitArrays, TokenArrays
from gapwise.data.manifest import SourceRecord
from gapwise.data.store import Dataset, open_dataset
from gapwise.data.writer import WriteOptions, write_dataset

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN, OPENING, CLOSING = 1, 2, 3
WORDS = ("good", "bad", *(f"word{number}" for number in range(20)))
VOCABULARY = len(SPECIAL) + len(WORDS)
LONGEST = 12
"""Tokens of the longest sentence, [CLS] and [SEP] included."""


def tiny_encoder(folder: Path, *, seed: int = 0, words: tuple[str, ...] = WORDS) -> Path:
    """A BERT of width 16 and two layers, with the tokenizer whose ids `spoken` uses."""
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


def spoken_splits(sizes: Mapping[str, int], *, seed: int = 0, **changes: Any) -> dict[str, SplitArrays]:
    """Sentences of 1 to 10 words as ids and raw text, two frames of audio that say the same with noise, and labels.

    `changes` replace arguments of every split's `SplitArrays`.
    """
    random = np.random.default_rng(seed)
    return {name: _split(name, samples, random, changes) for name, samples in sizes.items()}


def _split(name: str, samples: int, random: np.random.Generator, changes: dict[str, Any]) -> SplitArrays:
    lengths = random.integers(1, LONGEST - 1, samples)
    words = [random.integers(0, len(WORDS), length) for length in lengths]
    labels = np.array([np.sum(one == 0) - np.sum(one == 1) for one in words], np.float32)
    ids = [np.array([OPENING, *(one + len(SPECIAL)), CLOSING], np.int32) for one in words]
    frames = labels[:, None, None] + random.standard_normal((samples, 2, 3))
    fields: dict[str, Any] = {
        "ids": [f"{name}-{row}" for row in range(samples)],
        "groups": [f"{name}-{row}" for row in range(samples)],
        "labels": np.clip(labels, -3, 3),
        "modalities": {"text": _frames(np.zeros((samples, 1, 4))), "audio": _frames(frames)},
        "raw": {"text": [" ".join(WORDS[word] for word in one) for one in words]},
        "tokens": {"text": TokenArrays(ids=np.concatenate(ids), offsets=np.cumsum([0, *map(len, ids)]))},
    }
    return SplitArrays(**{**fields, **changes})


def _frames(block_NTD: np.ndarray[Any, np.dtype[np.float64]]) -> ModalityArrays:
    samples, steps, dim = block_NTD.shape
    return ModalityArrays(
        values=block_NTD.reshape(-1, dim).astype(np.float32),
        offsets=np.arange(samples + 1, dtype=np.int64) * steps,
        present=np.ones(samples, np.bool_),
    )


def write_spoken(splits: Mapping[str, SplitArrays], out: Path) -> Dataset:
    """The splits as a dataset on disk."""
    source = SourceRecord(file="test", digest="0" * 64)
    options = WriteOptions(name=out.name, task="regression", source=source, groups="sample")
    write_dataset(splits, out, options)
    return open_dataset(out)


def spoken(out: Path, sizes: Mapping[str, int] | None = None) -> Dataset:
    """A dataset of `spoken_splits`."""
    return write_spoken(spoken_splits(sizes or {"train": 60, "valid": 24, "test": 24}), out)
