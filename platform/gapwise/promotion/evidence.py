"""What the gate looks at: what every model answers on one split, under the same masks."""

from collections.abc import Mapping

import numpy as np
import torch

from gapwise.data.batch import ModalityBatch
from gapwise.data.store import Dataset, Split
from gapwise.evaluation.grid import Outputs, answers_of, predict_grid
from gapwise.evaluation.hearing import tell_stage
from gapwise.evaluation.metrics import constant_outputs, constants
from gapwise.models.saved import ModelFolder, rebuild
from gapwise.promotion.gate import FLOOR, Answers
from gapwise.promotion.judge import refuse_other_shape
from gapwise.spec.protocol import ProtocolSpec


def answers(
    models: Mapping[str, ModelFolder],
    dataset: Dataset,
    split: Split,
    protocol: ProtocolSpec,
    *,
    metric: str,
    mask_seeds: int,
) -> Answers:
    """Of every model by name, and of the floor. Raises DataError for a dataset that is not of a model's kind."""
    for model in models.values():
        refuse_other_shape(model, dataset)
    shape = dataset.manifest.shape()
    tell_stage(f"{len(models)} models on {split.name}", len(models) * answers_of(split, protocol, mask_seeds))
    found = {name: outputs(model, split, protocol, mask_seeds) for name, model in models.items()}
    first = next(iter(found.values()))
    constant = constant_outputs(constants(dataset.train.labels, shape)[metric], len(split), shape).astype(np.float32)
    floor = np.broadcast_to(constant, (*first.values.shape[:2], *constant.shape))
    return Answers(
        metric=metric,
        conditions=first.conditions,
        models={**{name: one.values for name, one in found.items()}, FLOOR: floor},
        labels=split.labels,
        groups=split.groups,
        shape=shape,
    )


def outputs(model: ModelFolder, split: Split, protocol: ProtocolSpec, mask_seeds: int) -> Outputs:
    """What a model answers on a whole split under mask seeds 1..n."""
    network, state = rebuild(model), model.state

    def answer(batch: ModalityBatch) -> torch.Tensor:
        return network.predict(batch, state).output

    rows = np.arange(len(split), dtype=np.int64)
    return predict_grid(answer, split.reading(model.shape), rows, protocol, range(1, mask_seeds + 1))
