"""Has a model been trained or chosen on what is to decide over it? Then the decision would say nothing."""

from collections.abc import Mapping

import numpy as np

from gapwise.data.store import Split
from gapwise.errors import GateError
from gapwise.models.saved import ModelFolder

_NAMED = 3


def refuse_contaminated(models: Mapping[str, ModelFolder], split: Split) -> None:
    """Raises GateError naming samples of `split` that a model's training or validation data held, or might have.

    They are known by their id or by their content, so that neither another name nor other features hide them.
    """
    for name, model in models.items():
        called = f"version {name}" if name.isdigit() else name
        seen = model.seen.numpy().view(np.uint64)
        if not len(seen):
            raise GateError(
                "does not know which samples it was trained on", where=called, allowed="a model trained since"
            )
        known_N = np.isin(split.keys, seen) | (np.isin(split.content_keys, seen) & (split.content_keys != 0))
        count = int(known_N.sum())
        if count:
            some = ", ".join(split.ids[row] for row in np.flatnonzero(known_N)[:_NAMED])
            raise GateError(
                f"{count} of {len(split)} {split.name} samples were in the training or validation data of"
                f" {called}: {some}{', ...' if count > _NAMED else ''}",
                where=str(split.folder),
                allowed="a test split that none of the compared models has seen",
            )
