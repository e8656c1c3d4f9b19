"""The second phase on the real `small` validation split. Faked: training and the book.

A round here writes predictions that are off the labels by what a configuration is worth at each rate, and remembers
every run, as a journal does: a killed driver is one that starts again with the same memory.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapwise.data.protocols import build_protocol
from gapwise.data.store import Dataset, open_dataset
from gapwise.errors import StudyError
from gapwise.evaluation.grid import Outputs, score_grid
from gapwise.spec.search import SearchSpec
from gapwise.testing.datasets import in_classes, small_splits, write
from gapwise.testing.studies import run_rounds
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Assignment, Finished, Outcome, failure
from gapwise.tuning.leaders import front_members
from gapwise.tuning.predictions import predictions_file, save_predictions
from gapwise.tuning.second_phase import SecondPhase, second_phase
from gapwise.tuning.selection import first_of, standings
from gapwise.tuning.trial import Place

MakeSpace = Callable[..., SearchSpec]
MakeFinished = Callable[..., Finished]
PHASE = {"top_k": 2, "seeds": 4, "cap": 3, "mask_seeds": 2}


class Machine:
    """Runs rounds: `worse_by[source]` is what a configuration's answers are off by at every condition."""

    def __init__(self, place: Place, dataset: Dataset, worse_by: dict[tuple[str, int], float | list[float]]) -> None:
        self.place, self.dataset, self.worse_by = place, dataset, worse_by
        self.noise = 0.0
        """What odd seeds are worse by, and even ones better."""
        self.rounds: list[list[tuple[str, int, int]]] = []
        self.memory: dict[tuple[str, int, int], Finished] = {}

    def __call__(self, repeats: list[Repeat]) -> list[Finished]:
        asked = [(one.arm, one.source, one.seed) for one in repeats]
        self.rounds.append([one for one in asked if one not in self.memory])
        for one in reversed(self.rounds[-1]):  # the last asked for ends first
            self.memory[one] = self.run(*one)
        return list(self.memory.values())

    def run(self, arm: str, source: int, seed: int) -> Finished:
        assignment = Assignment("seeds", arm, 0, {}, seed, source)
        protocol = build_protocol(self.place.space.train.protocol)
        conditions = protocol.conditions(self.dataset.manifest.modalities)
        masks = self.place.space.second_phase.mask_seeds if protocol.seeded else 1
        rng = np.random.default_rng([source, seed, len(arm)])
        worse_by = np.asarray(self.worse_by[arm, source]) + self.noise * (-1) ** (seed + 1)
        outputs = Outputs(conditions, self.answers(rng, masks, len(conditions), worse_by))
        save_predictions(predictions_file(Path(self.place.folder), assignment), outputs)
        grid = score_grid(outputs, self.dataset.valid.labels, self.dataset.manifest.shape())
        return Finished(assignment, Outcome("complete", 0.0, 1, {m: grid.curve(m) for m in grid.metrics}, 1.0))

    def answers(self, rng: np.random.Generator, masks: int, conditions: int, worse_by: Any) -> Any:
        labels, shape = self.dataset.valid.labels, self.dataset.manifest.shape()
        worse = np.broadcast_to(np.asarray(worse_by, np.float64), conditions)[:, None, None]
        off = rng.normal(size=(conditions, masks, len(labels)))
        if shape.task == "regression":
            return (labels + 0.3 * off + worse).astype(np.float32)
        wrong = (off > 2.0 - worse).astype(np.int64)
        return np.eye(shape.classes, dtype=np.float32)[(labels + wrong) % shape.classes]


@pytest.fixture
def searched(make_finished: MakeFinished) -> list[Finished]:
    """Three configurations of prlf and two of the baseline, each good enough somewhere to run again."""
    return searched_on(make_finished, ["0.0", "0.5"], "mae", [1.0, 2.0, 3.0])


def searched_on(
    make_finished: MakeFinished, conditions: Iterable[str], metric: str, costs: list[float]
) -> list[Finished]:
    runs = [("prlf", n) for n in range(3)] + [("late_fusion", n) for n in range(2)]
    return [
        make_finished(dict.fromkeys(conditions, costs[number]), number=number, arm=arm, metric=metric, cost=number)
        for arm, number in runs
    ]


def space_of(make_space: MakeSpace, metric: str = "mae", protocol: Any = None, **phase: Any) -> SearchSpec:
    train = {"objective": {"metric": metric}, "protocol": protocol or {"rates": [0.0, 0.5]}}
    return make_space(second_phase=PHASE | {"top_k": 3} | phase, train=train)


@pytest.fixture
def dataset(small: Path) -> Dataset:
    return open_dataset(small)


EQUAL = {("prlf", 0): 0.0, ("prlf", 1): 0.0, ("prlf", 2): 0.0, ("late_fusion", 0): 0.1, ("late_fusion", 1): 0.1}
ONE_BEHIND = EQUAL | {("prlf", 1): 2.0}


def race(
    space: SearchSpec, dataset: Dataset, folder: Path, worse_by: Any, searched: list[Finished]
) -> tuple[Machine, SecondPhase]:
    machine = Machine(Place(space, str(dataset.folder), str(folder)), dataset, worse_by)
    return machine, run_rounds(second_phase(machine.place, searched), machine)


def test_rounds_are_two_seeds_of_everyone_and_then_one_more_of_those_still_in_the_race(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    machine, ended = race(space_of(make_space), dataset, tmp_path, ONE_BEHIND, searched)

    everyone = list(EQUAL)
    others = [one for one in everyone if one != ("prlf", 1)]
    assert [sorted(round_) for round_ in machine.rounds] == [
        sorted((*one, seed) for one in everyone for seed in (1, 2)),
        sorted((*one, 3) for one in others),
        sorted((*one, 4) for one in others),
    ]
    assert ended.dropped == {("prlf", 1): {"0.0": 2, "0.5": 2}}
    assert ended.runs_saved == 2
    assert len(ended.repeats) == 18


def test_one_that_still_has_a_rate_runs_on_but_cannot_win_where_it_was_dropped(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    specialist = EQUAL | {("prlf", 1): [2.0, 0.0], ("prlf", 2): 3.0}
    machine, ended = race(space_of(make_space), dataset, tmp_path, specialist, searched)

    assert ended.dropped[("prlf", 1)] == {"0.0": 2}
    assert set(ended.dropped[("prlf", 2)]) == {"0.0", "0.5"}
    assert ("prlf", 1, 4) in machine.memory
    rows = standings(ended.repeats, "mae", 4, ended.dropped, ended.chances)["0.0"]
    assert [(row.source, row.seeds) for row in rows if row.arm == "prlf"] == [(0, 4), (1, 4), (2, 2)]


def test_the_baseline_s_best_runs_all_its_seeds_however_far_behind(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    hopeless = EQUAL | {("late_fusion", 0): 5.0, ("late_fusion", 1): 8.0}
    machine, ended = race(space_of(make_space), dataset, tmp_path, hopeless, searched)

    assert ("late_fusion", 0, 4) in machine.memory
    assert ("late_fusion", 1, 3) not in machine.memory
    best = first_of(standings(ended.repeats, "mae", 4, ended.dropped, ended.chances)["0.0"], baseline=True)
    assert best is not None
    assert (best.source, best.seeds) == (0, 4)
    assert best.probability_best == 0.0


@pytest.mark.parametrize("changes", [{"eliminate": False}, {"seeds": 2}, {"min_seeds": 4}])
def test_without_elimination_everyone_runs_every_seed_in_one_plan(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path, changes: dict[str, Any]
) -> None:
    space = space_of(make_space, **changes)
    machine, ended = race(space, dataset, tmp_path, ONE_BEHIND, searched)

    assert [len(round_) for round_ in machine.rounds] == [5 * space.second_phase.seeds]
    assert (ended.dropped, ended.runs_saved) == ({}, 0)
    assert set(ended.chances["0.0"]) == set(EQUAL), "how probably each is best is told all the same"


def test_a_study_killed_after_any_run_decides_as_if_never_killed(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    machine, whole = race(space_of(make_space), dataset, tmp_path, ONE_BEHIND, searched)
    done = list(machine.memory.items())

    for kept in range(0, len(done), 3):
        again = Machine(machine.place, dataset, ONE_BEHIND)
        again.memory = dict(done[:kept])
        ended = run_rounds(second_phase(again.place, searched), again)
        assert set(again.memory) == set(machine.memory)
        assert ended._replace(repeats=[]) == whole._replace(repeats=[])


def test_a_round_is_decided_from_its_own_seeds_though_later_ones_are_known(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    """Behind by what three seeds can tell and two cannot."""
    place = Place(space_of(make_space), str(dataset.folder), str(tmp_path))
    machine = Machine(place, dataset, dict.fromkeys(EQUAL, 2.0) | {("prlf", 1): 2.35})
    machine.noise = 0.1

    ended, again = (run_rounds(second_phase(place, searched), machine) for _ in range(2))

    assert ended.dropped == again.dropped == {("prlf", 1): {"0.0": 3, "0.5": 3}}


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(b"")], ids=["gone", "emptied"])
def test_a_finished_run_whose_predictions_are_no_more_leaves_its_configuration_in_the_race(
    harm: Callable[[Path], object], make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    machine, _ = race(space_of(make_space), dataset, tmp_path, ONE_BEHIND, searched)
    harm(predictions_file(tmp_path, Assignment("seeds", "prlf", 0, {}, 1, 1)))

    ended = run_rounds(second_phase(machine.place, searched), machine)

    assert ended.dropped == {}
    assert ended.runs_saved == 0
    assert ended.chances == {}
    rows = standings(ended.repeats, "mae", 4, ended.dropped, ended.chances)["0.0"]
    assert {row.probability_best for row in rows} == {None}


def test_a_configuration_of_an_earlier_and_shorter_search_still_counts(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    """The search grew: what was chosen then and is not now has its seeds, and is no candidate for more."""
    space = space_of(make_space, cap=2)
    machine, _ = race(space, dataset, tmp_path, EQUAL, searched)
    machine.worse_by = EQUAL | {("prlf", 7): 0.0}
    for seed in (1, 2):
        machine.memory["prlf", 7, seed] = machine.run("prlf", 7, seed)

    ended = run_rounds(second_phase(machine.place, searched), machine)

    assert ("prlf", 7) in ended.chances["0.0"]
    assert ("prlf", 7, 3) not in machine.memory
    assert ended.runs_saved == 0


def test_a_seed_that_failed_stops_nobody(
    make_space: MakeSpace, dataset: Dataset, searched: list[Finished], tmp_path: Path
) -> None:
    machine = Machine(Place(space_of(make_space), str(dataset.folder), str(tmp_path)), dataset, EQUAL)
    for one in EQUAL:
        machine.memory[*one, 1] = Finished(Assignment("seeds", one[0], 0, {}, 1, one[1]), failure("NaN"))

    ended = run_rounds(second_phase(machine.place, searched), machine)

    assert ended.dropped == {}
    assert len(machine.memory) == 20


def test_subsets_of_modalities_are_conditions_with_one_mask_seed(
    make_space: MakeSpace, make_finished: MakeFinished, dataset: Dataset, tmp_path: Path
) -> None:
    space = space_of(make_space, protocol={"name": "modalities"})
    subsets = build_protocol(space.train.protocol).conditions(dataset.manifest.modalities)
    searched = searched_on(make_finished, subsets, "mae", [1.0, 2.0, 3.0])

    _, ended = race(space, dataset, tmp_path, ONE_BEHIND, searched)

    assert ended.dropped == {("prlf", 1): dict.fromkeys(subsets, 2)}
    assert list(ended.chances) == subsets


@pytest.mark.parametrize("metric", ["macro_recall", "accuracy", "f1_macro"])
def test_classes_race_too(make_space: MakeSpace, make_finished: MakeFinished, tmp_path: Path, metric: str) -> None:
    dataset = write(in_classes(small_splits()), tmp_path / "classes", task="classification")
    searched = searched_on(make_finished, ["0.0", "0.5"], metric, [0.9, 0.8, 0.7])

    _, ended = race(space_of(make_space, metric), dataset, tmp_path, ONE_BEHIND, searched)

    assert ended.dropped == {("prlf", 1): {"0.0": 2, "0.5": 2}}
    assert sum(ended.chances["0.5"].values()) == pytest.approx(1.0)


def test_nothing_to_choose_from_is_refused(
    make_space: MakeSpace, dataset: Dataset, make_finished: MakeFinished, tmp_path: Path
) -> None:
    failed = [make_finished({}, state="failed")]
    with pytest.raises(StudyError, match="no trial finished, so there is nothing to choose from"):
        race(space_of(make_space), dataset, tmp_path, EQUAL, failed)


OBJECTIVES = {name: {"metric": "mae", "reduce": "rate", "rate": rate} for name, rate in (("a", 0.0), ("b", 0.5))}


def with_objectives(make_space: MakeSpace, **phase: Any) -> SearchSpec:
    train = {"objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.5]}}
    second = PHASE | {"top_k": 1} | phase
    return make_space(second_phase=second, train=train, objectives=OBJECTIVES, pruner={"name": "none"})


def test_a_compromise_that_leads_at_no_rate_runs_again_and_keeps_all_its_seeds(
    make_space: MakeSpace, dataset: Dataset, make_finished: MakeFinished, tmp_path: Path
) -> None:
    """At each rate somebody is far better than prlf-1, but nobody is at both."""
    curves = {0: (1.0, 9.0), 1: (4.0, 4.0), 2: (9.0, 1.0)}
    searched = [make_finished({"0.0": clean, "0.5": robust}, number=n, cost=n) for n, (clean, robust) in curves.items()]
    searched.append(make_finished({"0.0": 9.5, "0.5": 9.5}, number=3, cost=3))
    worse = {("prlf", 0): [0.0, 4.0], ("prlf", 1): [1.5, 1.5], ("prlf", 2): [4.0, 0.0]}
    machine, ended = race(with_objectives(make_space), dataset, tmp_path, worse, searched)
    assert sorted({source for _, source, _ in machine.memory}) == [0, 1, 2]
    assert ended.dropped[("prlf", 1)] == {"0.0": 2, "0.5": 2}, "no winner of a rate"
    assert ("prlf", 1, 4) in machine.memory
    members = front_members(ended.repeats, machine.place.space.objectives)
    assert [(one.trial, one.seeds) for one in members] == [("prlf-0", 4), ("prlf-1", 4), ("prlf-2", 4)]


def test_where_nothing_keeps_within_the_constraints_the_study_says_so_with_the_limits(
    make_space: MakeSpace, dataset: Dataset, make_finished: MakeFinished, tmp_path: Path
) -> None:
    space = make_space(constraints={"parameters": {"max": 7}})
    searched = [make_finished({}, number=n, state=state) for n, state in enumerate(["infeasible"] * 2 + ["failed"])]
    said = r"no trial keeps within the constraints \(parameters at most 7\): 2 do not, 1 did not finish"
    with pytest.raises(StudyError, match=said):
        race(space, dataset, tmp_path, {}, searched)
