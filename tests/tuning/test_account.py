"""What is said of a study: counts, stage, leaders, exports. Journals are the book's, training is faked."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.synth import synthesise
from gapwise.errors import SpecError
from gapwise.tuning.account import epochs_saved, line, stage, trial_rows, whole
from gapwise.tuning.export import export
from gapwise.tuning.leaders import leaders
from gapwise.tuning.reading import Study, read_study

WriteStudy = Callable[..., Path]
ReadStudy = Callable[..., Study]
UNTIL = ["search", "second phase", "refit", "finished"]


@pytest.fixture
def made(write_study: WriteStudy, tmp_path: Path) -> ReadStudy:
    def make(**how: Any) -> Study:
        write_study(tmp_path, "one", **how)
        return read_study(tmp_path, "one")

    return make


def test_a_line_counts_trials_by_model_and_state_and_names_the_best(made: ReadStudy, small: Path) -> None:
    said = line(made())
    assert said["arms"] == {
        "prlf": {"complete": 2, "pruned": 1, "failed": 1, "running": 0},
        "late_fusion": {"complete": 2, "pruned": 0, "failed": 0, "running": 0},
    }
    assert said["trials"] == {"complete": 4, "pruned": 1, "failed": 1, "running": 0}
    assert said["best"] == {"trial": "prlf-3", "objective": 0.8}
    assert (said["state"], said["dataset"]) == ("finished", "synthetic-small")


def test_the_baseline_is_named_best_only_where_there_is_no_other(made: ReadStudy) -> None:
    study = made()
    own, baseline = (
        [one for one in study.of("search") if one.assignment.arm == arm] for arm in study.space.arm_names()
    )
    better = [one._replace(outcome=one.outcome._replace(cost=0.1)) for one in baseline]
    assert line(replace(study, trials=[*better, *own]))["best"] == {"trial": "prlf-3", "objective": 0.8}
    assert line(replace(study, trials=better))["best"] == {"trial": "late_fusion-0", "objective": 0.1}


@pytest.mark.parametrize("until", UNTIL)
def test_the_stage_is_where_the_driver_died(made: ReadStudy, until: str) -> None:
    assert stage(made(until=until)) == until


def test_a_second_phase_of_which_nothing_runs_at_the_moment_is_still_that(made: ReadStudy) -> None:
    study = made(until="second phase")
    at_rest = [one for one in study.trials if one.outcome.state != "running"]
    assert stage(replace(study, trials=at_rest)) == "second phase"
    assert stage(replace(study, trials=at_rest, waiting=0)) == "refit"


def test_epochs_saved_are_those_that_pruned_trials_were_not_trained(made: ReadStudy) -> None:
    assert epochs_saved(made()) == 2


def test_the_way_to_go_on_is_named_for_a_stopped_study_only(made: ReadStudy, small: Path) -> None:
    study = made(until="refit")
    assert whole(study)["resume"] == f"gapwise tune SPACE.yaml --data {small} --study one --resume", (
        "of an older version"
    )
    again = replace(study, command=["a b.yaml", "--study", "one", "--storage", "postgresql://me@host/db"])
    assert whole(again)["resume"] == "gapwise tune 'a b.yaml' --study one --storage postgresql://me@host/db --resume"


def test_a_finished_study_has_no_way_to_go_on(made: ReadStudy) -> None:
    assert whole(made())["resume"] is None


def test_leaders_of_a_finished_study_are_its_result_s(made: ReadStudy) -> None:
    first = leaders(made())
    assert first.source == "second phase"
    assert (first.best["0.5"].trial, first.best["0.5"].mean, first.best["0.5"].seeds) == ("prlf-3", 1.4, 2)
    assert (first.baseline["0.5"].trial, first.floor) == ("late_fusion-0", 1.4)


def test_leaders_before_that_are_the_search_s_complete_trials_with_the_data_s_floor(made: ReadStudy) -> None:
    first = leaders(made(until="second phase"))
    assert first.source == "search"
    assert (first.best["0.0"].trial, first.best["0.0"].mean, first.best["0.0"].seeds) == ("prlf-3", 0.8, 1)
    assert first.baseline["0.0"].trial == "late_fusion-0"
    assert first.floor is not None and first.floor > 0


@pytest.mark.parametrize("there", [False, True], ids=["gone", "another dataset"])
def test_where_the_data_are_not_at_hand_the_floor_is_unknown(
    write_study: WriteStudy, tmp_path: Path, there: bool
) -> None:
    synthesise("small", tmp_path / "data", 1)
    write_study(tmp_path / "studies", "one", until="search", data=tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "away")
    if there:
        synthesise("small", tmp_path / "data", 2)
    assert leaders(read_study(tmp_path / "studies", "one")).floor is None


def test_a_row_has_what_a_person_compares(made: ReadStudy) -> None:
    rows = {row["trial"]: row for row in trial_rows(made())}
    assert rows["prlf-1"] | {"values": {}} == {
        "trial": "prlf-1",
        "phase": "search",
        "arm": "prlf",
        "number": 1,
        "source": 1,
        "seed": 0,
        "state": "pruned",
        "objective": 1.5,
        "best_epoch": 2,
        "epochs": 2,
        "seconds": 2.5,
        "reason": "",
        "micro_batch": None,
        "objective_changed": False,
        "values": {},
    }
    assert set(rows["prlf-1"]["values"]) == {"optimiser.lr"}
    assert (rows["prlf-2"]["objective"], rows["prlf-2"]["seconds"], rows["prlf-2"]["best_epoch"]) == (None,) * 3
    assert rows["prlf-2"]["reason"] == "NaN: the loss is nan"


def test_the_json_export_has_curves_by_epoch_and_by_rate_and_the_result(made: ReadStudy, tmp_path: Path) -> None:
    export(made(), tmp_path / "all.json", summary=False)
    said = json.loads((tmp_path / "all.json").read_text())
    assert said["format_version"] == 1
    assert said["space"]["prlf"]["optimiser.lr"]["values"] == "0.0001 to 0.01 log"
    pruned = said["trials"][1]
    assert pruned["objective_by_epoch"] == {"1": pytest.approx(1.8), "2": pytest.approx(1.7)}
    assert pruned["metrics"] == {"mae": {"0.0": 1.5, "0.5": 2.0}}
    assert said["result"]["best"]["0.0"]["trial"] == "prlf-3"


def test_the_csv_export_has_a_line_a_trial_and_a_column_a_value_and_a_rate(made: ReadStudy, tmp_path: Path) -> None:
    study = made(until="second phase")
    export(study, tmp_path / "all.csv", summary=False)
    with (tmp_path / "all.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["trial"] for row in rows] == [one.assignment.key for one in study.trials]
    assert [row["mae@0.5"] for row in rows[:3]] == ["1.5", "2.0", ""]
    assert float(rows[0]["value:optimiser.lr"]) == study.trials[0].assignment.values["optimiser.lr"]


@pytest.mark.parametrize("until", UNTIL)
def test_the_summary_is_json_with_a_line_a_trial_and_nothing_of_this_machine(
    made: ReadStudy, tmp_path: Path, until: str
) -> None:
    study = made(until=until)
    export(study, tmp_path / "short.json", summary=True)
    text = (tmp_path / "short.json").read_text()
    said = json.loads(text)
    assert (said["stage"], said["selected_on"]) == (until, "validation")
    assert [row["state"] for row in said["search"]["prlf"]][:3] == ["complete", "pruned", "failed"]
    assert sum(line.startswith('   {"trial": ') for line in text.splitlines()) == len(study.trials)
    assert ("winners" in said) == (until == "finished")
    assert str(tmp_path) not in text and "seconds" not in text and "changed" not in text


def test_a_summary_of_the_same_study_is_the_same_bytes(made: ReadStudy, tmp_path: Path) -> None:
    study = made()
    for name in ("first.json", "second.json"):
        export(study, tmp_path / name, summary=True)
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "summary", "said"),
    [
        ("all.xlsx", False, "cannot export to '.xlsx' (allowed: .json or .csv)"),
        ("all", False, "cannot export to 'a file without an ending'"),
        ("all.csv", True, "cannot export to '.csv' (allowed: .json with --summary)"),
        ("no/where/all.csv", False, "cannot be written: No such file or directory"),
    ],
)
def test_an_export_that_cannot_be_is_refused_and_leaves_nothing(
    made: ReadStudy, tmp_path: Path, name: str, summary: bool, said: str
) -> None:
    study = made(until="search")
    with pytest.raises(SpecError) as refused:
        export(study, tmp_path / name, summary=summary)
    assert said in str(refused.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["one"]
