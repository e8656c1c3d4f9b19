"""A node keeps one copy of a dataset: what a process reads stays in the files that it maps, and is shared.

Faked: the data are noise, large enough to be seen, and the model answers zero. A fresh process does the reading, so
that nothing of the test's own memory counts; what libraries keep from a first use is counted before.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gapwise.data.arrays import ModalityArrays, SplitArrays, TokenArrays
from gapwise.testing.datasets import write
from gapwise.testing.memory import available

pytestmark = pytest.mark.skipif(not available(), reason="only Linux says what a process holds")

SAMPLES, STEPS, DIM, TOKENS = 5_000, 100, 64, 6_400
COLUMN = 4 * SAMPLES * TOKENS
"""Bytes of the values, of the token ids, and of the raw text: 128 MB each."""

READS = """
import sys
import numpy as np
import torch
from gapwise.data.loading import EpochBatches
from gapwise.data.shape import TokenShape
from gapwise.data.store import open_dataset, statistics
from gapwise.evaluation.grid import predict_grid
from gapwise.spec.train import TrainSpec
from gapwise.testing.memory import memory

plain = TokenShape(vocabulary=1 << 20, unknown=0, opening=None, closing=None, config={}, digest="")
spec = TrainSpec.model_validate({"batch_size": 64, "protocol": {"rates": [0.0, 0.5]}})

def read(split):
    statistics(split)
    batches = EpochBatches(split, spec, epoch=0, share=(0, 1))
    for index in range(len(batches)):
        batches[index]
    rows = np.arange(len(split))
    predict_grid(lambda batch: torch.zeros(batch.size), split, rows, spec.protocol, [0])
    whole = split.manifest.shape()
    text = whole.modalities["text"].model_copy(update={"tokens": plain})
    split.reading(whole.model_copy(update={"modalities": {"text": text}})).batch(rows[:64])

dataset = open_dataset(sys.argv[1])
read(dataset.valid)
before = memory()["Anonymous"]
read(dataset.train)
print(memory()["Anonymous"] - before)
"""


def drawn(samples: int, name: str) -> SplitArrays:
    generator = np.random.default_rng(0)
    values = ModalityArrays(
        values=generator.standard_normal((samples * STEPS, DIM), np.float32),
        offsets=np.arange(samples + 1) * STEPS,
        present=np.ones(samples, np.bool_),
    )
    ids = generator.integers(1, 1 << 20, samples * TOKENS, dtype=np.int32)
    names = [f"{name}-{number}" for number in range(samples)]
    return SplitArrays(
        ids=names,
        groups=names,
        labels=generator.uniform(-3, 3, samples).astype(np.float32),
        modalities={"text": values},
        raw={"text": [f"{number:08}" * (TOKENS // 2) for number in range(samples)]},
        tokens={"text": TokenArrays(ids=ids, offsets=np.arange(samples + 1) * TOKENS)},
    )


def test_a_process_that_trains_and_validates_holds_no_copy_of_the_split(tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    write({"train": drawn(SAMPLES, "train"), "valid": drawn(9, "valid"), "test": drawn(9, "test")}, folder)
    done = subprocess.run([sys.executable, "-c", READS, str(folder)], capture_output=True, text=True)
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < COLUMN  # one copy of any column is as much more; without any it was 15 to 49 MB
