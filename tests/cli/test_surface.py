"""The command line's surface is a promise to scripts: commands, option names, JSON keys. Nothing is faked.

Adding a command or an option is a deliberate act: it changes SURFACE here, and the design's table with it.
"""

import errno
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from ray.exceptions import RayTaskError

from gapwise.cli.main import app
from gapwise.cli.output import print_json
from gapwise.errors import StudyError
from gapwise.spec.loader import load_spec
from gapwise.spec.search import SearchSpec

Call = Callable[..., Any]
SPACE = Path(__file__).parents[2] / "search_spaces" / "smoke.yaml"

SURFACE = {
    "": ["--help", "--install-completion", "--show-completion", "--version"],
    "data synth": ["--help", "--json", "--preset", "--seed", "--size"],
    "data import": [
        "--format",
        "--help",
        "--json",
        "--label-range",
        "--modality",
        "--name",
        "--out",
        "--strict",
        "--task",
    ],
    "data append": ["--format", "--help", "--json", "--modality", "--split", "--strict", "--to"],
    "data check": ["--help", "--json"],
    "train": ["--address", "--data", "--help", "--json", "--resume", "--set", "--workers"],
    "tune": [
        "--address",
        "--concurrency",
        "--data",
        "--help",
        "--json",
        "--no-report",
        "--priority",
        "--report",
        "--resume",
        "--retry-failed",
        "--set",
        "--storage",
        "--study",
        "--time-budget",
        "--trials",
        "--warm-start",
    ],
    "retrain tick": ["--address", "--force", "--help", "--json"],
    "retrain history": ["--help", "--json", "--last"],
    "retrain serve": ["--address", "--help"],
    "plan": ["--data", "--help", "--json", "--resolved", "--set", "--trials", "--warm-start"],
    "evaluate": [
        "--baseline",
        "--data",
        "--diagnostics",
        "--help",
        "--json",
        "--mask-seeds",
        "--protocol",
        "--rates",
        "--split",
    ],
    "compare": ["--data", "--help", "--json", "--mask-seeds", "--metric", "--out", "--split"],
    "ablate": [
        "--address",
        "--data",
        "--help",
        "--json",
        "--mask-seeds",
        "--name",
        "--seeds",
        "--set",
    ],
    "promote": ["--data", "--dry-run", "--gate", "--help", "--json", "--name", "--require-approval"],
    "registry show": ["--help", "--json"],
    "registry history": ["--expect", "--help", "--json", "--verify"],
    "registry rollback": ["--help", "--json", "--rate", "--reason", "--to"],
    "registry copy": ["--as", "--help", "--json", "--rate", "--source"],
    "registry approve": ["--as", "--help", "--json"],
    "study list": ["--help", "--json"],
    "study show": ["--help", "--json"],
    "study trials": ["--arm", "--help", "--json", "--sort", "--state"],
    "study best": ["--help", "--json"],
    "study export": ["--help", "--json", "--out", "--summary"],
    "study delete": ["--force", "--help", "--json", "--yes"],
    "predict": ["--data", "--help", "--json", "--out", "--rate", "--split"],
    "report": ["--help", "--json", "--name", "--out"],
    "reproduce": ["--address", "--data", "--help", "--json", "--tolerance", "--workers"],
    "gc": ["--dry-run", "--help", "--json", "--keep-top", "--quota", "--study"],
    "submit run": [
        "--address",
        "--cpus",
        "--env",
        "--gpus",
        "--help",
        "--id",
        "--json",
        "--memory",
        "--no-wait",
        "--python",
        "--ship",
    ],
    "submit status": ["--address", "--help", "--json"],
    "submit logs": ["--address", "--follow", "--help", "--json"],
    "submit stop": ["--address", "--help", "--json"],
    "doctor": ["--address", "--concurrency", "--data", "--help", "--json", "--storage"],
}
COMMANDS = [name for name in SURFACE if name]


def options(command: Any) -> list[str]:
    context = command.make_context("gapwise", [], resilient_parsing=True)
    listed = command.get_params(context)
    return sorted(name for one in listed for name in (*one.opts, *one.secondary_opts) if name.startswith("--"))


def found(command: Any, path: str = "") -> dict[str, list[str]]:
    """Every leaf command with its options; of groups only the first, for the others have none of their own."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {path: options(command)}
    leaves = {"": options(command)} if not path else {}
    for name, one in inner.items():
        leaves |= found(one, f"{path} {name}".strip())
    return leaves


def test_commands_and_options_are_those_that_were_promised() -> None:
    assert found(typer.main.get_command(app)) == SURFACE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(call: Call, command: str) -> None:
    answer = call(*command.split(), "--help")
    assert answer.code == 0
    assert "Example" in answer.out
    assert f"gapwise {command}" in answer.out
    assert answer.err == ""


WITHOUT_JSON = {"retrain serve": "it runs until it is stopped and has no answer; its ticks have theirs in the record"}


def test_every_command_answers_with_json_but_those_that_have_no_answer() -> None:
    leaves = found(typer.main.get_command(app))
    assert {name for name, listed in leaves.items() if name and "--json" not in listed} == set(WITHOUT_JSON)


def leaf(path: str) -> Any:
    command = typer.main.get_command(app)
    for name in path.split():
        command = command.commands[name]  # type: ignore[attr-defined]
    return command


def examples(command: Any) -> list[list[str]]:
    """The words of every example, without the shell's prompt, quotes and what stands behind a `--`."""
    text = (command.epilog or "").replace("`", "\n")
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("gapwise ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_command_are_its_own_and_parse(command: str) -> None:
    """Names and values of options are looked at, as they are for a person; nothing is run."""
    own = [words for words in examples(leaf(command)) if words[1] == command.split()[0]]
    assert own
    for _, *words in own:
        root = typer.main.get_command(app)
        context = root.make_context("gapwise", list(words))
        assert isinstance(context.command, typer.core.TyperGroup)
        left = [*context._protected_args, *context.args]
        current: Any = root
        while getattr(current, "commands", None):
            name, current, left = current.resolve_command(context, left)
            context = current.make_context(name, left, parent=context)
            left = [*context._protected_args, *context.args]


@pytest.mark.parametrize("group", ["data", "registry", "study", "submit", ""])
def test_a_group_without_a_command_shows_its_help(call: Call, group: str) -> None:
    answer = call(*group.split())
    assert answer.code == 2
    assert "Usage" in answer.out + answer.err


def test_the_version_is_printed(call: Call) -> None:
    answer = call("--version")
    assert answer.code == 0
    assert answer.out.startswith("gapwise ")


def only_json(answer: Any) -> dict[str, Any]:
    assert answer.code == 0, answer
    assert answer.out.count("\n") == 1
    body = json.loads(answer.out)
    assert isinstance(body, dict)
    return body


def test_synth_and_check_print_one_object_with_the_promised_keys(call: Call) -> None:
    made = only_json(call("data", "synth", "made", "--preset", "small", "--seed", "3", "--json"))
    checked = only_json(call("data", "check", "made", "--json"))
    assert checked == made
    assert set(made) >= {"name", "task", "fingerprint", "splits", "modalities", "repaired"}
    assert set(made["splits"]) == {"train", "valid", "test"}
    assert all(set(one) == {"dim", "max_length"} for one in made["modalities"].values())


def test_append_prints_what_check_prints_and_what_it_did(call: Call, tmp_path: Path) -> None:
    rows = {"id": np.array(["x0", "x1"]), "group": np.array(["x", "x"]), "label": np.array([0.5, -0.5])}
    made = only_json(call("data", "synth", "made", "--json"))
    frames = {name: np.ones((2, 3, one["dim"]), np.float32) for name, one in made["modalities"].items()}
    np.savez(tmp_path / "may.npz", **{f"valid/{key}": column for key, column in (rows | frames).items()})
    words = ("data", "append", tmp_path / "may.npz", "--to", "made", "--format", "npz", "--split", 1, 0, 0)
    grown = only_json(call(*words, "--json"))
    assert grown.pop("appended") == {
        "step": 1,
        "added": {"train": 2, "valid": 0, "test": 0},
        "new_groups": 1,
        "placed_elsewhere": 2,
    }
    assert grown == only_json(call("data", "check", "made", "--json"))
    assert grown["parent"] == made["fingerprint"] and made["parent"] is None
    shown = call("data", "check", "made").out
    assert "growth" in shown and "may.npz" in shown and made["fingerprint"][:12] in shown


def test_append_says_that_the_file_s_own_split_does_not_count(call: Call) -> None:
    assert "ignored" in call("data", "append", "--help").out


def test_whatever_else_is_printed_stdout_holds_the_answer_alone(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(*_: object) -> None:
        sys.stdout.write("(raylet) A worker died or was killed\n")

    monkeypatch.setattr("gapwise.data.synth.synthesise", noisy)
    monkeypatch.setattr("gapwise.cli.data._show", lambda folder, as_json: print_json({"made": str(folder)}))
    done = call("data", "synth", "it", "--json")
    assert json.loads(done.out) == {"made": "it"}
    assert "(raylet)" in done.err


def test_plan_prints_one_object_with_the_promised_keys(call: Call) -> None:
    body = only_json(call("plan", SPACE, "--trials", "8", "--json"))
    assert set(body) >= {"trials", "seeds", "workers", "resources", "pack", "estimated_seconds", "space"}
    assert body["trials"] == {"promise": 8, "prlf": 8, "late_fusion": 4}
    assert body["estimated_seconds"] is None
    assert body["space"]["prlf"]["model.steps"]["role"] == "searched"


def test_plan_estimates_the_time_where_a_dataset_is_named_and_says_from_what(call: Call, small: Path) -> None:
    body = only_json(call("plan", SPACE, "--data", small, "--json"))
    assert body["estimated_seconds"] > 0
    assert "on one thread of this machine" in body["estimated_from"]
    assert body["resolved"]["train"]["objective"]["metric"] == "mae", "auto is decided by the data"


def test_a_resolved_space_has_every_default_and_is_the_same_study(call: Call) -> None:
    answer = call("plan", SPACE, "--resolved")
    Path("resolved.yaml").write_text(answer.out)
    assert "baseline_share: 0.5" in answer.out and "checkpoint_every: 1" in answer.out
    assert load_spec(SearchSpec, Path("resolved.yaml")) == load_spec(SearchSpec, SPACE)
    assert only_json(call("plan", SPACE, "--json"))["resolved"] == yaml.safe_load(answer.out)


def test_plan_says_how_large_the_second_phase_can_be(call: Call) -> None:
    body = only_json(call("plan", SPACE, "--trials", "8", "--json"))
    assert body["second_phase"]["configurations"] == {"promise": 2, "prlf": 2, "late_fusion": 2}
    assert body["second_phase_runs"] == 6 * body["seeds"]
    assert f"at most {6 * body['seeds']} runs" in call("plan", SPACE, "--trials", "8").out


def test_plan_says_what_a_pack_is_what_is_compiled_and_what_is_not_fused(call: Call) -> None:
    said = call("plan", SPACE, "--set", "pack=16", "--set", "compile=true").out
    assert "a worker that trains 16 trials fused, as one program" in said
    assert "compile: that program is compiled, which takes minutes for each kind of trial" in said
    assert "not fused" not in said
    said = call("plan", SPACE, "--set", "pack=auto", "--set", "train.micro_batch=8").out
    assert "as many trials as a probe finds best" in said and "compile:" not in said
    assert "not fused: prlf: a batch in parts (micro_batch 8) has no room for others" in said


def test_without_json_the_answer_is_for_people_and_still_on_stdout(call: Call) -> None:
    answer = call("plan", SPACE)
    assert answer.code == 0
    assert "model.fisher_lambda" in answer.out


def test_a_held_promotion_is_exit_code_3_and_an_interrupt_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object) -> None:
        raise typer.Exit(3)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gapwise.tuning.estimate.plan_study", held)
    assert call("plan", SPACE).code == 3
    monkeypatch.setattr("gapwise.tuning.estimate.plan_study", interrupted)
    answer = call("plan", SPACE)
    assert (answer.code, answer.out, answer.err) == (1, "", "stopped\n")


def test_an_error_that_comes_through_ray_is_still_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def through_ray(cause: Exception) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise RayTaskError("report", "Traceback (most recent call last):\n ...", cause).as_instanceof_cause()

        return fail

    full = OSError(errno.ENOSPC, "No space left on device", "/data/journal.log")
    for cause in (full, StudyError("the book of an earlier driver is still open", where="book.lock")):
        monkeypatch.setattr("gapwise.tuning.estimate.plan_study", through_ray(cause))
        answer = call("plan", SPACE)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer
        assert "Traceback" not in answer.err
        assert "No space left" in answer.err or "still open" in answer.err


def test_plan_shows_objectives_constraints_and_what_earlier_studies_give(
    call: Call, small: Path, write_study: Callable[..., Path]
) -> None:
    """The space is that of the earlier study, which `write_study` leaves behind."""
    old = write_study(Path.cwd() / ".gapwise" / "studies", "old")
    space = json.loads((old / "study.json").read_text())["space"] | {
        "trials": 4,
        "baseline_share": 0.5,
        "constraints": {"parameters": {"max": 5000}},
    }
    rates = {"clean": 0.0, "half": 0.5}
    space["objectives"] = {name: {"reduce": "rate", "rate": rate} for name, rate in rates.items()}
    Path("space.yaml").write_text(yaml.safe_dump(space))
    body = only_json(call("plan", "space.yaml", "--warm-start", "old", "--data", small, "--json"))
    assert body["objectives"]["half"] == {"metric": "mae", "reduce": "rate", "rate": 0.5}
    assert body["constraints"]["limits"] == {"parameters": 5000}
    assert body["constraints"]["defaults"]["prlf"]["parameters"] > 5000
    assert body["warm_start"]["sources"][0]["taken"] == {"prlf": 1, "late_fusion": 1}
    shown = call("plan", "space.yaml", "--warm-start", "old").out
    assert "clean: mae" not in shown and "clean: auto, r = 0" in shown, "without data the metric is open"
    assert "parameters at most 5,000" in shown
    assert "warm start (best) from old; name a dataset to see what fits" in shown
