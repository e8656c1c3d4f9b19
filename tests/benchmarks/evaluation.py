"""The robustness grid of 10 missing rates x 20 mask seeds against 200 bare forward passes over the same samples.

    python tests/benchmarks/evaluation.py --out tests/benchmarks/results/evaluation.json

The grid reads a split from disk (text 50x300 and audio 1x73, the shapes of MOSI), draws masks, hides frames and
predicts. The bare passes call `predict` as often on as many samples, on batches that lie ready: those of the grid's
first mask seed, so of the grid's own size. One thread, in turns, medians. The model is late_fusion unless told
otherwise: it is the cheapest, so that everything around it weighs most.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import SHAPE, SIZE, arguments, build, publish, taking_turns

from gapwise.data.arrays import ModalityArrays, SplitArrays
from gapwise.data.batch import ModalityBatch
from gapwise.data.store import Split
from gapwise.evaluation.grid import Predict, predict_grid
from gapwise.spec.model import LateFusionSpec, PrlfSpec, PromiseSpec
from gapwise.spec.protocol import ProtocolSpec
from gapwise.testing.datasets import write

MODELS = {"late_fusion": LateFusionSpec, "promise": PromiseSpec, "prlf": PrlfSpec}
RATES, MASK_SEEDS = ProtocolSpec().rates, range(20)


def drawn(samples: int, name: str) -> SplitArrays:
    """Noise in the shapes of MOSI, every sample of full length."""
    generator = np.random.default_rng(0)
    modalities = {
        modality: ModalityArrays(
            values=generator.normal(size=(samples * one.max_length, one.dim)).astype(np.float32),
            offsets=np.arange(samples + 1) * one.max_length,
            present=np.ones(samples, np.bool_),
        )
        for modality, one in SHAPE.modalities.items()
    }
    ids = [f"{name}-{number}" for number in range(samples)]
    labels = generator.uniform(-3.0, 3.0, samples).astype(np.float32)
    return SplitArrays(ids=ids, groups=ids, labels=labels, modalities=modalities)


def evaluated(predict: Predict, split: Split, seeds: range) -> None:
    predict_grid(predict, split, np.arange(len(split)), ProtocolSpec(), seeds)


def bare(predict: Predict, split: Split) -> Callable[[], None]:
    """As many passes over as many samples as the grid makes, on batches caught from one mask seed of it."""
    ready: list[ModalityBatch] = []

    def catch(batch: ModalityBatch) -> torch.Tensor:
        ready.append(batch)
        return torch.zeros(batch.size)

    evaluated(catch, split, range(1))

    def passes() -> None:
        with torch.inference_mode():
            for _ in MASK_SEEDS:
                for batch in ready:
                    predict(batch)

    return passes


def measure(name: str, samples: int, rounds: int) -> dict[str, float]:
    model = build(MODELS[name](**SIZE))
    state = model.initial_state()

    def predict(batch: ModalityBatch) -> torch.Tensor:
        return model.predict(batch, state).output

    with tempfile.TemporaryDirectory(prefix="gapwise-bench-") as folder:
        splits = {name: drawn(samples, name) for name in ("train", "valid", "test")}
        split = write(splits, Path(folder) / "noise").valid
        works = {"grid": lambda: evaluated(predict, split, MASK_SEEDS), "bare": bare(predict, split)}
        seconds = taking_turns(works, rounds, repeats=1)
    return {
        "views": len(RATES) * len(MASK_SEEDS),
        "samples": samples,
        "seconds_grid": seconds["grid"],
        "seconds_bare": seconds["bare"],
        "grid_over_bare": seconds["grid"] / seconds["bare"],
    }


def main() -> None:
    parser = arguments(__doc__, rounds=7, samples=128)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["late_fusion"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: measure(name, chosen.samples, chosen.rounds) for name in chosen.models}
    publish({"rounds": chosen.rounds, **found}, chosen.out)


if __name__ == "__main__":
    main()
