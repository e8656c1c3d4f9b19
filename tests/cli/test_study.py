"""`gapwise study` and `gapwise gc` as they are typed. Studies on disk are as drivers leave them (`write_study`), the
tracking store is a real SQLite; of the registry only what aliases name is faked where a test needs some.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.cli.options import size
from gapwise.distributed.lock import DriverLock
from gapwise.promotion.in_use import InUse
from gapwise.spec.home import Home
from gapwise.tuning.assignment import infeasible
from gapwise.tuning.book import StudyBook
from gapwise.tuning.reading import read_study

Call = Callable[..., Any]
WriteStudy = Callable[..., Path]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking store, made once: a new one takes seconds."""
    from gapwise.tracking.client import connect

    home = Home(tmp_path_factory.mktemp("store"))
    connect(home)
    return home.root / "mlflow.db"


@pytest.fixture
def studies(call: Call, store: Path) -> Path:
    """The folder of studies of the working directory that `call` runs in."""
    home = Home(Path.cwd() / ".gapwise")
    home.studies.mkdir(parents=True)
    shutil.copy(store, home.root)
    return home.studies


def body(answer: Any) -> dict[str, Any]:
    assert answer.code == 0, answer
    said = json.loads(answer.out)
    assert isinstance(said, dict)
    return said


def refused(answer: Any) -> str:
    assert (answer.code, answer.out) == (2, ""), answer
    assert answer.err.count("\n") == 1
    return str(answer.err)


def serve(monkeypatch: pytest.MonkeyPatch, *served: tuple[str, str, str]) -> None:
    """Let these (alias, study, trial) be what the registry's aliases name."""
    found = [InUse("mosi", alias, "1", study, trial) for alias, study, trial in served]
    monkeypatch.setattr("gapwise.promotion.in_use.in_use", lambda _: found)


def test_where_there_is_no_study_the_list_is_empty_and_nothing_is_made(call: Call) -> None:
    assert body(call("study", "list", "--json")) == {"studies": [], "unreadable": {}}
    assert body(call("gc", "--json"))["freed"] == []
    assert list(Path.cwd().iterdir()) == []


def test_the_list_names_every_study_with_its_state(call: Call, studies: Path, write_study: WriteStudy) -> None:
    for until in ("search", "refit", "finished"):
        write_study(studies, f"until-{until}", until=until)
    with DriverLock(studies / "until-search"):
        said = body(call("study", "list", "--json"))
        shown = call("study", "list").out
    assert {one["study"]: one["state"] for one in said["studies"]} == {
        "until-finished": "finished",
        "until-refit": "resumable",
        "until-search": "running",
    }
    assert set(said["studies"][0]) >= {"study", "dataset", "state", "trials", "arms", "best", "changed"}
    assert all(one["study"] in shown and one["state"] in shown for one in said["studies"])


def test_a_study_that_cannot_be_read_stands_below_the_list(call: Call, studies: Path, write_study: WriteStudy) -> None:
    write_study(studies, "good")
    (write_study(studies, "bad") / "journal.log").unlink()
    assert [one["study"] for one in body(call("study", "list", "--json"))["studies"]] == ["good"]
    answer = call("study", "list")
    assert answer.code == 0
    assert "not readable" in answer.out and "there is no journal" in answer.out


@pytest.mark.parametrize("verb", ["show", "trials", "best", "export", "delete"])
def test_an_unknown_study_is_one_line_that_names_those_that_exist(
    call: Call, studies: Path, write_study: WriteStudy, verb: str
) -> None:
    write_study(studies, "known")
    more = ["--out", "file.json"] if verb == "export" else []
    assert "no study 'none' (allowed: known)" in refused(call("study", verb, "none", *more))


@pytest.mark.parametrize("verb", ["show", "trials", "best", "export"])
@pytest.mark.parametrize("broken", ["no journal", "torn journal", "format"])
def test_a_study_that_cannot_be_read_is_one_line(
    call: Call, studies: Path, write_study: WriteStudy, verb: str, broken: str
) -> None:
    folder = write_study(studies, "one")
    journal, study = folder / "journal.log", folder / "study.json"
    if broken == "no journal":
        journal.unlink()
    elif broken == "torn journal":
        journal.write_bytes(journal.read_bytes().replace(b"}\n", b"\n", 1))
    else:
        study.write_text(study.read_text().replace('"format_version": 1', '"format_version": 9'))
    more = ["--out", "file.json"] if verb == "export" else []
    said = refused(call("study", verb, "one", *more))
    assert {"no journal": "no trial was started", "torn journal": "in line 1", "format": "format 9"}[broken] in said


def test_show_says_what_was_asked_how_far_it_is_who_leads_and_how_to_go_on(
    call: Call, studies: Path, write_study: WriteStudy
) -> None:
    write_study(studies, "one", until="second phase")
    shown = call("study", "show", "one").out
    for words in (
        "one: resumable, in the second phase",
        "which?",
        "synthetic-small",
        "0.0001 to 0.01 log",
        "second phase: 1 complete, 1 running, 2 waiting",
        "2 epochs saved by pruning",
        "the second phase may say otherwise",
        "--study one --resume",
    ):
        assert words in shown, words
    said = body(call("study", "show", "one", "--json"))
    assert said["second_phase"]["waiting"] == 2
    assert said["leaders"]["source"] == "search"


def test_best_of_a_finished_study_stands_beside_baseline_and_floor(
    call: Call, studies: Path, write_study: WriteStudy
) -> None:
    write_study(studies, "one")
    said = body(call("study", "best", "one", "--json"))
    assert (said["source"], said["best"]["0.0"]["trial"], said["floor"]) == ("second phase", "prlf-3", 1.4)
    row = next(line for line in call("study", "best", "one").out.splitlines() if line.startswith("0.5"))
    assert row.split() == ["0.5", "prlf-3", "1.400", "±", "0.010", "1.600", "±", "0.010", "1.400"]


def keys(answer: Any) -> list[str]:
    return [row["trial"] for row in body(answer)["trials"]]


def test_trials_are_filtered_and_sorted_and_those_without_a_figure_come_last(
    call: Call, studies: Path, write_study: WriteStudy
) -> None:
    write_study(studies, "one", until="search")
    assert keys(call("study", "trials", "one", "--json")) == [
        *("prlf-0", "prlf-1", "prlf-2", "prlf-3", "late_fusion-0", "late_fusion-1")
    ]
    assert keys(call("study", "trials", "one", "--arm", "late_fusion", "--json")) == ["late_fusion-0", "late_fusion-1"]
    assert keys(call("study", "trials", "one", "--state", "running", "--json")) == ["prlf-3"]
    ordered = keys(call("study", "trials", "one", "--arm", "prlf", "--sort", "objective", "--json"))
    assert ordered == ["prlf-0", "prlf-3", "prlf-1", "prlf-2"]
    assert "NaN: the loss is nan" in call("study", "trials", "one").out


@pytest.mark.parametrize(
    ("option", "allowed"),
    [("--arm", "prlf, late_fusion"), ("--state", "complete, pruned, failed, running"), ("--sort", "trial, objective")],
)
def test_a_filter_that_cannot_be_names_those_that_can(
    call: Call, studies: Path, write_study: WriteStudy, option: str, allowed: str
) -> None:
    write_study(studies, "one", until="search")
    assert f"{option}: unknown 'nope' (allowed: {allowed}" in refused(call("study", "trials", "one", option, "nope"))


def test_export_writes_the_file_and_says_so(call: Call, studies: Path, write_study: WriteStudy) -> None:
    write_study(studies, "one")
    assert body(call("study", "export", "one", "--out", "one.csv", "--json")) == {
        "study": "one",
        "file": "one.csv",
        "trials": 10,
    }
    assert len(Path("one.csv").read_text().splitlines()) == 11
    assert call("study", "export", "one", "--out", "one.json", "--summary").code == 0
    assert json.loads(Path("one.json").read_text())["stage"] == "finished"


@pytest.mark.parametrize(("answered", "code", "left"), [("y\n", 0, False), ("n\n", 1, True), ("", 1, True)])
def test_delete_asks_first(
    call: Call,
    studies: Path,
    write_study: WriteStudy,
    monkeypatch: pytest.MonkeyPatch,
    answered: str,
    code: int,
    left: bool,
) -> None:
    write_study(studies, "one")
    monkeypatch.setattr("sys.stdin", io.StringIO(answered))
    assert call("study", "delete", "one").code == code
    assert (studies / "one").exists() == left


def test_delete_with_yes_asks_nothing(call: Call, studies: Path, write_study: WriteStudy) -> None:
    write_study(studies, "one")
    assert body(call("study", "delete", "one", "--yes", "--json")) == {"study": "one", "deleted": True, "served": []}
    assert body(call("study", "list", "--json"))["studies"] == []


def test_a_running_study_is_not_deleted(call: Call, studies: Path, write_study: WriteStudy) -> None:
    write_study(studies, "one")
    with DriverLock(studies / "one"):
        assert "another driver is running this" in refused(call("study", "delete", "one", "--yes", "--force"))
    assert (studies / "one" / "result.json").exists()


def test_a_study_whose_model_is_served_is_deleted_by_force_only(
    call: Call, studies: Path, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(studies, "one")
    write_study(studies, "two")
    serve(monkeypatch, ("previous-mr30", "one", "prlf-3"))
    assert "study 'one' made mosi@previous-mr30; --force" in refused(call("study", "delete", "one", "--yes"))
    assert call("study", "delete", "two", "--yes").code == 0
    assert body(call("study", "delete", "one", "--yes", "--force", "--json"))["served"] == ["mosi@previous-mr30"]
    assert not (studies / "one").exists()


def freed(said: dict[str, Any]) -> set[str]:
    return {f"{one['study']}: {one['kind']}: {Path(one['path']).name}" for one in said["freed"]}


def test_gc_prints_what_a_dry_run_would_free_and_then_frees_just_that(
    call: Call, studies: Path, write_study: WriteStudy
) -> None:
    write_study(studies, "one")
    write_study(studies, "two", until="refit")
    dry = body(call("gc", "--dry-run", "--json"))
    assert freed(dry) == {
        "one: Ray's folders: tune",
        "one: Ray's folders: ray",
        "one: checkpoint: prlf-2",
        "one: model: seed-1002",
        "two: Ray's folders: tune",
        "two: Ray's folders: ray",
    }
    assert (dry["dry_run"], dry["freed_bytes"], dry["quota_met"]) == (True, 7000, True)
    assert "7 B" not in call("gc", "--dry-run").out and "7.0 kB would be freed" in call("gc", "--dry-run").out
    done = body(call("gc", "--json"))
    assert (freed(done), done["dry_run"]) == (freed(dry), False)
    assert body(call("gc", "--json"))["freed"] == []
    assert body(call("study", "best", "one", "--json"))["source"] == "second phase"


def test_gc_of_named_studies_leaves_the_others(call: Call, studies: Path, write_study: WriteStudy) -> None:
    for name in ("one", "two"):
        write_study(studies, name)
    said = body(call("gc", "--study", "two", "--json"))
    assert {one["study"] for one in said["freed"]} == {"two"}
    assert "no study 'three' (allowed: one, two)" in refused(call("gc", "--study", "three"))


def test_gc_keeps_what_aliases_name_even_if_no_winner_is_kept(
    call: Call, studies: Path, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(studies, "one")
    serve(monkeypatch, ("champion-mr50", "one", "prlf-3"))
    call("gc", "--keep-top", "0", "--json")
    left = sorted(str(file.relative_to(studies / "one")) for file in studies.rglob("model.json"))
    assert left == ["refit/prlf-3/seed-1001/model.json"]


def test_gc_under_a_quota_removes_the_oldest_and_stops(call: Call, studies: Path, write_study: WriteStudy) -> None:
    for name, when in (("old", 1000.0), ("new", 2000.0)):
        for file in write_study(studies, name).rglob("*"):
            os.utime(file, (when, when))
    held = body(call("gc", "--dry-run", "--json"))["left_bytes"] + 10_000
    said = body(call("gc", "--quota", f"{(held - 3000) / 1000}kB", "--json"))
    assert [one["study"] for one in said["freed"]] == ["old"] * 3
    assert said["quota_met"] and said["left_bytes"] <= held - 3000


def test_a_quota_that_cannot_be_met_is_said_with_exit_code_1(
    call: Call, studies: Path, write_study: WriteStudy
) -> None:
    write_study(studies, "one")
    answer = call("gc", "--quota", "1kB")
    assert answer.code == 1
    assert "the quota of 1.0 kB cannot be met: the rest is protected" in answer.err
    assert not json.loads(call("gc", "--quota", "1kB", "--json").out)["quota_met"]


@pytest.mark.parametrize("quota", ["", "20", "GB", "lots", "-1GB", "nanGB", "infGB", "20gb"])
def test_a_size_that_is_none_is_refused(call: Call, quota: str) -> None:
    assert "allowed: 500MB, 20GB, 1.5TB" in refused(call("gc", f"--quota={quota}"))


def test_gc_leaves_studies_alone_that_it_cannot_read_or_that_run(
    call: Call, studies: Path, write_study: WriteStudy
) -> None:
    write_study(studies, "running")
    (write_study(studies, "bad") / "journal.log").unlink()
    with DriverLock(studies / "running"):
        said = body(call("gc", "--json"))
    assert said["freed"] == []
    assert "there is no journal" in said["left_alone"]["bad"]


def test_where_the_registry_does_not_answer_nothing_is_freed_or_deleted(
    call: Call, studies: Path, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_study(studies, "one")
    before = sorted(folder.rglob("*"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "does not answer" in refused(call("gc"))
    assert "does not answer" in refused(call("study", "delete", "one", "--yes"))
    assert sorted(folder.rglob("*")) == before


def test_a_size_is_exact_to_the_byte() -> None:
    assert all(size(f"{count / 1000}kB") == count for count in range(1_000_000, 1_000_500))


def test_a_trial_that_was_cut_for_memory_says_so(call: Call, studies: Path, write_study: WriteStudy) -> None:
    from gapwise.tuning.book import StudyBook
    from gapwise.tuning.reading import read_study

    folder = write_study(studies, "one", until="search")
    book = StudyBook(read_study(studies, "one").space, folder / "journal.log")
    running = book.next_search()
    assert running is not None and book.out_of_memory(running) is not None

    rows = {row["trial"]: row for row in body(call("study", "trials", "one", "--json"))["trials"]}
    cut = [row["trial"] for row in rows.values() if row["objective_changed"] and row["micro_batch"] == 16]
    assert cut == [running.key] == ["prlf-3"]
    said = " ".join(call("study", "trials", "one").out.split())
    assert "micro-batch 16" in said and said.count("objective changed") == 1


OBJECTIVES = {name: {"metric": "mae", "reduce": "rate", "rate": rate} for name, rate in (("clean", 0.0), ("half", 0.5))}


@pytest.fixture
def with_goals(studies: Path, write_study: WriteStudy) -> str:
    """A study with two objectives and a constraint, in its search: prlf-3 turned out to be too large."""
    folder = write_study(
        studies, "goals", until="search", objectives=OBJECTIVES, constraints={"parameters": {"max": 1000}}
    )
    book = StudyBook(read_study(studies, "goals").space, folder / "journal.log")
    adopted = book.next_search()
    assert adopted is not None and adopted.key == "prlf-3"
    book.finish(adopted, infeasible({"parameters": 2345.0}, "2,345 parameters (at most 1,000)"))
    return "goals"


def test_trials_show_every_objective_and_what_breaks_a_constraint(call: Call, with_goals: str) -> None:
    rows = {row["trial"]: row for row in body(call("study", "trials", with_goals, "--json"))["trials"]}
    assert rows["prlf-0"]["objectives"] == {"clean": 1.0, "half": 1.5}
    assert (rows["prlf-3"]["state"], rows["prlf-3"]["constraints"]) == ("infeasible", {"parameters": 2345.0})
    shown = call("study", "trials", with_goals, "--state", "infeasible").out
    assert "2,345 parameters (at most 1,000)" in shown and "clean" in shown and "prlf-0" not in shown


def test_show_names_objectives_limits_and_infeasible_trials(call: Call, with_goals: str) -> None:
    shown = call("study", "show", with_goals).out
    assert "objectives: clean: mae, r = 0; half: mae, r = 0.5; nothing is pruned" in shown
    assert "constraints: parameters at most 1,000" in shown
    said = body(call("study", "show", with_goals, "--json"))
    assert said["arms"]["prlf"]["infeasible"] == 1
    assert said["constraints"]["limits"] == {"parameters": 1000}
    assert "infeasible" in call("study", "list").out


def test_best_shows_the_front_of_the_search_and_never_what_is_infeasible(call: Call, with_goals: str) -> None:
    said = body(call("study", "best", with_goals, "--json"))
    assert [one["trial"] for one in said["front"]] == ["prlf-0"]
    assert said["front"][0]["objectives"] == {"clean": {"mean": 1.0, "sd": 0.0}, "half": {"mean": 1.5, "sd": 0.0}}
    assert [one["trial"] for one in said["baseline_front"]] == ["late_fusion-0", "late_fusion-1"], "equals"
    shown = call("study", "best", with_goals).out
    assert "Pareto front" in shown and "late_fusion's own front stands beside" in shown


def test_exports_carry_objectives_and_constraints(call: Call, with_goals: str) -> None:
    for name in ("all.csv", "all.json"):
        body(call("study", "export", with_goals, "--out", name, "--json"))
    header = Path("all.csv").read_text().splitlines()[0].split(",")
    assert {"objectives:clean", "objectives:half", "constraints:parameters"} <= set(header)
    body(call("study", "export", with_goals, "--out", "short.json", "--summary", "--json"))
    summary = json.loads(Path("short.json").read_text())
    assert summary["search"]["prlf"][3]["parameters"] == 2345
    assert summary["search"]["prlf"][0]["half"] == 1.5


def test_show_says_what_an_earlier_study_gave(call: Call, studies: Path, write_study: WriteStudy) -> None:
    write_study(studies, "old")
    write_study(studies, "new", until="search", warm_start={"studies": ["old"], "use": "history"})
    assert (
        "warm start (history) from old: prlf 3, late_fusion 2; 0 left out; the same data"
        in call("study", "show", "new").out
    )
    said = body(call("study", "show", "new", "--json"))
    assert said["warm_start"]["sources"][0]["taken"] == {"prlf": 3, "late_fusion": 2}
