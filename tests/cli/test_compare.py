"""`gapwise compare` as it is typed, on real (tiny) models in a real SQLite MLflow.

Faked: the studies, which are as `write_study` leaves them, but for the models that they ship: those were trained here.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import open_dataset
from gapwise.data.synth import synthesise
from gapwise.models.saved import save_model
from gapwise.spec.home import Home
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.tracking import registering, registry
from gapwise.tracking.client import connect
from gapwise.tracking.train_run import TrainRun
from gapwise.training.checkpoint import trained_model
from gapwise.tuning.result import load_result, save_result

Call = Callable[..., Any]
WriteStudy = Callable[..., Path]
PROTOCOL = {"rates": [0.0, 0.5]}
SHIPPED = {"prlf-3": "prlf", "late_fusion-0": "late_fusion"}


def train(folder: Path, data: Path, arm: str, **changes: Any) -> Path:
    spec = tiny_spec(arm, **{"epochs": 1, "protocol": PROTOCOL, "objective": {"metric": "mae"}} | changes)
    job, found = trained_on(open_dataset(data), spec)
    save_model(folder, trained_model(job, found, found.kept.metrics))
    return folder


@pytest.fixture(scope="module")
def trained(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    made = {trial: train(place / trial, small, arm) for trial, arm in SHIPPED.items()}
    return made | {"other": train(place / "other", small, "late_fusion", protocol={"rates": [0.0, 0.3]})}


@pytest.fixture
def make(call: Call, write_study: WriteStudy, trained: dict[str, Path]) -> Callable[..., Path]:
    """`make("one")`: a finished study in the working directory's home, whose models can answer."""

    def made(name: str, **how: Any) -> Path:
        folder = write_study(Path.cwd() / ".gapwise" / "studies", name, **how)
        for trial in SHIPPED:
            place = folder / "refit" / trial / "seed-1001"
            if place.exists():
                shutil.rmtree(place)
                shutil.copytree(trained[trial], place)
        return folder

    return made


def answer(call: Call, *words: object) -> dict[str, Any]:
    done = call("compare", *words, "--mask-seeds", 2, "--json")
    assert done.code == 0, done
    body = json.loads(done.out)
    assert isinstance(body, dict)
    return body


def test_a_study_beside_its_own_baseline(call: Call, make: Callable[..., Path], small: Path) -> None:
    make("one")
    body = answer(call, "one/late_fusion-0", "one")
    assert set(body) >= {"metric", "split", "rates", "mean", "floor", "differences", "words", "contenders"}
    assert (body["metric"], body["split"], body["mask_seeds"]) == ("mae", "valid", 2)
    assert list(body["rates"]) == ["0.0", "0.5"] and list(body["mean"]) == ["one/late_fusion-0", "one"]
    for row in body["differences"]:
        grid = body["mean"] if row["condition"] == "mean" else body["rates"][row["condition"]]
        assert row["better_by"] == pytest.approx(grid["one/late_fusion-0"] - grid["one"])
        beyond = row["interval"][0] > 0 or row["interval"][1] < 0
        assert beyond == (row["verdict"] in ("better", "worse")) == (row["p"] <= row["level"])
    assert [row["condition"] for row in body["differences"]] == ["0.0", "0.5", "mean"]
    assert body["mean"]["one"] == pytest.approx(sum(row["one"] for row in body["rates"].values()) / 2)


def test_a_study_answers_each_rate_with_who_won_there(call: Call, make: Callable[..., Path]) -> None:
    folder = make("one")
    result = load_result(folder.parent, "one")
    best = result.best | {"0.5": result.baseline["0.5"]}
    save_result(folder, result.model_copy(update={"best": best}))
    body = answer(call, "one", "one/prlf-3", "one/late_fusion-0")
    assert body["contenders"][0]["models"] == {"0.0": "one/prlf-3", "0.5": "one/late_fusion-0"}
    assert body["rates"]["0.0"]["one"] == body["rates"]["0.0"]["one/prlf-3"]
    assert body["rates"]["0.5"]["one"] == body["rates"]["0.5"]["one/late_fusion-0"]
    same = {(row["contender"], row["condition"]) for row in body["differences"] if row["verdict"] == "the same"}
    assert same == {("one/prlf-3", "0.0"), ("one/late_fusion-0", "0.5")}


def test_runs_registered_versions_and_folders_are_found_with_their_data(
    call: Call, make: Callable[..., Path], small: Path, trained: dict[str, Path]
) -> None:
    make("one")
    here, dataset = Home(Path.cwd() / ".gapwise"), open_dataset(small)
    tracking = connect(here)
    with TrainRun.begin(tracking, here, tiny_spec("prlf", protocol=PROTOCOL), dataset, resume=None) as run:
        tracking.client.set_tag(run.run_id, "gapwise.model_folder", str(trained["prlf-3"]))
    registering.register(tracking, "syn", trained["late_fusion-0"], run_id=run.run_id, facts={})
    registry.set_alias(tracking, "syn", "champion-mr50", "1")
    body = answer(call, run.run_id, "models:/syn@champion-mr50", trained["prlf-3"], "one")
    names = [one["name"] for one in body["contenders"]]
    assert names == [run.run_id, "models:/syn@champion-mr50", str(trained["prlf-3"]), "one"]
    verdicts = {one: {row["verdict"] for row in body["differences"] if row["contender"] == one} for one in names[1:]}
    assert verdicts[str(trained["prlf-3"])] == verdicts["one"] == {"the same"}
    assert "the same" not in verdicts["models:/syn@champion-mr50"]


def test_a_parent_run_is_its_study_and_another_home_s_is_refused(call: Call, make: Callable[..., Path]) -> None:
    folder = make("one")
    tracking = connect(Home(Path.cwd() / ".gapwise"))
    tags = {"gapwise.kind": "study", "gapwise.study": "one"}
    run = tracking.client.create_run("0", tags=tags).info.run_id
    refused = call("compare", run, "one/late_fusion-0")
    assert (refused.code, refused.err.count("\n")) == (2, 1) and f"is not what run {run} tells of" in refused.err
    save_result(folder, load_result(folder.parent, "one").model_copy(update={"parent_run_id": run}))
    body = answer(call, run, "one/late_fusion-0")
    assert body["contenders"][0]["models"]["0.0"] == "one/prlf-3"


def test_reading_test_is_logged_with_who_was_compared(
    call: Call, make: Callable[..., Path], tmp_path: Path, trained: dict[str, Path]
) -> None:
    data = tmp_path / "data"
    synthesise("small", data, 0)
    make("one", data=data)
    assert answer(call, "one", "one/late_fusion-0")["reads_of_test"] == 0
    assert answer(call, "one", "one/late_fusion-0", "--split", "test")["reads_of_test"] == 1
    (line,) = (data / "test.exposures.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "compare one one/late_fusion-0"


def test_words_and_page_say_what_the_numbers_say(call: Call, make: Callable[..., Path]) -> None:
    make("one")
    done = call("compare", "one/late_fusion-0", "one", "--mask-seeds", 2, "--out", "page.html")
    assert done.code == 0
    assert "one against one/late_fusion-0:" in done.out and "Mean over conditions:" in done.out
    html = Path("page.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and html.count("<svg ") == 2 and "<script" not in html
    assert "one against one/late_fusion-0:" in html and "mean absolute error" in html
    assert sorted(path.name for path in Path.cwd().iterdir()) == [".gapwise", "page.html"]


def objective(metric: str) -> Any:
    return load_result(Path(".gapwise/studies"), "one").objective.model_copy(update={"metric": metric})


def changed(folder: Path, **fields: Any) -> None:
    save_result(folder, load_result(folder.parent, folder.name).model_copy(update=fields))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one"], "there is nothing to set it beside"),
        (["one", "one"], "'one' is named twice"),
        (["one", "onne"], "nothing is called 'onne'; did you mean 'one'?"),
        (["one", "one/prlf-7"], "study one: ships no model 'prlf-7'"),
        (["one", "f" * 32], "no run 'ffff"),
        (["one", "models:/nobody@champion-mr30"], "no registered model 'nobody'"),
        (["one", "open"], "study 'open' is not finished"),
        (["one", "gone"], "study gone cannot be judged again: the model of prlf-3 is not there"),
        (["one", "OTHER"], "another protocol than one: rates [0.0, 0.3], not [0.0, 0.5]"),
        (["one", "corr"], "corr: another metric than one: corr, not mae"),
        (["one", "elsewhere"], "elsewhere: another validation data than one"),
        (["one", "one/late_fusion-0", "--metric", "f1_non0"], "'f1_non0' cannot be compared on regression"),
        (["one", "one/late_fusion-0", "--split", "train"], "unknown split 'train' (allowed: valid, test)"),
        (["one", "one/late_fusion-0", "--mask-seeds", "1"], "--mask-seeds"),
        (["one", "one/late_fusion-0", "--out", "no/such/page.html"], "--out no/such/page.html: its folder"),
        (["one", "one/late_fusion-0", "--data", "nowhere"], "no dataset.json here"),
        (["one", "one/late_fusion-0", "--data", "DATA"], "its validation split is not the one that one was chosen on"),
    ],
)
def test_bad_input_is_one_line_and_reads_no_test(
    call: Call,
    make: Callable[..., Path],
    small: Path,
    trained: dict[str, Path],
    tmp_path: Path,
    words: list[str],
    said: str,
) -> None:
    make("one")
    spoil = {
        "open": lambda: make("open", until="refit"),
        "gone": lambda: shutil.rmtree(make("gone") / "refit"),
        "corr": lambda: changed(make("corr"), objective=objective("corr")),
        "elsewhere": lambda: changed(make("elsewhere"), fingerprints=dict.fromkeys(("dataset", "train", "valid"), "v")),
    }
    for word in words:
        spoil.get(word, lambda: None)()
    if "DATA" in words:
        synthesise("small", tmp_path / "data", 1)
    before = open_dataset(small).exposures()
    places = {"OTHER": trained["other"], "DATA": tmp_path / "data"}
    done = call("compare", *(places.get(word, word) for word in words))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert said in done.err
    assert open_dataset(small).exposures() == before


def test_where_the_data_are_gone_nothing_can_be_judged_again_and_that_is_said(
    call: Call, make: Callable[..., Path], small: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small, data)
    make("one", data=data)
    shutil.rmtree(data)
    done = call("compare", "one", "one/late_fusion-0")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the data are not there any more, so nothing can be judged again" in done.err
    assert answer(call, "one", "one/late_fusion-0", "--data", small)["split"] == "valid", "the same data elsewhere"


def test_with_a_metric_of_its_own_studies_of_different_metrics_can_be_compared(
    call: Call, make: Callable[..., Path]
) -> None:
    make("one")
    changed(make("two"), objective=objective("corr"))
    assert answer(call, "one", "two/late_fusion-0", "--metric", "acc2_non0")["metric"] == "acc2_non0"
