"""What may go and what stays, on studies as drivers leave them (`write_study`); models are files of 1000 bytes.

Nothing but training is faked: the policy is pure, and what removes works on real folders and real locks.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from gapwise.distributed.lock import DriverLock
from gapwise.errors import StudyError
from gapwise.spec.home import Home, study_names
from gapwise.tuning.reading import Study, read_study
from gapwise.tuning.removal import delete_study, removable, remove, used_bytes
from gapwise.tuning.result import StudyResult
from gapwise.tuning.retention import Item, Model, kept_models, until_under

WriteStudy = Callable[..., Path]
RAY = ["refit/ray", "tune"]
LEFT_BY_REFIT = [*RAY, "trials/prlf-2"]
MODELS = {"prlf-3": "refit/prlf-3/seed-1001", "late_fusion-0": "refit/late_fusion-0/seed-1001"}
OTHER_SEEDS = ["refit/late_fusion-0/seed-1002", "refit/prlf-3/seed-1002"]


@pytest.fixture
def here(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def study(home: Home, name: str = "one") -> Study:
    return read_study(home.studies, name)


def result_of(home: Home, name: str, **changes: Any) -> StudyResult:
    result = study(home, name).result
    assert result is not None
    return result.model_copy(update=changes)


def places(home: Home, items: Iterable[Item], name: str = "one") -> list[str]:
    return sorted(str(item.path.relative_to(home.studies / name)) for item in items)


def free(home: Home, kept: set[Model], name: str = "one") -> list[str]:
    return places(home, removable(home, [study(home, name)], kept), name)


def test_of_a_finished_study_all_goes_but_the_models_that_are_kept(write_study: WriteStudy, here: Home) -> None:
    write_study(here.studies, "one")
    assert free(here, {("one", "prlf-3")}) == sorted([*LEFT_BY_REFIT, *OTHER_SEEDS, MODELS["late_fusion-0"]])
    assert free(here, {("two", "prlf-3")}) == sorted([*LEFT_BY_REFIT, *OTHER_SEEDS, *MODELS.values()])


def test_of_an_unfinished_study_only_what_ray_left_goes(write_study: WriteStudy, here: Home) -> None:
    write_study(here.studies, "one", until="refit")
    assert free(here, set()) == RAY


def test_of_a_running_study_nothing_goes(write_study: WriteStudy, here: Home) -> None:
    with DriverLock(write_study(here.studies, "one")):
        assert free(here, set()) == []


def test_a_driver_that_comes_after_the_choice_keeps_its_study(write_study: WriteStudy, here: Home) -> None:
    folder = write_study(here.studies, "one")
    items = removable(here, [study(here)], set())
    before = used_bytes(folder)
    with DriverLock(folder):
        gone, left = remove(here, items)
        assert (gone, list(left)) == ([], ["one"])
        assert "another driver is running this" in left["one"]
        assert used_bytes(folder) > before, "the lock's own words"


def test_what_is_removed_is_counted_and_the_rest_still_reads_as_finished(write_study: WriteStudy, here: Home) -> None:
    folder = write_study(here.studies, "one")
    items = removable(here, [study(here)], {("one", "prlf-3"), ("one", "late_fusion-0")})
    assert {item.kind for item in items} == {"Ray's folders", "checkpoint", "model"}
    assert {item.bytes for item in items} == {1000}
    before = used_bytes(here.root)
    gone, left = remove(here, items)
    assert (len(gone), left) == (5, {})
    assert before - used_bytes(here.root) + (folder / "driver.lock").stat().st_size == 5000
    assert study(here).state == "finished"
    kept = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert kept == {
        *("study.json", "journal.log", "journal.events.jsonl", "result.json", "driver.lock"),
        "refit/prlf-3/seed-1003.failed",
        *(f"{place}/model.json" for place in MODELS.values()),
    }


def test_a_rate_s_best_over_studies_are_kept_with_their_baselines(write_study: WriteStudy, here: Home) -> None:
    for name, shift in (("good", 0.0), ("better", -0.1), ("worse", 0.2)):
        write_study(here.studies, name, shift=shift)
    results = [result_of(here, name) for name in ("good", "better", "worse")]

    def studies_kept(top: int) -> list[str]:
        kept = kept_models(results, [], top)
        assert {trial for _, trial in kept} <= {"prlf-3", "late_fusion-0"}
        assert all((name, "late_fusion-0") in kept for name, _ in kept), "a winner stands beside its baseline"
        return sorted({name for name, _ in kept})

    assert [studies_kept(top) for top in (0, 1, 2, 3)] == [
        [],
        ["better"],
        ["better", "good"],
        ["better", "good", "worse"],
    ]


def test_a_model_that_leads_at_one_rate_is_kept_though_it_is_behind_at_another(
    write_study: WriteStudy, here: Home
) -> None:
    for name, shift in (("good", 0.0), ("specialist", 0.1)):
        write_study(here.studies, name, shift=shift)
    special = result_of(here, "specialist")
    model = special.models[0]
    curve = {**model.over_seeds["mae"], "0.5": model.over_seeds["mae"]["0.5"].model_copy(update={"mean": 0.1})}
    changed = model.model_copy(update={"over_seeds": {"mae": curve}})
    special = special.model_copy(update={"models": [changed, *special.models[1:]]})
    kept = kept_models([result_of(here, "good"), special], [], 1)
    assert {("good", "prlf-3"), ("specialist", "prlf-3")} <= kept


def test_studies_on_other_validation_data_do_not_compete(write_study: WriteStudy, here: Home) -> None:
    for name, shift in (("good", 0.0), ("elsewhere", 0.5)):
        write_study(here.studies, name, shift=shift)
    other = result_of(here, "elsewhere", fingerprints={"valid": "another"})
    assert ("elsewhere", "prlf-3") in kept_models([result_of(here, "good"), other], [], 1)


def test_what_an_alias_names_is_kept_whatever_its_rank(write_study: WriteStudy, here: Home) -> None:
    write_study(here.studies, "one")
    assert kept_models([result_of(here, "one")], [("one", "late_fusion-0")], 0) == {("one", "late_fusion-0")}


def item(name: str, size: int, changed: float) -> Item:
    return Item("one", "model", Path(name), size, changed)


@pytest.mark.parametrize(
    ("quota", "gone"),
    [(100, []), (99, ["old"]), (90, ["old"]), (89, ["old", "middle"]), (0, ["old", "middle", "new"])],
)
def test_under_a_quota_the_oldest_go_first_and_no_more_than_needed(quota: int, gone: list[str]) -> None:
    items = [item("new", 30, 3.0), item("old", 10, 1.0), item("middle", 20, 2.0)]
    assert [str(one.path) for one in until_under(items, 100, quota)] == gone


def test_an_item_is_as_new_as_the_newest_file_in_it(write_study: WriteStudy, here: Home) -> None:
    folder = write_study(here.studies, "one")
    (folder / "tune" / "search" / "more").touch()
    for name, when in (("state.json", 1000.0), ("more", 2000.0)):
        os.utime(folder / "tune" / "search" / name, (when, when))
    found = {one.path.name: one for one in removable(here, [study(here)], set())}
    assert found["tune"].changed == 2000.0


def test_a_deleted_study_is_gone_and_the_others_stay(write_study: WriteStudy, here: Home) -> None:
    for name in ("one", "two"):
        write_study(here.studies, name)
    delete_study(here, "one")
    assert study_names(here.studies) == ["two"]
    assert list(here.trash.iterdir()) == []


def test_a_running_study_is_not_deleted(write_study: WriteStudy, here: Home) -> None:
    folder = write_study(here.studies, "one")
    with DriverLock(folder), pytest.raises(StudyError, match="another driver is running this"):
        delete_study(here, "one")
    assert study(here).state == "finished"


def test_a_deletion_that_was_cut_short_leaves_no_half_study_and_gc_ends_it(
    write_study: WriteStudy, here: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(here.studies, "one")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("gapwise.tuning.removal.shutil.rmtree", killed)
        delete_study(here, "one")
    assert study_names(here.studies) == []
    (left,) = removable(here, [], set())
    assert (left.study, left.kind) == ("one", "deleted study")
    assert remove(here, [left]) == ([left], {})
    assert list(here.trash.iterdir()) == []
