"""gapwise: experiments with multimodal models that must keep working when modalities go missing.

In a notebook `import gapwise` is enough: `gapwise.load_dataset`, `tune`, `load_champion` and the others are those of
`gapwise.api`, which loads when one is first asked for. Importing the package has no side effect and pulls in no heavy
library; see the layer table in README.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` finds them
    from gapwise.api import (
        Champion,
        Evaluation,
        Promotion,
        Study,
        TrainedModel,
        evaluate,
        load_champion,
        load_dataset,
        load_study,
        promote,
        synthesise,
        train,
        tune,
    )

__version__ = "0.1.0"
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gapwise' has no attribute {name!r}")
    return getattr(import_module("gapwise.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
