"""One assignment from training to outcome, in this process.

Faked: the line to the study's book, which keeps what it is told and never stops a run.
"""

from pathlib import Path
from typing import Any

import pytest

from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Outcome, Phase
from gapwise.tuning.trial import Place, job_of, run_trial

SPACE = SearchSpec.model_validate(
    {
        "question": "which?",
        "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
        "train": {
            "epochs": 1,
            "patience": 0,
            "batch_size": 200,
            "objective": {"metric": "mae"},
            "protocol": {"rates": [0.0, 0.5]},
        },
        "arms": {"prlf": None, "promise": None},
        "second_phase": {"mask_seeds": 2},
    }
)


class Line:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> bool:
        return False

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def outcome_of(phase: Phase, arm: str, data: Path, folder: Path) -> Outcome:
    place, assignment, line = Place(SPACE, str(data), str(folder)), Assignment(phase, arm, 0, {}, 1, 0), Line()
    run_trial(place, assignment, job_of(place, assignment), line)
    (outcome,) = line.outcomes
    assert outcome.state == "complete"
    return outcome


@pytest.mark.parametrize(
    ("arm", "curve"), [("prlf", "dominant_share/text"), ("promise", "distance/cosine"), ("late_fusion", None)]
)
def test_a_run_of_the_second_phase_ends_with_diagnostics_where_the_model_has_any(
    small: Path, tmp_path: Path, arm: str, curve: str | None
) -> None:
    found = outcome_of("seeds", arm, small, tmp_path).diagnostics

    assert list(found.get(curve or "", {})) == (["0.0", "0.5"] if curve else [])
    assert bool(found) == (curve is not None)


def test_a_search_trial_has_none_because_most_are_thrown_away(small: Path, tmp_path: Path) -> None:
    assert outcome_of("search", "prlf", small, tmp_path).diagnostics == {}
