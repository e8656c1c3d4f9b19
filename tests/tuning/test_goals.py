"""Several objectives, constraints and histories in the study's book, on a real Optuna journal.

Faked: training. A worker answers from the sampled values: `clean` is best near lr .0005, `robust` near lr .005, and a
model has a thousand parameters a step. A killed driver is a journal that is cut.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Outcome, infeasible
from gapwise.tuning.book import StudyBook
from gapwise.tuning.history import Past, WarmStart
from gapwise.tuning.limits import broken
from gapwise.tuning.space import default_values

MakeSpace = Callable[..., SearchSpec]
EPOCHS = 4
OBJECTIVES = {
    "clean": {"metric": "mae", "reduce": "rate", "rate": 0.0},
    "robust": {"metric": "mae", "reduce": "rate", "rate": 0.7},
}
TRAIN = {"epochs": EPOCHS, "objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.7]}}
NO_PRUNER, BY_ROBUST = {"name": "none"}, {"name": "asha", "min_epochs": 1, "reduction": 2, "on": "robust"}
SAMPLERS = [
    {"name": "tpe", "startup": 2},
    {"name": "tpe", "startup": 2, "group": True, "constant_liar": False},
    {"name": "gp", "startup": 2},
    {"name": "random"},
    {"name": "grid", "points": 2},
    {"name": "qmc"},
]


@pytest.fixture
def space_of(make_space: MakeSpace) -> MakeSpace:
    """Five trials of prlf and one of the baseline, TPE, two objectives, nothing pruned; keywords replace keys."""

    def make(**changes: Any) -> SearchSpec:
        fields: dict[str, Any] = {"train": TRAIN, "objectives": OBJECTIVES, "pruner": NO_PRUNER, "trials": 5}
        return make_space(**fields | {"baseline_share": 0.1, "sampler": SAMPLERS[0]} | changes)

    return make


def costs_of(one: Assignment, epoch: int) -> dict[str, float]:
    lr = one.values["optimiser.lr"]
    return {name: abs(math.log(lr / best)) + 1.0 / epoch for name, best in (("clean", 0.0005), ("robust", 0.005))}


def ending(one: Assignment, epoch: int, state: Any = "complete") -> Outcome:
    costs = costs_of(one, epoch)
    return Outcome(state, sum(costs.values()) / 2, epoch, {"mae": {"0.0": costs["clean"], "0.7": costs["robust"]}}, 0.5)


def measured(one: Assignment) -> dict[str, float]:
    return {"parameters": 1000.0 * one.values.get("model.steps", 1)}


def work(space: SearchSpec, book: StudyBook, one: Assignment) -> None:
    constraints = measured(one) if space.constraints.limits() else {}
    reason = broken(constraints, space.constraints)
    if reason:
        book.finish(one, infeasible(constraints, reason))
        return
    for epoch in range(1, EPOCHS + 1):
        costs = costs_of(one, epoch)
        body = {"objectives": costs} if space.objectives else {}
        if book.report(one, epoch, sum(costs.values()) / 2, body) == "stop":
            book.finish(one, ending(one, epoch, "pruned")._replace(constraints=constraints))
            return
    book.finish(one, ending(one, EPOCHS)._replace(constraints=constraints))


def search(space: SearchSpec, journal: Path, earlier: WarmStart | None = None) -> list[tuple[Any, ...]]:
    """Everything that is left; what the whole study says afterwards."""
    book = StudyBook(space, journal, earlier=earlier)
    while (one := book.next_search()) is not None:
        work(space, book, one)
    return told(book)


def told(book: StudyBook) -> list[tuple[Any, ...]]:
    found = book.finished("search")
    return [(one.assignment.key, one.assignment.values, one.outcome.state, one.outcome.best_epoch) for one in found]


def states(table: list[tuple[Any, ...]]) -> set[str]:
    return {row[2] for row in table}


def trials_of(journal: Path, arm: str = "prlf") -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    return storage.get_all_trials(storage.get_study_id_from_name(f"search/{arm}"))


def refuse_differing_cuts(
    space: SearchSpec, folder: Path, expected: list[tuple[Any, ...]], earlier: WarmStart | None = None
) -> None:
    """Cut the journal `whole` after its lines: what a new driver makes of the rest must not differ.

    After every third line, a step that falls on each kind of line sooner or later; with the Gaussian process, whose
    questions take long, after every eleventh.
    """
    lines = (folder / "whole").read_bytes().splitlines(keepends=True)
    different = []
    for count in range(1, len(lines), 11 if space.sampler.name == "gp" else 3):
        cut = folder / f"cut-{count}"
        cut.write_bytes(b"".join(lines[:count]))
        if search(space, cut, earlier) != expected:
            different.append((count, lines[count - 1]))
    assert not different


@pytest.mark.parametrize("pruner", [NO_PRUNER, BY_ROBUST], ids=["not pruned", "pruned on one"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: "-".join(map(str, one.values())))
def test_every_sampler_searches_several_objectives_and_continues_wherever_its_journal_is_cut(
    space_of: MakeSpace, tmp_path: Path, sampler: dict[str, Any], pruner: dict[str, Any]
) -> None:
    space = space_of(sampler=sampler, pruner=pruner)
    expected = search(space, tmp_path / "whole")
    assert len(expected) == 6
    assert ("pruned" in states(expected)) == (pruner is BY_ROBUST)
    refuse_differing_cuts(space, tmp_path, expected)


def test_the_sampler_learns_every_objective_of_a_complete_trial_in_their_order(
    space_of: MakeSpace, tmp_path: Path
) -> None:
    search(space_of(), tmp_path / "journal")
    for trial in trials_of(tmp_path / "journal"):
        curve = trial.user_attrs["outcome"]["metrics"]["mae"]
        assert trial.values == [curve["0.0"], curve["0.7"]]
        assert sorted(trial.intermediate_values) == [1, 2, 3, 4]


@pytest.mark.parametrize(("on", "lost"), [("clean", 1), ("robust", 0)])
def test_a_trial_is_stopped_by_the_objective_that_pruning_names(
    space_of: MakeSpace, tmp_path: Path, on: str, lost: int
) -> None:
    space = space_of(pruner=BY_ROBUST | {"on": on}, trials=2, baseline_share=0.5)
    book = StudyBook(space, tmp_path / "journal")
    first, _, second = (book.next_search() for _ in range(3))
    assert first is not None and second is not None and first.arm == second.arm == "prlf"
    verdicts = {}
    for one, costs in ((first, {"clean": 1.0, "robust": 2.0}), (second, {"clean": 2.0, "robust": 1.0})):
        verdicts[one.number] = book.report(one, 1, 1.5, {"objectives": costs})
    again = StudyBook(space, tmp_path / "journal")
    verdicts[0] = again.report(first, 1, 1.5, {"objectives": {"clean": 1.0, "robust": 2.0}})
    assert [number for number, verdict in verdicts.items() if verdict == "stop"] == [lost]


def test_an_objective_that_is_not_finite_at_an_epoch_is_as_bad_as_can_be(space_of: MakeSpace, tmp_path: Path) -> None:
    book = StudyBook(space_of(pruner=BY_ROBUST, trials=2, baseline_share=0.5), tmp_path / "journal")
    first, _, second = (book.next_search() for _ in range(3))
    assert first is not None and second is not None
    assert book.report(first, 1, 1.5, {"objectives": {"clean": 1.0, "robust": 9.0}}) == "go on"
    assert book.report(second, 1, 1.5, {"objectives": {"clean": 1.0}}) == "stop"


LIMIT = {"parameters": {"max": 2000}}


@pytest.mark.parametrize(
    ("sampler", "several"),
    [(SAMPLERS[0], True), (SAMPLERS[2], True), (SAMPLERS[3], True), (SAMPLERS[0], False), (SAMPLERS[2], False)],
    ids=["tpe, two objectives", "gp, two objectives", "random, two objectives", "tpe", "gp"],
)
def test_what_breaks_a_constraint_is_a_trial_without_figures_and_the_journal_continues_wherever_it_is_cut(
    space_of: MakeSpace, tmp_path: Path, sampler: dict[str, Any], several: bool
) -> None:
    space = space_of(sampler=sampler, constraints=LIMIT, objectives=OBJECTIVES if several else {})
    expected = search(space, tmp_path / "whole")
    assert states(expected) == {"complete", "infeasible"}
    assert len(expected) == 6, "an infeasible configuration counts as a trial"
    for _, values, state, _ in expected:
        assert (state == "infeasible") == (values.get("model.steps", 1) > 2)
    refuse_differing_cuts(space, tmp_path, expected)


def test_samplers_are_told_by_how_much_a_constraint_is_broken_or_kept(space_of: MakeSpace, tmp_path: Path) -> None:
    search(space_of(constraints=LIMIT), tmp_path / "journal")
    for trial in trials_of(tmp_path / "journal"):
        assert trial.constraints == {"parameters": trial.params["model.steps"] * 1000 / 2000 - 1}
        assert (trial.state is optuna.trial.TrialState.PRUNED) == (trial.params["model.steps"] > 2)


def test_a_driver_that_died_between_a_constraint_and_its_trials_end_ends_it_again(
    space_of: MakeSpace, tmp_path: Path
) -> None:
    space = space_of(constraints=LIMIT)
    expected = search(space, tmp_path / "whole")
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    after = next(n for n, line in enumerate(lines, 1) if b"constraints:parameters" in line)
    (tmp_path / "cut").write_bytes(b"".join(lines[:after]))
    assert search(space, tmp_path / "cut") == expected


@pytest.mark.parametrize("sampler", SAMPLERS[:3], ids=["tpe", "group", "gp"])
def test_a_sampler_that_learns_keeps_away_from_what_is_infeasible(
    space_of: MakeSpace, tmp_path: Path, sampler: dict[str, Any]
) -> None:
    """One parameter, and its better half is forbidden: a sampler that heard nothing of it would go on there."""
    arms = {"prlf": {"parameters": {"optimiser.lr": {"role": "searched", "low": 0.1, "high": 1.0}}}}
    space = space_of(arms=arms, sampler=sampler, constraints={"parameters": {"max": 500}}, objectives={}, trials=16)
    book, asked = StudyBook(space, tmp_path / "journal"), []
    while (one := book.next_search()) is not None:
        size = 1000 * one.values["optimiser.lr"] if one.arm == "prlf" else 1.0
        reason = broken({"parameters": size}, space.constraints)
        cost = 1.0 - size / 1000
        done = Outcome("complete", cost, 1, {"mae": {"0.0": cost}}, 0.1, constraints={"parameters": size})
        book.finish(one, infeasible({"parameters": size}, reason) if reason else done)
        if one.arm == "prlf":
            asked.append(size)
    late = asked[8:]
    assert sum(size > 520 for size in late) <= len(late) // 2, late
    assert max(size for size in late if size <= 500) > 400, late


def past(number: int, space: SearchSpec, lr: float, state: Any = "complete", costs: Any = (1.0, 2.0)) -> Past:
    values = default_values(space, "prlf") | {"optimiser.lr": lr}
    last = (3, 1.5) if state == "pruned" else None
    return Past(study="old", trial=f"prlf-{number}", values=values, state=state, costs=costs, last=last)


@pytest.fixture
def history(space_of: MakeSpace) -> WarmStart:
    """Twelve trials around lr .0002, where this study's own costs are not at their best, and four pruned ones."""
    space = space_of()
    complete = [past(n, space, 0.0002 * 1.05**n, costs=(0.01 * n, 0.02 * n)) for n in range(12)]
    pruned = [past(n, space, 0.009, "pruned", ()) for n in range(12, 16)]
    return WarmStart(use="history", arms={"prlf": [*complete, *pruned]})


@pytest.mark.parametrize("sampler", SAMPLERS[:3], ids=["tpe", "group", "gp"])
def test_a_history_changes_what_is_suggested_and_is_counted_nowhere(
    space_of: MakeSpace, tmp_path: Path, history: WarmStart, sampler: dict[str, Any]
) -> None:
    space = space_of(sampler=sampler, trials=4)
    without, given = search(space, tmp_path / "without"), search(space, tmp_path / "whole", history)
    names = ["prlf-0", "prlf-1", "prlf-2", "prlf-3", "late_fusion-0"]
    assert [row[0] for row in given] == [row[0] for row in without] == names
    assert given[0] == without[0], "the default comes first"
    assert given[1] != without[1], "the first question of the sampler knows the history already"
    assert len(trials_of(tmp_path / "whole")) == 4
    refuse_differing_cuts(space, tmp_path, given, history)


def test_a_history_draws_tpe_to_where_it_was_good(space_of: MakeSpace, tmp_path: Path, history: WarmStart) -> None:
    space = space_of(trials=12, objectives={})
    single = WarmStart(
        use="history",
        arms={"prlf": [one.model_copy(update={"costs": one.costs[:1]}) for one in history.arms["prlf"]]},
    )
    rows = search(space, tmp_path / "journal", single)
    first = [row[1]["optimiser.lr"] for row in rows if row[0].startswith("prlf")][1:5]
    assert sum(lr < 0.001 for lr in first) >= 3, first


def test_the_best_of_an_earlier_study_are_asked_right_after_the_default(space_of: MakeSpace, tmp_path: Path) -> None:
    space = space_of()
    best = WarmStart(use="best", arms={"prlf": [past(7, space, 0.003), past(3, space, 0.007)]})
    expected = search(space, tmp_path / "whole", best)
    assert [row[1]["optimiser.lr"] for row in expected[1:3]] == [0.003, 0.007]
    assert len(expected) == 6, "they are among the arm's trials"
    refuse_differing_cuts(space, tmp_path, expected, best)


def test_the_journal_holds_nothing_of_a_history(space_of: MakeSpace, tmp_path: Path, history: WarmStart) -> None:
    search(space_of(trials=3), tmp_path / "journal", history)
    written = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert not any("old" in json.dumps(line) for line in written)
