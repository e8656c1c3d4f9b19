"""One assignment from training to outcome, in this process.

Faked: the line to the study's book, which keeps what it is told.
"""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gapwise.data.batch import ModalityBatch
from gapwise.data.store import open_dataset
from gapwise.errors import CheckpointError
from gapwise.evaluation.grid import score_grid
from gapwise.models.catalogue import build_model
from gapwise.models.saved import write_tensors
from gapwise.spec.search import LatencyLimit, SearchSpec
from gapwise.training.footprint import latency_ms, longest
from gapwise.training.job import Job
from gapwise.tuning.assignment import Assignment, LineLost, Outcome, Phase, Verdict
from gapwise.tuning.predictions import load_predictions, predictions_file
from gapwise.tuning.trial import ERROR_FILE, Place, job_of, run_trial, trial_folder
from gapwise.tuning.watchdog import STACKS_FILE, watched

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
    """Says "go on" for as long as it has no other verdict left."""

    def __init__(self, *verdicts: Verdict, ended: bool = False, retries: bool = False) -> None:
        self.outcomes: list[Outcome] = []
        self._retries = retries
        self.epochs: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self._verdicts, self._ended = list(verdicts), ended
        self.full: list[str] = []

    def begin(self, assignment: Assignment) -> Assignment | None:
        return None if self._ended else assignment

    def out_of_memory(self, assignment: Assignment) -> Assignment | None:
        """As the book says it: once."""
        return assignment._replace(micro_batch=50) if assignment.micro_batch is None and self._retries else None

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> Verdict:
        self.epochs.append(epoch)
        self.bodies.append(body)
        return self._verdicts.pop(0) if self._verdicts else "go on"

    def pause_for_room(self, said: str) -> None:
        self.full.append(said)

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


LONGER = SPACE.model_copy(update={"train": SPACE.train.model_copy(update={"epochs": 3})})
ONE = Assignment("search", "late_fusion", 0, {}, 1, 0)


def run(place: Place, line: Line, job: Job | None = None) -> None:
    run_trial(place, ONE, job_of(place, ONE) if job is None else job, line)


def test_a_paused_run_leaves_a_checkpoint_and_no_ending_and_goes_on_from_there(small: Path, tmp_path: Path) -> None:
    place = Place(LONGER, str(small), str(tmp_path))
    run(place, whole := Line())
    run(place, paused := Line("go on", "pause"))
    assert (paused.epochs, paused.outcomes) == ([1, 2], [])
    run(place, resumed := Line())
    assert resumed.epochs == [3]
    (expected,), (outcome,) = whole.outcomes, resumed.outcomes
    assert outcome._replace(train_seconds=0.0) == expected._replace(train_seconds=0.0)
    assert not trial_folder(place, ONE).exists()


def test_what_has_ended_is_not_run_again(small: Path, tmp_path: Path) -> None:
    run(Place(LONGER, str(small), str(tmp_path)), line := Line(ended=True))
    assert (line.epochs, line.outcomes) == ([], [])


class Breaks(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def forward(self, *_: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no such\nkernel"), "crash: RuntimeError: no such kernel (traceback: "),
        (torch.OutOfMemoryError("CUDA out of memory"), "OOM: OutOfMemoryError: CUDA out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "OOM: RuntimeError: [enforce"),
        (MemoryError(), "OOM: MemoryError: "),
    ],
)
def test_an_exception_is_an_ending_with_its_reason_and_a_traceback_in_a_file(
    small: Path, tmp_path: Path, error: Exception, reason: str
) -> None:
    place = Place(LONGER, str(small), str(tmp_path))
    run(place, line := Line(), replace(job_of(place, ONE), wrap=lambda _: Breaks(error)))
    (outcome,) = line.outcomes
    assert outcome.state == "failed"
    assert outcome.reason.startswith(reason)
    assert "Traceback" in (trial_folder(place, ONE) / ERROR_FILE).read_text()


class Deaf(Line):
    """A book that does not take what it is told."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self._lost = why

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> Verdict:
        raise LineLost(self._lost)


def test_an_error_of_the_book_is_no_ending_of_the_run(small: Path, tmp_path: Path) -> None:
    with pytest.raises(LineLost, match="the actor died"):
        run(Place(LONGER, str(small), str(tmp_path)), line := Deaf("the actor died"))
    assert (line.outcomes, line.full) == ([], [])


def test_a_full_disk_is_no_ending_of_the_run_but_pauses_the_study(small: Path, tmp_path: Path) -> None:
    place = Place(LONGER, str(small), str(tmp_path))
    full = Breaks(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/file"))
    run(place, line := Line(), replace(job_of(place, ONE), wrap=lambda _: full))
    assert (line.outcomes, line.full) == ([], ["/a/file: cannot be written: No space left on device"])
    assert not (trial_folder(place, ONE) / ERROR_FILE).exists()
    run(place, line := Deaf("the study's book does not answer:\nOSError: [Errno 28] No space left on device\n"))
    assert (line.outcomes, line.full) == ([], ["cannot be written: OSError: [Errno 28] No space left on device"])


class Cramped(nn.Module):
    """A GPU on which `most` samples fit; it says where it was asked for more."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most
        self.sizes: list[int] = []

    def forward(self, incomplete: ModalityBatch, *others: Any) -> Any:
        self.sizes.append(incomplete.size)
        if incomplete.size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(incomplete, *others)


def test_a_run_that_does_not_fit_is_tried_once_more_in_parts(small: Path, tmp_path: Path) -> None:
    place = Place(LONGER, str(small), str(tmp_path))
    gpus: list[Cramped] = []

    def cramped(model: nn.Module) -> nn.Module:
        gpus.append(Cramped(model, most=60))
        return gpus[-1]

    run(place, line := Line(retries=True), replace(job_of(place, ONE), wrap=cramped))
    (outcome,) = line.outcomes
    assert outcome.state == "complete"
    assert [max(one.sizes) for one in gpus] == [200, 50]
    assert "OutOfMemoryError" in (trial_folder(place, ONE) / ERROR_FILE).read_text()


def test_a_retry_goes_on_from_the_last_checkpoint(small: Path, tmp_path: Path) -> None:
    place = Place(LONGER, str(small), str(tmp_path))
    steps = 0

    class FillsUp(nn.Module):
        """Memory is short from the second epoch on."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, incomplete: ModalityBatch, *others: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > 3 and incomplete.size > 60:
                raise MemoryError
            return self.model(incomplete, *others)

    run(place, line := Line(retries=True), replace(job_of(place, ONE), wrap=FillsUp))
    assert line.epochs == [1, 2, 3]
    assert [outcome.state for outcome in line.outcomes] == ["complete"]


def test_a_run_that_does_not_fit_in_parts_either_has_failed(small: Path, tmp_path: Path) -> None:
    place = Place(LONGER, str(small), str(tmp_path))
    run(place, line := Line(retries=True), replace(job_of(place, ONE), wrap=lambda model: Cramped(model, most=1)))
    (outcome,) = line.outcomes
    assert outcome.reason.startswith("OOM: OutOfMemoryError: CUDA out of memory")


HANGS = """
import sys, time
from pathlib import Path
from gapwise.tuning.watchdog import watched
with watched(0.2, lambda said: print(said, flush=True), Path(sys.argv[1])):
    time.sleep(600)
print("never")
"""


def test_a_run_that_hangs_ends_its_process_after_telling_why(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert ended.stdout.startswith("timeout: ran longer than 0.2 s (stacks: ")
    assert "never" not in ended.stdout
    assert '"<string>", line 6' in (tmp_path / STACKS_FILE).read_text()


def test_a_run_within_its_time_hears_nothing(tmp_path: Path) -> None:
    with watched(600.0, lambda _: pytest.fail("told"), tmp_path):
        pass
    assert not (tmp_path / STACKS_FILE).exists()


def kept_of(phase: Phase, folder: Path) -> Path:
    return predictions_file(folder, Assignment(phase, "prlf", 0, {}, 1, 0))


def test_a_run_of_the_second_phase_keeps_the_predictions_behind_its_figures(small: Path, tmp_path: Path) -> None:
    outcome = outcome_of("seeds", "prlf", small, tmp_path)

    kept = load_predictions(kept_of("seeds", tmp_path))
    assert kept is not None
    dataset = open_dataset(small)
    assert kept.values.shape == (2, 2, len(dataset.valid))
    grid = score_grid(kept, dataset.valid.labels, dataset.manifest.shape())
    for metric in grid.metrics:  # the last bit of a sum depends on where an array happens to lie in memory
        assert grid.curve(metric) == pytest.approx(outcome.metrics[metric], rel=1e-12)
    assert set(grid.metrics) == set(outcome.metrics)
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


def constrained(small: Path, folder: Path, phase: Phase = "search", **constraints: Any) -> tuple[Outcome, Line]:
    space = SearchSpec.model_validate(SPACE.model_dump(exclude={"train": {"model"}}) | {"constraints": constraints})
    place, assignment, line = Place(space, str(small), str(folder)), Assignment(phase, "prlf", 0, {}, 1, 0), Line()
    run_trial(place, assignment, job_of(place, assignment), line)
    (outcome,) = line.outcomes
    return outcome, line


def test_a_model_that_is_too_large_is_not_trained_and_says_by_how_much(small: Path, tmp_path: Path) -> None:
    outcome, line = constrained(small, tmp_path, parameters={"max": 10}, latency_ms={"max": 1e-9})
    assert (outcome.state, outcome.cost, outcome.train_seconds, line.epochs) == ("infeasible", None, 0.0, [])
    assert list(outcome.constraints) == ["parameters"], "what is too large is not timed as well"
    assert outcome.reason == f"{outcome.constraints['parameters']:,.0f} parameters (at most 10)"


def test_a_model_that_is_too_slow_is_not_trained(small: Path, tmp_path: Path) -> None:
    outcome, line = constrained(small, tmp_path, latency_ms={"max": 1e-9, "repeats": 2})
    assert (outcome.state, line.epochs) == ("infeasible", [])
    assert outcome.reason.endswith("ms a sample (at most 1e-09)")


def test_what_keeps_within_its_constraints_is_trained_and_knows_its_size(small: Path, tmp_path: Path) -> None:
    outcome, line = constrained(small, tmp_path, parameters={"max": 10**9}, latency_ms={"max": 1e9, "repeats": 2})
    assert (outcome.state, line.epochs) == ("complete", [1])
    place, assignment = Place(SPACE, str(small), str(tmp_path)), Assignment("search", "prlf", 0, {}, 1, 0)
    job = job_of(place, assignment)
    built = build_model(job.spec.model, job.shape, job.statistics, 1)
    assert outcome.constraints["parameters"] == sum(one.numel() for one in built.parameters())
    assert outcome.constraints["latency_ms"] > 0


def test_the_second_phase_measures_nothing_again(small: Path, tmp_path: Path) -> None:
    outcome, _ = constrained(small, tmp_path, "seeds", parameters={"max": 10})
    assert (outcome.state, outcome.constraints) == ("complete", {})


def test_a_latency_is_the_median_pass_by_sample_without_those_that_warm_up(small: Path, tmp_path: Path) -> None:
    job = job_of(Place(SPACE, str(small), str(tmp_path)), Assignment("search", "prlf", 0, {}, 1, 0))
    passes = [9.0, 9.0, 9.0, 0.2, 0.1, 8.0]
    ticks = iter([moment for seconds in passes for moment in (0.0, seconds)])
    model = build_model(job.spec.model, job.shape, job.statistics, 1).eval()
    limit = LatencyLimit(max=1.0, batch_size=4, repeats=3)
    found = latency_ms(model, model.initial_state(), job.valid, limit, clock=lambda: next(ticks))
    assert found == pytest.approx(1000 * 0.2 / 4)


def test_the_longest_samples_are_those_with_the_most_frames(small: Path) -> None:
    valid = open_dataset(small).valid
    lengths = sum(valid.lengths.values())
    assert sorted(lengths[longest(valid, 5)]) == sorted(lengths)[-5:]
    assert len(longest(valid, 10**6)) == len(valid)


def test_every_epoch_tells_all_objectives_and_one_that_is_undefined_at_the_end_fails_the_trial(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = {"clean": {"metric": "mae", "reduce": "rate", "rate": 0.0}, "rank": {"metric": "corr"}}
    fields = SPACE.model_dump(exclude={"train": {"model"}}) | {"objectives": several, "pruner": {"name": "none"}}
    place = Place(SearchSpec.model_validate(fields), str(small), str(tmp_path))
    assignment, line = Assignment("search", "prlf", 0, {}, 1, 0), Line()
    run_trial(place, assignment, job_of(place, assignment), line)
    (outcome,) = line.outcomes
    assert outcome.state == "complete"
    curve = outcome.metrics
    mean = sum(curve["corr"].values()) / 2
    assert line.bodies[0]["objectives"] == {"clean": curve["mae"]["0.0"], "rank": pytest.approx(-mean)}

    undefined = {"clean": 1.0, "rank": float("nan")}
    monkeypatch.setattr("gapwise.tuning.trial.objective_costs", lambda metrics, objectives: undefined)
    other = Assignment("search", "prlf", 1, {}, 1, 1)
    run_trial(place, other, job_of(place, other), line)
    assert (line.outcomes[1].state, line.outcomes[1].reason) == ("failed", "NaN: rank of the kept epoch is nan")
    assert line.bodies[1]["objectives"] == {"clean": 1.0}
