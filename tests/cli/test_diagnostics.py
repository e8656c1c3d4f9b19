"""`gapwise evaluate --diagnostics` on tiny models, trained in this process; nothing is faked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import open_dataset
from gapwise.data.truth import TRUTH_FILE
from gapwise.models.saved import save_model
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.training.checkpoint import trained_model

Call = Callable[..., Any]
RATES = ["0.0", "0.5"]


@pytest.fixture(scope="module")
def models(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model folder a name."""
    dataset, place = open_dataset(small), tmp_path_factory.mktemp("models")
    for name in ("prlf", "promise", "late_fusion"):
        job, trained = trained_on(dataset, tiny_spec(name, epochs=1, batch_size=200))
        save_model(place / name, trained_model(job, trained, trained.kept.metrics))
    return place


def words(model: Path, data: Path, *more: object) -> tuple[object, ...]:
    return "evaluate", model, "--data", data, "--mask-seeds", 2, "--rates", "0,0.5", *more


def asked(call: Call, model: Path, data: Path, *more: object) -> dict[str, Any]:
    answer = call(*words(model, data, "--json", *more))
    assert answer.code == 0, answer
    body: dict[str, Any] = json.loads(answer.out)
    return body


def test_prlf_says_who_leads_and_whether_it_should(call: Call, models: Path, small: Path) -> None:
    body = asked(call, models / "prlf", small, "--diagnostics")["diagnostics"]

    assert set(body) == {"mask_seeds", "dominance", "distance", "reliability"}
    assert body["mask_seeds"] == 2 and body["distance"] is None
    assert list(body["dominance"]) == RATES
    shares = body["dominance"]["0.5"]
    assert sum(one["mean"] for one in [*shares["shares"].values(), shares["none"]]) == pytest.approx(1.0)
    found = body["reliability"]
    assert set(found) == {"correlations", "mean_of_correlations", "dominant"}
    assert set(found["correlations"]["0.5"]["text"]) == {"score", "count"}
    assert set(found["correlations"]["0.5"]["text"]["count"]) == {"mean", "sd"}
    assert set(found["mean_of_correlations"]) == {"score", "count", "cells"}
    assert set(found["dominant"]["0.5"]) == {"best_on_average", "chosen", "always_best", "best_available"}
    assert found["dominant"]["0.0"]["best_on_average"] == "text"


def test_promise_says_how_far_incomplete_is_from_complete(call: Call, models: Path, small: Path) -> None:
    body = asked(call, models / "promise", small, "--diagnostics")["diagnostics"]

    assert body["dominance"] is None and body["reliability"] is None
    assert set(body["distance"]["0.5"]) == {"cosine", "relative_l2"}
    assert body["distance"]["0.0"]["relative_l2"]["mean"] == pytest.approx(0, abs=1e-5)
    assert body["distance"]["0.5"]["relative_l2"]["mean"] > 0.01


def test_late_fusion_has_none_and_says_so_in_a_line(call: Call, models: Path, small: Path) -> None:
    body = asked(call, models / "late_fusion", small, "--diagnostics")["diagnostics"]
    said = call(*words(models / "late_fusion", small, "--diagnostics")).out

    assert body == {"mask_seeds": 2, "dominance": None, "distance": None, "reliability": None}
    assert said.endswith("late_fusion has no diagnostics\n")


def test_of_synthetic_data_the_optima_are_known(call: Call, models: Path, small: Path) -> None:
    body = asked(call, models / "late_fusion", small, "--rates", "0.3")

    assert all(0.3 < body[one]["conditions"]["0.3"]["mae"]["mean"] < 0.6 for one in ("optimum", "plugin_optimum"))


def test_they_are_printed_only_when_asked_for(call: Call, models: Path, small: Path) -> None:
    assert "diagnostics" not in asked(call, models / "prlf", small)
    assert "diagnostics" not in call(*words(models / "prlf", small)).out


@pytest.mark.parametrize(
    ("model", "titles"),
    [
        ("prlf", ["share of samples by dominant modality", "true Fisher information", "most informative one"]),
        ("promise", ["distance of incomplete from complete representations"]),
    ],
)
def test_tables_follow_the_usual_ones(call: Call, models: Path, small: Path, model: str, titles: list[str]) -> None:
    said = call(*words(models / model, small, "--diagnostics")).out

    places = [said.index(title) for title in ["floor", *titles]]
    assert places == sorted(places)
    assert "nan" not in said.split()


def test_an_undefined_correlation_is_a_dash_and_null(call: Call, small: Path, tmp_path: Path) -> None:
    """PRLF's `ema` definition alone: one score a modality."""
    dataset = open_dataset(small)
    spec = tiny_spec("prlf", epochs=1, batch_size=200)
    ema = spec.model_copy(update={"model": spec.model.model_copy(update={"fisher": "ema", "fisher_lambda": 0.0})})
    job, trained = trained_on(dataset, ema)
    save_model(tmp_path / "ema", trained_model(job, trained, trained.kept.metrics))

    body = asked(call, tmp_path / "ema", small, "--diagnostics")["diagnostics"]["reliability"]
    said = call(*words(tmp_path / "ema", small, "--diagnostics")).out

    assert all(
        cell["score"] is None and cell["count"] for row in body["correlations"].values() for cell in row.values()
    )
    line = next(line for line in said[said.index("true Fisher") :].splitlines() if line.startswith("0.5"))
    assert line.split().count("-") == 3


def test_without_a_truth_there_is_no_reliability_and_the_table_says_why(
    call: Call, models: Path, small: Path, tmp_path: Path
) -> None:
    shutil.copytree(small, tmp_path / "real")
    (tmp_path / "real" / TRUTH_FILE).unlink()

    body = asked(call, models / "prlf", tmp_path / "real", "--diagnostics")["diagnostics"]
    said = call(*words(models / "prlf", tmp_path / "real", "--diagnostics")).out

    assert body["dominance"] is not None and body["reliability"] is None
    assert "known on synthetic data only" in said


def test_a_truth_that_cannot_be_read_is_one_line_before_any_work(
    call: Call, models: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gapwise.verbs.evaluate.judge", lambda *_, **__: pytest.fail("judged first"))
    shutil.copytree(small, tmp_path / "broken")
    (tmp_path / "broken" / TRUTH_FILE).write_bytes(b"nothing")

    answer = call(*words(models / "prlf", tmp_path / "broken", "--diagnostics"))

    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert TRUTH_FILE in answer.err
