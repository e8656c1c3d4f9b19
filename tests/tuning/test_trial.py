"""One assignment from training to outcome, in this process.

Faked: the line to the study's book, which keeps what it is told and never stops a run.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from gapwise.data.store import open_dataset
from gapwise.errors import CheckpointError
from gapwise.evaluation.grid import score_grid
from gapwise.models.saved import write_tensors
from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Outcome, Phase
from gapwise.tuning.predictions import load_predictions, predictions_file
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


def kept_of(phase: Phase, folder: Path) -> Path:
    return predictions_file(folder, Assignment(phase, "prlf", 0, {}, 1, 0))


def test_a_run_of_the_second_phase_keeps_the_predictions_behind_its_figures(small: Path, tmp_path: Path) -> None:
    outcome = outcome_of("seeds", "prlf", small, tmp_path)

    kept = load_predictions(kept_of("seeds", tmp_path))
    assert kept is not None
    dataset = open_dataset(small)
    assert kept.values.shape == (2, 2, len(dataset.valid))
    grid = score_grid(kept, dataset.valid.labels, dataset.manifest.shape())
    assert {metric: grid.curve(metric) for metric in grid.metrics} == outcome.metrics
    assert [entry.name for entry in kept_of("seeds", tmp_path).parent.iterdir()] == ["predictions.safetensors"]


def test_a_search_trial_keeps_no_predictions(small: Path, tmp_path: Path) -> None:
    outcome_of("search", "prlf", small, tmp_path)

    assert load_predictions(kept_of("search", tmp_path)) is None
    assert not list(tmp_path.rglob("*.safetensors"))


def test_predictions_of_another_format_and_half_a_file_are_refused_by_name(tmp_path: Path) -> None:
    file = kept_of("seeds", tmp_path)
    file.parent.mkdir(parents=True)
    write_tensors(file, {"outputs": torch.zeros(1, 1, 2)}, {"format_version": 9, "conditions": ["0.0"]})
    with pytest.raises(CheckpointError, match=r"predictions format 9 \(allowed: 1\)"):
        load_predictions(file)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"predictions\.safetensors"):
        load_predictions(file)
