"""What a person sees of a study under way: consoles that write into strings, events written by hand, no study."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gapwise.cli.progress import StudyDisplay
from gapwise.distributed.turns import Turns
from gapwise.spec.search import SearchSpec
from gapwise.tuning.assignment import Assignment, Outcome
from gapwise.tuning.events import Event
from gapwise.tuning.study import StudyPlan

WriteStudy = Callable[..., Path]


@pytest.fixture
def plan(tmp_path: Path) -> StudyPlan:
    fields: dict[str, Any] = {"question": "which?", "arms": {"prlf": {}}, "trials": 3, "baseline_share": 0.5}
    fields["train"] = {"epochs": 4, "objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.5]}}
    space = SearchSpec.model_validate(fields)
    return StudyPlan(name="night", space=space, data=tmp_path, folder=tmp_path, concurrency=2)


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, height=40, _environ={"TERM": "xterm"})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def run(display: StudyDisplay) -> None:
    """Two trials end (the second is pruned after one of four epochs), a third runs; then a refit is done."""

    def event(kind: str, number: int, **body: Any) -> Event:
        return Event(kind, Assignment("search", "prlf", number, {}, 0, number), body, 0.0)

    with display:
        display.stage("search", 5)
        for number, state in enumerate(("complete", "pruned")):
            outcome = Outcome(state, 1.25 + number, 1, {"mae": {"0.0": 1.0, "0.5": 1.5}}, 3.0)  # type: ignore[arg-type]
            display.see([event("started", number), event("reported", number, epoch=1, epochs=4)])
            display.see([event("finished", number, **outcome._asdict())])
        display.see([event("started", 2)])
        display.stage("refit", 2)
        display.done("prlf-0/seed-1001")


def test_without_a_terminal_every_ending_is_a_log_line_and_nothing_else_is_said(plan: StudyPlan) -> None:
    plain = console(terminal=False)
    run(StudyDisplay(plan, plain))
    lines = [line.split("] ", 1)[1] for line in written(plain).splitlines()]
    assert lines == [
        "search: 5 runs",
        "search 1/5: prlf-0 complete, objective 1.2500, epoch 1, 3.0 s",
        "search 2/5: prlf-1 pruned, objective 2.2500, epoch 1, 3.0 s",
        "refit: 2 runs",
        "refit 1/2: prlf-0/seed-1001",
    ]
    assert "\x1b" not in written(plain)


def drawn(display: StudyDisplay) -> list[str]:
    plain = Console(file=io.StringIO(), width=100)
    plain.print(display._draw())
    return [" ".join(line.split()) for line in written(plain).splitlines()]


def test_on_a_terminal_a_table_counts_each_model_and_names_the_best_of_each_rate(plan: StudyPlan) -> None:
    terminal = console(terminal=True)
    display = StudyDisplay(plan, terminal)
    with display:
        display.stage("search", 5)
        assert "study night: search 0/5" in drawn(display)[0]
    run(display)
    display.stage("search", 5)
    lines = drawn(display)
    assert lines[0].endswith("3 epochs saved by pruning")
    assert lines[1:5] == [
        "model done running pruned failed best objective trial",
        "prlf 1 1 1 - 1.2500 prlf-0",
        "late_fusion - - - - - -",
        "missing best mae so far trial late_fusion",
    ]
    assert lines[5:] == ["0.0 1.000 prlf-0 -", "0.5 1.500 prlf-0 -"]
    assert "runs" not in written(terminal), "no log lines beside the table"
    assert "epochs saved by pruning" in written(terminal), "the last table stays on the screen"


def test_a_refit_counts_runs_and_no_trials(plan: StudyPlan) -> None:
    display = StudyDisplay(plan, console(terminal=True))
    run(display)
    assert drawn(display)[0].startswith("study night: refit 1/2 after ")
    assert not any(line.startswith("model") for line in drawn(display))


def test_who_waits_for_its_turn_on_a_cluster_reads_why_once_and_again_after_it_had_one(plan: StudyPlan) -> None:
    line = "waiting for 2 slots: study other (priority 5) is first"
    plain = console(terminal=False)
    display = StudyDisplay(replace(plan, turns=Turns("night 1", "night", 0)), plain)
    for held in (0, 0, 1, 0):
        display.stands(2, held, line)
    display.stands(0, 0, "")
    said = [one.split("] ", 1)[1] for one in written(plain).splitlines()]
    assert said == [line, line]


def test_the_table_says_why_a_study_has_not_all_it_wants(plan: StudyPlan) -> None:
    turns = Turns("night 1", "night", 0)
    display = StudyDisplay(replace(plan, turns=turns), console(terminal=True))
    assert turns.watchers == [display]
    display.stage("search", 5)
    display.stands(2, 1, "waiting for 1 slot: study other (priority 5) is first")
    assert drawn(display)[1] == "waiting for 1 slot: study other (priority 5) is first"
    display.stands(2, 2, "")
    assert not any("waiting" in line for line in drawn(display))


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(plan: StudyPlan) -> None:
    dumb = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "dumb"})
    run(StudyDisplay(plan, dumb))
    assert "search: 5 runs" in written(dumb)


def test_a_resumed_study_begins_with_what_its_journal_has(
    write_study: WriteStudy, plan: StudyPlan, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "studies", "one", until="search")
    display = StudyDisplay(replace(plan, folder=folder), console(terminal=True))
    display.stage("search", 1)
    assert "prlf 1 - 1 1 1.0000 prlf-0" in drawn(display)
