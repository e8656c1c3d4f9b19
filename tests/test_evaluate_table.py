"""What `gapwise evaluate` shows of a judgement: the optima and the excess over each, where they are known.

Faked: the judgement, made up so that every figure can be told from the others.
"""

from typing import Any

import pytest

from gapwise.cli.evaluate import show


def cell(mean: float) -> dict[str, dict[str, float]]:
    return {"mae": {"mean": mean, "sd": 0.001}}


def judgement(**changed: Any) -> dict[str, Any]:
    body = {
        "protocol": "frames",
        "split": "valid",
        "mask_seeds": 2,
        "rates": {"0.0": cell(0.66), "0.9": cell(1.10)},
        "mean": cell(0.88),
        "floor": {"mae": 1.25},
        "baseline": None,
        "optimum": {"conditions": {"0.0": cell(0.60), "0.9": cell(1.00)}, "mean": cell(0.80)},
        "plugin_optimum": {"conditions": {"0.0": cell(0.64), "0.9": cell(1.05)}, "mean": cell(0.845)},
    }
    return {**body, **changed}


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_both_optima_and_the_excess_over_each_stand_beside_every_rate(capsys: pytest.CaptureFixture[str]) -> None:
    show("m", judgement())

    shown = rows(capsys.readouterr().out)
    assert ["0.0", "0.660", "0.600", "+0.060", "+10.0", "0.640", "+0.020", "+3.1"] in shown
    assert ["0.9", "1.100", "1.000", "+0.100", "+10.0", "1.050", "+0.050", "+4.8"] in shown
    assert ["mean", "0.880", "0.800", "+0.080", "+10.0", "0.845", "+0.035", "+4.1"] in shown
    assert ["optimum", "mean", "0.800", "±", "0.001"] in shown
    assert ["plug-in", "mean", "0.845", "±", "0.001"] in shown


def test_subsets_have_optima_too(capsys: pytest.CaptureFixture[str]) -> None:
    body = judgement(protocol="modalities")
    show("m", {**{key: value for key, value in body.items() if key != "rates"}, "subsets": body["rates"]})

    assert ["0.0", "0.660", "0.600", "+0.060", "+10.0", "0.640", "+0.020", "+3.1"] in rows(capsys.readouterr().out)


def test_nothing_is_said_of_optima_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    show("m", judgement(optimum=None, plugin_optimum=None))

    said = capsys.readouterr().out
    assert "optim" not in said and "excess" not in said
    assert ["0.0", "0.660", "±", "0.001"] in rows(said)
