"""What a person sees of training, evaluating and other long work: consoles that write into strings, a clock of ours.

Epochs are written by hand, as the progress file of a run has them; only what counts an evaluation's steps trains a tiny
model.
"""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gapwise.cli.live import Sparse, span
from gapwise.cli.train_view import TrainView
from gapwise.cli.work_view import Stand, WorkView
from gapwise.data.store import open_dataset
from gapwise.distributed.progress import append_line, told
from gapwise.evaluation.hearing import heard_by, tell_stage, tell_step
from gapwise.models.saved import load_model_folder, save_model
from gapwise.promotion.judge import judge
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.train import TrainSpec
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.training.checkpoint import trained_model


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def console(*, terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=40, _environ={"TERM": "xterm"})


def written(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return [line.split("] ", 1)[-1] for line in console.file.getvalue().splitlines()]


def drawn(view: Any, width: int = 130) -> list[str]:
    plain = Console(file=io.StringIO(), width=width)
    plain.print(view._draw())
    return [" ".join(line.split()) for line in written(plain)]


SPEC = TrainSpec.model_validate(
    {"model": {"name": "late_fusion"}, "epochs": 100, "objective": {"metric": "mae"}, "protocol": {"rates": [0.0, 0.5]}}
)


def epoch(number: int, cost: float, best: float, epochs: int = 100) -> dict[str, Any]:
    return {
        "epoch": number,
        "epochs": epochs,
        "cost": cost,
        "best_cost": best,
        "metrics": {"mae": {"0.0": cost - 0.1, "0.5": cost + 0.1}},
        "losses": {"total": 2 * cost},
        "samples_per_second": 640.0,
        "train_seconds": 3.0 * number,
    }


class TestTraining:
    def test_the_newest_epoch_stands_beside_the_best_by_missing_rate(self, clock: Clock) -> None:
        view = TrainView("prlf on toy", SPEC, console=console(terminal=True), clock=clock)
        view.note(epoch(1, 0.8, 0.8))
        view.note(epoch(2, 0.9, 0.8))
        lines = drawn(view)
        assert lines[0] == "prlf on toy"
        assert lines[1].startswith("epoch 2/100 objective 0.9000 best 0.8000 (epoch 1) loss 1.8000 640 samples/s")
        assert lines[-3:] == ["mae, missing 0.0 0.5", "epoch 2 0.800 1.000", "best, epoch 1 0.700 0.900"]

    def test_the_time_left_is_that_of_the_epochs_that_are_left_and_passes(self, clock: Clock) -> None:
        view = TrainView("run", SPEC, console=console(terminal=True), clock=clock)
        view.note(epoch(90, 0.8, 0.8))
        assert drawn(view)[1].endswith("at most 30 s left")
        clock.now = 20.0
        assert drawn(view)[1].endswith("at most 10 s left")

    def test_a_resumed_run_knows_the_best_epoch_of_before(self, clock: Clock, tmp_path: Path) -> None:
        for one in (epoch(1, 0.8, 0.8), epoch(2, 0.7, 0.7)):
            append_line(tmp_path / "progress.jsonl", one)
        view = TrainView("run", SPEC, told(tmp_path / "progress.jsonl"), console(terminal=True), clock)
        view.note(epoch(3, 0.75, 0.7))
        assert "best 0.7000 (epoch 2)" in drawn(view)[1]

    def test_a_line_that_is_being_written_is_not_told(self, tmp_path: Path) -> None:
        file = tmp_path / "progress.jsonl"
        file.write_text(json.dumps({"a": 1}) + '\n{"b": ')
        assert told(file) == [{"a": 1}]
        assert told(tmp_path / "none") == []

    def test_without_a_terminal_a_hundred_quick_epochs_are_few_lines_the_first_and_last_among_them(
        self, clock: Clock
    ) -> None:
        plain = console(terminal=False)
        view = TrainView("run", SPEC, console=plain, clock=clock)
        with view:
            for number in range(1, 101):
                clock.now += 0.6
                view.note(epoch(number, 1 / number, 1 / number))
        lines = written(plain)
        assert 5 <= len(lines) <= 12
        assert lines[0].startswith("epoch   1/100") and lines[-1].startswith("epoch 100/100")
        assert lines[-1].endswith("640 samples/s"), "nothing is left at the end"

    def test_slow_epochs_are_told_again_and_again_though_a_tenth_takes_hours(self, clock: Clock) -> None:
        plain = console(terminal=False)
        view = TrainView("run", SPEC, console=plain, clock=clock)
        for number in range(1, 6):
            clock.now += 300.0
            view.note(epoch(number, 0.5, 0.5))
        assert len(written(plain)) == 5

    def test_before_the_first_epoch_it_says_that_it_starts(self, clock: Clock) -> None:
        view = TrainView("run", SPEC, console=console(terminal=True), clock=clock)
        clock.now = 12.0
        assert drawn(view) == ["run: starting, 12 s"]


class TestWork:
    def test_a_stage_says_how_much_is_done_and_the_time_left(self, clock: Clock) -> None:
        view = WorkView("gate of mosi", console(terminal=True), clock)
        view.stage("3 models on test", 400)
        clock.now = 30.0
        view.step(100)
        assert drawn(view)[:2] == ["gate of mosi", "3 models on test: 25 % after 30 s, about 2 min left"]

    def test_a_stage_of_unknown_length_says_how_long_it_takes_so_far(self, clock: Clock) -> None:
        view = WorkView("gate", console(terminal=True), clock)
        view.stage("weighing", 0)
        clock.now = 200.0
        assert drawn(view) == ["gate", "weighing: after 3 min"]

    def test_a_new_stage_begins_at_nothing(self, clock: Clock) -> None:
        view = WorkView("gate", console(terminal=True), clock)
        view.stage("one", 10)
        view.step(10)
        clock.now = 50.0
        view.stage("two", 10)
        assert view.now() == Stand("two", 0, 10, 0.0)
        assert view.now().seconds_left is None

    def test_what_takes_a_moment_says_nothing_beside_its_answer(self, clock: Clock) -> None:
        plain = console(terminal=False)
        with WorkView("evaluate", plain, clock) as view:
            view.stage("answers", 1000)
            for _ in range(1000):
                clock.now += 0.004
                view.step(1)
        assert written(plain) == []

    def test_long_work_without_a_terminal_is_a_line_in_each_tenth(self, clock: Clock) -> None:
        plain = console(terminal=False)
        with WorkView("gate", plain, clock) as view:
            view.stage("answers", 1000)
            for _ in range(1000):
                clock.now += 0.1
                view.step(1)
        assert len(written(plain)) == 10
        assert written(plain)[0] == "gate, answers: 10 % after 10 s, about 90 s left"

    def test_a_run_that_has_a_name_is_always_a_line(self, clock: Clock) -> None:
        plain = console(terminal=False)
        view = WorkView("ablations", plain, clock)
        view.stage("runs", 2)
        view.ended("whole/seed-0")
        assert written(plain) == ["1/2 whole/seed-0"]

    def test_the_picture_is_gone_when_the_answer_comes(self, clock: Clock) -> None:
        terminal = console(terminal=True)
        with WorkView("evaluate", terminal, clock) as view:
            view.stage("answers", 10)
        assert isinstance(terminal.file, io.StringIO)
        assert terminal.file.getvalue().rstrip().endswith("\x1b[2K"), "its lines are erased"


class TestHearing:
    def test_only_what_runs_within_is_heard(self) -> None:
        heard: list[tuple[str, int]] = []

        class Ear:
            def stage(self, name: str, total: int) -> None:
                heard.append((name, total))

            def step(self, count: int) -> None:
                heard.append(("", count))

        tell_step(1)
        with heard_by(Ear()):
            tell_stage("answers", 5)
            tell_step(5)
        tell_stage("later", 1)
        assert heard == [("answers", 5), ("", 5)]

    def test_the_steps_of_an_evaluation_add_up_to_what_was_announced(self, small: Path, tmp_path: Path) -> None:
        dataset = open_dataset(small)
        job, trained = trained_on(dataset, tiny_spec("late_fusion", epochs=1))
        save_model(tmp_path / "model", trained_model(job, trained, trained.kept.metrics))
        model = load_model_folder(tmp_path / "model")
        counted: dict[str, int] = {}
        totals: dict[str, int] = {}
        stages: list[str] = []

        class Ear:
            def stage(self, name: str, total: int) -> None:
                stages.append(name)
                totals[name] = total

            def step(self, count: int) -> None:
                counted[stages[-1]] = counted.get(stages[-1], 0) + count

        for name in ("frames", "modalities"):
            counted.clear()
            protocol = ProtocolSpec.model_validate({"name": name, "rates": [0.0, 0.5]})
            with heard_by(Ear()):
                judge(model, model, dataset, protocol, split=dataset.valid, mask_seeds=2)
            assert stages[-2:] == ["answers", "the optima"]
            assert counted == totals


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (7200, "2.0 h")])
def test_a_span_is_said_in_the_unit_that_people_use(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_lines_are_never_closer_than_some_seconds_even_if_each_is_a_tenth(clock: Clock) -> None:
    sparse = Sparse(clock)
    shown = []
    for tenth in range(1, 11):
        clock.now += 1.0
        shown.append(sparse.due(tenth / 10))
    assert shown == [False, False, False, False, True, False, False, False, False, True]
