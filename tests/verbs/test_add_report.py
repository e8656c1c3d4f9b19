"""Whether a study's report is drawn when it has ended, and that nothing of it fails the study.

Faked: the drawing, and that the server has taken the study.
"""

from pathlib import Path
from typing import Any

import pytest

from gapwise.errors import RegistryError
from gapwise.verbs import tune
from gapwise.verbs.tune import Ended, add_report


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setenv("GAPWISE_HOME", str(tmp_path / "home"))
    return []


class Result:
    study = "one"


def ended(*, told: bool = True) -> Ended:
    result: Any = Result()
    return Ended(result, told)


def drawing(monkeypatch: pytest.MonkeyPatch, answer: str | BaseException) -> list[str]:
    asked: list[str] = []

    def attach(tracking: Any, here: Any, result: Any) -> str:
        asked.append(result.study)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(tune, "attach_report", attach)
    return asked


def test_nothing_is_drawn_for_a_server_that_has_not_taken_the_study(
    monkeypatch: pytest.MonkeyPatch, said: list[str], tmp_path: Path
) -> None:
    asked = drawing(monkeypatch, "")
    add_report(ended(told=False), said.append)
    assert (asked, said, list(tmp_path.iterdir())) == ([], [], [])


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("", []),
        ("no report in MLflow: matplotlib is not installed", ["no report in MLflow: matplotlib is not installed"]),
        (KeyboardInterrupt(), ["no report in MLflow: interrupted; `gapwise report one` writes it"]),
    ],
)
def test_what_goes_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch, said: list[str], answer: Any, line: list[str]
) -> None:
    asked = drawing(monkeypatch, answer)
    add_report(ended(), said.append)
    assert (asked, said) == (["one"], line)


def test_a_server_that_went_away_meanwhile_is_one_line(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    def away(*_: Any) -> None:
        raise RegistryError("the tracking server does not answer")

    monkeypatch.setattr(tune, "connect", away)
    add_report(ended(), said.append)
    assert said == ["no report in MLflow: the tracking server does not answer"]
