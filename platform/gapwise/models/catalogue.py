"""The one list of models, by name, and the one way to build them.

Adding a model is one file, one line here and one search space; the contract suite in `gapwise.testing` does the rest.
Refuses names that are not on the list, and datasets whose statistics or names do not fit.
"""

import re

import torch

from gapwise.data.shape import DataShape, Statistics
from gapwise.errors import DataError, SpecError
from gapwise.models.interface import MultimodalModel
from gapwise.models.late_fusion import LateFusion
from gapwise.models.prlf import Prlf
from gapwise.models.promise import Promise
from gapwise.spec.model import ModelSpec

MODELS: dict[str, type[MultimodalModel]] = {
    "late_fusion": LateFusion,
    "prlf": Prlf,
    "promise": Promise,
}

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def build_model(spec: ModelSpec, shape: DataShape, statistics: Statistics, seed: int) -> MultimodalModel:
    """A model with fresh parameters, the same for the same arguments whatever the order of modalities.

    The global random state is left as it was. Raises SpecError for an unknown name, DataError for unusable modalities.
    """
    if spec.name not in MODELS:
        raise SpecError(f"unknown model {spec.name!r}", allowed=sorted(MODELS))
    refuse_unusable(shape, statistics)
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        return MODELS[spec.name](spec, shape, statistics)


def refuse_unusable(shape: DataShape, statistics: Statistics) -> None:
    if not shape.modalities:
        raise DataError("the dataset has no modality")
    for name, modality in shape.modalities.items():
        if not _NAME.fullmatch(name):
            raise DataError(f"modality name {name!r} cannot be a parameter's name", allowed="letters, digits, _ and -")
        if name not in statistics.modalities:
            raise DataError("no training statistics", where=name, allowed=sorted(statistics.modalities))
        features = len(statistics.modalities[name].mean)
        if features != modality.dim:
            raise DataError(f"statistics of {features} features", where=name, allowed=str(modality.dim))
