"""Many assignments in one worker, in this process, held against the same assignments run one by one.

Faked: the hand that gives assignments, and the line to the study's book, which keeps what it is told. Dropout is 0
where figures are compared, and they are compared as floats are: the fused program adds up in another order.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gapwise.errors import SpecError
from gapwise.spec.search import SearchSpec
from gapwise.training.fused import group
from gapwise.training.fused.group import FusedGroup
from gapwise.tuning import pack_size
from gapwise.tuning.assignment import Assignment, LineLost, Outcome, Verdict
from gapwise.tuning.pack import Pack
from gapwise.tuning.pack_size import Probed, best_size, refuse_overfull
from gapwise.tuning.trial import Place, job_of, run_trial, trial_folder

COMMON = {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2, "model.dropout": 0.0}


def space(**changes: Any) -> SearchSpec:
    fields: dict[str, Any] = {
        "question": "which?",
        "common": COMMON,
        "train": {
            "epochs": 3,
            "patience": 0,
            "batch_size": 100,
            "objective": {"metric": "mae"},
            "protocol": {"rates": [0.0, 0.5]},
        },
        "arms": {"prlf": None, "promise": None},
        "second_phase": {"mask_seeds": 2},
        "pack": 4,
    }
    return SearchSpec.model_validate(fields | changes)


def searched(arm: str, number: int, **values: Any) -> Assignment:
    return Assignment("search", arm, number, {"optimiser.lr": 10 ** (-4 + number / 4), **values}, 1, number)


class Hand:
    """Gives what is left of the arm that is asked for."""

    refills = True

    def __init__(self, *left: Assignment) -> None:
        self._left = list(left)
        self.asked: list[str | None] = []

    def take(self, arm: str | None) -> Assignment | None:
        self.asked.append(arm)
        found = next((one for one in self._left if arm in (None, one.arm)), None)
        if found is not None:
            self._left.remove(found)
        return found


class Line:
    """Says what `verdicts` has for a trial's next epoch, "go on" otherwise; `once` is raised at that epoch's report."""

    def __init__(self, **verdicts: list[Verdict]) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.epochs: list[tuple[str, int]] = []
        self.full: list[str] = []
        self._verdicts = verdicts
        self.lost_at = 0

    def begin(self, assignment: Assignment) -> Assignment | None:
        return None if assignment.key in self.outcomes else assignment

    def out_of_memory(self, assignment: Assignment) -> Assignment | None:
        del assignment
        return None

    def report(self, assignment: Assignment, epoch: int, cost: float, body: dict[str, Any]) -> Verdict:
        del cost, body
        if self.lost_at == epoch:
            raise LineLost("gone")
        self.epochs.append((assignment.key, epoch))
        left = self._verdicts.get(assignment.key.replace("-", "_"), [])
        return left.pop(0) if left else "go on"

    def pause_for_room(self, said: str) -> None:
        self.full.append(said)

    def finish(self, assignment: Assignment, outcome: Outcome) -> None:
        assert assignment.key not in self.outcomes, "each ending is told once"
        self.outcomes[assignment.key] = outcome


def packed(place: Place, line: Line, *given: Assignment, most: int = 4, left: tuple[Assignment, ...] = ()) -> Hand:
    hand = Hand(*given)
    Pack(place, hand, line, most=most, left=list(left)).run()
    return hand


def one_by_one(place: Place, *given: Assignment) -> dict[str, Outcome]:
    line = Line()
    for assignment in given:
        run_trial(place, assignment, job_of(place, assignment), line)
    return line.outcomes


def check_same(found: dict[str, Outcome], expected: dict[str, Outcome]) -> None:
    assert found.keys() == expected.keys()
    for key, outcome in found.items():
        other = expected[key]
        assert (outcome.state, outcome.reason) == (other.state, other.reason)
        assert outcome.cost == pytest.approx(other.cost, abs=2e-4)
        for metric in ("mae", "corr"):
            assert outcome.metrics[metric] == pytest.approx(other.metrics[metric], abs=2e-3)


@pytest.mark.parametrize("arm", ["late_fusion", "prlf", "promise"])
def test_a_pack_comes_to_what_its_trials_come_to_one_by_one(arm: str, small: Path, tmp_path: Path) -> None:
    given = [searched(arm, number) for number in range(6)]
    packed(Place(space(), str(small), str(tmp_path / "fused")), line := Line(), *given)
    check_same(line.outcomes, one_by_one(Place(space(), str(small), str(tmp_path / "plain")), *given))
    assert not any((tmp_path / "fused" / "trials").glob("*/*.safetensors")), "no checkpoint is left"


def test_who_is_stopped_makes_room_for_the_next_while_the_others_train(small: Path, tmp_path: Path) -> None:
    line = Line(prlf_1=["stop"])
    packed(Place(space(), str(small), str(tmp_path)), line, *(searched("prlf", n) for n in range(3)), most=2)
    assert line.outcomes["prlf-1"].state == "pruned"
    assert [line.outcomes[f"prlf-{n}"].state for n in (0, 2)] == ["complete", "complete"]
    assert line.epochs.index(("prlf-2", 1)) < line.epochs.index(("prlf-0", 3)), "the slot was taken at once"


def test_another_arm_waits_until_those_that_train_are_done(small: Path, tmp_path: Path) -> None:
    given = [searched("prlf", 0), searched("prlf", 1), searched("late_fusion", 0)]
    hand = packed(Place(space(), str(small), str(tmp_path)), line := Line(), *given, most=3)
    assert set(line.outcomes) == {"prlf-0", "prlf-1", "late_fusion-0"}
    assert hand.asked[:3] == [None, "prlf", "prlf"] and hand.asked[-1] is None


def test_another_shape_of_the_same_arm_waits_and_is_not_lost(small: Path, tmp_path: Path) -> None:
    given = [searched("prlf", 0), searched("prlf", 1, **{"model.width": 32}), searched("prlf", 2)]
    packed(Place(space(), str(small), str(tmp_path)), line := Line(), *given)
    assert {key: one.state for key, one in line.outcomes.items()} == dict.fromkeys(
        ("prlf-0", "prlf-1", "prlf-2"), "complete"
    )


def test_what_cannot_be_fused_runs_by_itself(small: Path, tmp_path: Path) -> None:
    given = [searched("late_fusion", 0), searched("late_fusion", 1)._replace(micro_batch=50)]
    packed(Place(space(), str(small), str(tmp_path / "a")), line := Line(), *given)
    check_same(line.outcomes, one_by_one(Place(space(), str(small), str(tmp_path / "b")), *given))


def test_one_that_was_cut_before_its_worker_died_runs_by_itself(small: Path, tmp_path: Path) -> None:
    class Remembers(Line):
        def begin(self, assignment: Assignment) -> Assignment | None:
            now = super().begin(assignment)
            return now._replace(micro_batch=50) if now is not None and now.number == 1 else now

    given = [searched("late_fusion", number) for number in range(3)]
    packed(Place(space(), str(small), str(tmp_path)), line := Remembers(), left=tuple(given))
    assert {key: (one.state, one.reason) for key, one in line.outcomes.items()} == {
        f"late_fusion-{number}": ("complete", "") for number in range(3)
    }


def test_a_worker_that_begins_a_second_pack_does_not_probe_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[int] = []
    monkeypatch.setattr(pack_size, "_found", {})
    monkeypatch.setattr(pack_size, "probe", lambda job, trials: probed.append(trials) or Probed(trials, trials, 1))
    place = Place(space(pack="auto"), str(small), str(tmp_path))
    assert [pack_size.at_once(place, [searched("prlf", number)]) for number in range(2)] == [1, 1]
    assert probed == [1, 4], "a trial's epoch is no cheaper at four"


def test_one_that_diverges_fails_alone(small: Path, tmp_path: Path) -> None:
    given = [searched("promise", 0), searched("promise", 1, **{"model.w_cross": 1e39}), searched("promise", 2)]
    packed(Place(space(), str(small), str(tmp_path / "a")), line := Line(), *given)
    assert line.outcomes["promise-1"].state == "failed"
    assert line.outcomes["promise-1"].reason.startswith("NaN: ")
    others = {key: line.outcomes[key] for key in ("promise-0", "promise-2")}
    check_same(others, one_by_one(Place(space(), str(small), str(tmp_path / "b")), given[0], given[2]))


def test_a_pause_leaves_a_checkpoint_of_each_and_any_worker_goes_on(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    validate = group.validate_fused
    monkeypatch.setattr(group, "validate_fused", lambda *given: judged.append(1) or validate(*given))
    given = [searched("prlf", number) for number in range(3)]
    place = Place(space(), str(small), str(tmp_path / "a"))
    paused = Line(prlf_0=["pause"], prlf_1=["pause"], prlf_2=["pause"])
    packed(place, paused, *given)
    assert (paused.outcomes, len(paused.epochs), len(judged)) == ({}, 3, 1), "nobody trains on for nobody"
    assert all(trial_folder(place, one).exists() for one in given)
    run_trial(place, given[0], job_of(place, given[0]), line := Line())  # unfused
    packed(place, line, left=tuple(given[1:]))
    assert {epoch for _, epoch in line.epochs} == {2, 3}
    check_same(line.outcomes, one_by_one(Place(space(), str(small), str(tmp_path / "b")), *given))


def test_what_has_ended_before_its_worker_died_is_not_run_again(small: Path, tmp_path: Path) -> None:
    given = [searched("prlf", number) for number in range(2)]
    place = Place(space(), str(small), str(tmp_path))
    packed(place, line := Line(), *given)
    before = list(line.epochs)
    packed(place, line, left=tuple(given))
    assert line.epochs == before


def test_a_line_that_is_lost_is_nobody_s_ending(small: Path, tmp_path: Path) -> None:
    line = Line()
    line.lost_at = 2
    with pytest.raises(LineLost):
        packed(Place(space(), str(small), str(tmp_path)), line, searched("prlf", 0), searched("prlf", 1))
    assert line.outcomes == {}


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception, int], list[int]]]:
    """From so many trials on, an epoch raises the error; returns how many trained at each epoch."""
    whole = FusedGroup.step_epoch

    def broken(error: Exception, most: int) -> list[int]:
        sizes: list[int] = []

        def step_epoch(self: FusedGroup) -> Any:
            sizes.append(len(self.names))
            if len(self.names) >= most:
                raise error
            return whole(self)

        monkeypatch.setattr(FusedGroup, "step_epoch", step_epoch)
        return sizes

    yield broken


@pytest.mark.parametrize(
    ("error", "sizes"), [(MemoryError("no room"), [4, 2, 2, 2]), (RuntimeError("no batching rule"), [4, 1, 1, 1])]
)
def test_where_all_fail_together_fewer_go_on(
    breaks: Any, error: Exception, sizes: list[int], small: Path, tmp_path: Path
) -> None:
    seen = breaks(error, 3)
    given = [searched("late_fusion", number) for number in range(4)]
    packed(Place(space(), str(small), str(tmp_path)), line := Line(), *given)
    assert {one.state for one in line.outcomes.values()} == {"complete"} and len(line.outcomes) == 4
    assert seen[:4] == sizes


def test_one_that_fails_even_alone_is_a_failure_with_its_reason(breaks: Any, small: Path, tmp_path: Path) -> None:
    breaks(RuntimeError("no such kernel"), 1)
    packed(Place(space(), str(small), str(tmp_path)), line := Line(), searched("prlf", 0), searched("prlf", 1))
    assert [one.reason.split(" (")[0] for one in line.outcomes.values()] == ["crash: RuntimeError: no such kernel"] * 2


@pytest.mark.parametrize(
    ("seconds", "each", "expected"),
    [
        ({1: 1.0, 4: 2.0, 16: 4.0, 64: 15.0}, 1, 16),  # 64 are hardly cheaper than 16
        ({1: 1.0, 4: 3.9}, 1, 1),  # does not pay
        ({1: 1.0, 4: 2.0, 16: 4.0, 64: 8.0}, 1, 64),
        ({1: 1.0, 4: 2.0, 16: 4.0}, 20, 16),  # 64 x 20 bytes do not fit into 1,000
        ({1: 40.0}, 1, 1),  # too slow to look further
    ],
)
def test_auto_takes_the_largest_that_pays_and_fits(seconds: dict[int, float], each: int, expected: int) -> None:
    assert best_size(lambda trials: Probed(trials, seconds[trials], each), 1000) == expected


@pytest.mark.parametrize(
    ("asked", "refills", "expected"),
    [("auto", True, "auto"), ("auto", False, False), (True, False, True), (False, True, False)],
)
def test_what_is_not_refilled_is_compiled_only_where_that_was_said(
    asked: bool | str, refills: bool, expected: bool | str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("gapwise.tuning.pack.FusedGroup", lambda *, compiles: told.append(compiles))
    hand, line = Hand(), Line()
    hand.refills = refills
    Pack(Place(space(compile=asked), "data", str(tmp_path)), hand, line, most=2, left=[])
    assert told == [expected]


def test_a_pack_that_does_not_fit_is_refused_with_what_does() -> None:
    refuse_overfull(10, 2, "prlf", 40_000_000, 1_000_000_000)
    with pytest.raises(SpecError, match=r"pack: 2 workers x 11 trials need 22 x 40 MB \(prlf\), .* at most 10"):
        refuse_overfull(11, 2, "prlf", 40_000_000, 1_000_000_000)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"executor": "train"}, "pack needs executor: warm"),
        ({"trials_per_device": 2}, "choose one"),
        ({"trial_seconds": 60.0}, "needs pack: 1"),
        ({"pack": 0}, "pack"),
        ({"pack": 1, "compile": True}, "compile is of packs: it needs pack above 1"),
        ({"compile": "always"}, "compile"),
    ],
)
def test_what_does_not_go_with_a_pack_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        space(**changes)
