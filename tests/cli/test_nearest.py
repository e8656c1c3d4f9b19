"""A misspelt name is answered with the one that was probably meant, wherever a command takes a name.

Nothing is faked below `main`: studies are written by hand, and the registry is the embedded one with a model that has
no version.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gapwise.errors import nearest

ROOT = Path(__file__).parents[2]
SPACE, TRAIN = ROOT / "search_spaces" / "smoke.yaml", ROOT / "search_spaces" / "train_prlf.yaml"
Call = Callable[..., Any]


@pytest.fixture
def said(call: Call, write_study: Callable[..., Path], small: Path) -> Callable[..., str]:
    """The one line that a command is refused with, in a folder with a study `night` and a dataset `data`."""
    write_study(Path.cwd() / ".gapwise" / "studies", "night")
    (Path.cwd() / "data").symlink_to(small)
    (Path.cwd() / "space.yaml").write_text(SPACE.read_text())

    def run(*words: object) -> str:
        answer = call(*words)
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err.count("\n") == 1 and answer.err.startswith("error: ")
        return str(answer.err)

    return run


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("study", "show", "nihgt"), "night"),
        (("study", "trials", "night", "--sort", "objectiv"), "objective"),
        (("study", "trials", "night", "--state", "prunned"), "pruned"),
        (("study", "trials", "night", "--arm", "plrf"), "prlf"),
        (("promote", "nigth", "--name", "toy"), "night"),
        (("report", "nite"), None),
        (("data", "synth", "out", "--preset", "smal"), "small"),
        (("data", "import", TRAIN, "--format", "mmas", "--out", "o", "--name", "n"), "mmsa"),
        (
            ("data", "import", TRAIN, "--format", "npz", "--out", "o", "--name", "n", "--task", "regresion"),
            "regression",
        ),
        (("plan", SPACE, "--set", "second_phase.seed=3"), "seeds"),
        (("plan", SPACE, "--set", "train.protocol.name=frame"), "frames"),
        (("plan", SPACE, "--set", "pruner.name=hyperbnad"), "hyperband"),
        (("plan", "spaces.yaml"), "space.yaml"),
        (("plan", SPACE, "--warm-start", "nighty", "--data", "data"), "night"),
        (("train", TRAIN, "--data", "data", "--set", "model.name=plrf"), "prlf"),
        (("train", TRAIN, "--data", "data", "--set", "optimiser.wamup=1"), "warmup"),
        (("train", TRAIN, "--data", "data", "--set", "objective.metric=acc2_nonzero"), "acc2_non0"),
        (("submit", "--", "tun", "space.yaml"), "tune"),
        (("gc", "--study", "nights"), "night"),
    ],
    ids=lambda value: " ".join(str(word).rsplit("/", 1)[-1] for word in value) if isinstance(value, tuple) else "",
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    said: Callable[..., str], words: tuple[object, ...], meant: str | None
) -> None:
    line = said(*words)
    assert (f"did you mean {meant!r}?" in line) if meant else ("did you mean" not in line), line


@pytest.mark.parametrize(
    ("words", "meant"), [(("evalute",), "evaluate"), (("tune", SPACE, "--trails", "3"), "--trials")]
)
def test_a_misspelt_command_or_option_is_answered_by_typer(
    said: Callable[..., str], words: tuple[object, ...], meant: str
) -> None:
    assert meant in said(*words)


def test_a_misspelt_registered_name_or_alias_is_answered_with_the_nearest(said: Callable[..., str]) -> None:
    from gapwise.spec.home import home
    from gapwise.tracking.client import connect

    connect(home()).client.create_registered_model("mosi")
    for words in (
        ("registry", "show", "mosy"),
        ("registry", "history", "mosy"),
        ("registry", "rollback", "mosy", "--rate", "all"),
        ("predict", "mosy", "--data", "data", "--out", "o.csv"),
    ):
        assert "did you mean 'mosi'?" in said(*words)
    assert "did you mean 'models:/mosi'?" in said("evaluate", "mosi", "--data", "data")


def test_a_gate_s_metric_is_answered_with_the_nearest(said: Callable[..., str]) -> None:
    Path("gate.yaml").write_text(yaml.safe_dump({"also": {"acc2_nonn0": 0.02}}))
    assert "did you mean 'acc2_non0'?" in said("promote", "night", "--name", "toy", "--gate", "gate.yaml")


def test_what_looks_like_nothing_known_is_not_guessed() -> None:
    assert nearest("zzz", ["mosi", "mosei"]) == ""
    assert nearest("mosi", []) == ""
    assert nearest("mosii", ["mosi", "mosei"]) == "; did you mean 'mosi'?"
