"""gapwise in Python, for notebooks and scripts: the verbs of the command line as functions that return values.

A function here and the command of its name are the same code (`gapwise.verbs`), ask the same home (`.gapwise` or
GAPWISE_HOME) and raise the same one-line errors (`gapwise.errors`). Where a command prints a table, a value has
`to_frame()`.
"""

from gapwise.api.champion import Champion
from gapwise.api.functions import (
    evaluate,
    load_champion,
    load_dataset,
    load_study,
    promote,
    synthesise,
    train,
    tune,
)
from gapwise.api.values import Evaluation, Promotion, Study, TrainedModel

__all__ = [
    "Champion",
    "Evaluation",
    "Promotion",
    "Study",
    "TrainedModel",
    "evaluate",
    "load_champion",
    "load_dataset",
    "load_study",
    "promote",
    "synthesise",
    "train",
    "tune",
]
