"""Search spaces and outcomes small enough to read in a test."""

from collections.abc import Callable
from typing import Any

import pytest

from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Finished, Outcome

MakeSpace = Callable[..., SearchSpec]
MakeFinished = Callable[..., Finished]


@pytest.fixture
def make_space() -> MakeSpace:
    """Two arms (prlf and the baseline) with three parameters; keywords replace top-level keys."""

    def make(**changes: Any) -> SearchSpec:
        fields: dict[str, Any] = {
            "question": "which?",
            "arms": {
                "prlf": {
                    "parameters": {
                        "optimiser.lr": {"role": "nuisance", "low": 0.0001, "high": 0.01, "log": True},
                        "model.steps": {"role": "searched", "low": 1, "high": 4, "integer": True},
                        "model.fisher": {"role": "searched", "choices": ["precision", "trace", "ema"]},
                    }
                },
                "late_fusion": {
                    "parameters": {"optimiser.lr": {"role": "nuisance", "low": 0.0001, "high": 0.01, "log": True}}
                },
            },
            "trials": 6,
            "baseline_share": 0.5,
            "sampler": {"startup": 2},
            "pruner": {"name": "asha", "min_epochs": 2, "reduction": 2},
        }
        return SearchSpec.model_validate(fields | changes)

    return make


@pytest.fixture
def make_finished() -> MakeFinished:
    """A run that ended with a curve of one metric."""

    def make(
        curve: dict[str, float],
        *,
        number: int = 0,
        metric: str = "mae",
        state: Any = "complete",
        cost: float = 0.0,
        arm: str = "prlf",
        source: int | None = None,
        seed: int = 0,
    ) -> Finished:
        assignment = Assignment("search", arm, number, {}, seed, number if source is None else source)
        metrics = {} if state == "failed" else {metric: curve}
        return Finished(assignment, Outcome(state, None if state == "failed" else cost, 1, metrics, 1.0))

    return make
