"""Has a model been trained or chosen on what is to decide over it? Then the decision would say nothing."""

from collections.abc import Mapping

import numpy as np

from gapwise.data.store import Split
from gapwise.errors import GateError
from gapwise.models.saved import ModelFolder

_NAMED = 3


def refuse_unknowing(models: Mapping[str, ModelFolder]) -> None:
    """Raises GateError for a model that was trained before models kept what they had seen."""
    for name, model in models.items():
        if not len(model.seen):
            raise GateError(
                "does not know which samples it was trained on",
                where=_called(name),
                allowed="models trained since; another --name, where this one serves",
            )


def refuse_contaminated(models: Mapping[str, ModelFolder], split: Split) -> None:
    """Raises GateError naming samples of `split` that a model's training or validation data held.

    They are known by their id or by their content, so that neither another name nor other features hide them.
    """
    for name, model in models.items():
        seen = model.seen.numpy().view(np.uint64)
        known_N = np.isin(split.keys, seen) | (np.isin(split.content_keys, seen) & (split.content_keys != 0))
        count = int(known_N.sum())
        if count:
            some = ", ".join(split.ids[row] for row in np.flatnonzero(known_N)[:_NAMED])
            raise GateError(
                f"{count} of {len(split)} {split.name} samples were in the training or validation data of"
                f" {_called(name)}: {some}{', ...' if count > _NAMED else ''}",
                where=str(split.folder),
                allowed="a test split that none of the compared models has seen",
            )


def _called(name: str) -> str:
    return f"version {name}" if name.isdigit() else name
