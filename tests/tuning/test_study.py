"""Opening a study and reading its result: folders in tmp_path and the real `small` dataset. No study is run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gapwise.data.store import Dataset, open_dataset
from gapwise.data.synth import synthesise
from gapwise.errors import SpecError, StudyError
from gapwise.spec.home import STUDY_FILE
from gapwise.spec.protocol import ProtocolSpec
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.opening import Asked, check_study, open_study
from gapwise.tuning.result import RESULT_FILE, StudyResult, load_result, save_result

MakeSpace = Callable[..., SearchSpec]


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return open_dataset(small)


def test_a_new_study_is_a_folder_that_says_what_was_asked_of_which_data(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    open_study(tmp_path / "one", Asked("one", make_space(), dataset), resume=False)
    assert [entry.name for entry in (tmp_path / "one").iterdir()] == ["study.json"]
    asked = json.loads((tmp_path / "one" / "study.json").read_text())
    assert asked["data_fingerprint"] == dataset.manifest.fingerprint
    assert asked["space"]["question"] == "which?"


def test_asking_whether_a_study_can_be_opened_writes_nothing(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    check_study(tmp_path / "one", Asked("one", make_space(), dataset), resume=False)
    assert not list(tmp_path.iterdir())


def test_a_name_in_use_is_refused_without_resume(make_space: MakeSpace, dataset: Dataset, tmp_path: Path) -> None:
    open_study(tmp_path / "one", Asked("one", make_space(), dataset), resume=False)
    with pytest.raises(StudyError, match=r"study 'one' exists; continue it with --resume, or choose another --study"):
        open_study(tmp_path / "one", Asked("one", make_space(), dataset), resume=False)


def test_a_name_in_use_by_another_space_says_what_differs(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    open_study(tmp_path / "one", Asked("one", make_space(), dataset), resume=False)
    arms = {"prlf": {"parameters": {"model.steps": {"role": "searched", "low": 1, "high": 3, "integer": True}}}}
    other = Asked("one", make_space(arms=arms, common={"model.width": 32}), dataset, "sqlite:///here.db")
    with pytest.raises(StudyError) as refused:
        open_study(tmp_path / "one", other, resume=False)
    said = str(refused.value)
    assert "space.arms.prlf.parameters.model.steps.high (4.0, now 3.0)" in said
    assert "space.arms.late_fusion" in said
    assert "space.common.model.width (nothing, now 32)" in said
    assert 'storage ("journal", now "sqlite:///here.db")' in said
    assert "model.fisher" in said


def test_a_record_from_before_a_new_option_is_completed_by_its_default(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    asked = Asked("one", make_space(), dataset)
    open_study(tmp_path / "one", asked, resume=False)
    file = tmp_path / "one" / STUDY_FILE
    old = json.loads(file.read_text())
    del old["storage"], old["space"]["sampler"]["points"]
    del (
        old["space"]["objectives"],
        old["space"]["constraints"],
        old["space"]["warm_start"],
        old["space"]["pruner"]["on"],
    )
    old["space"]["train"]["model"] = {"name": "late_fusion"}  # was written, though it never meant anything
    file.write_text(json.dumps(old))
    check_study(tmp_path / "one", asked, resume=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format_version": 99}', r"study format 99, written by a newer gapwise \(allowed: up to 1\)"),
        ('{"format_version": 1', "cannot be read as a study's record"),
        ('{"format_version": 1}', "cannot be read as a study's record"),
        ('{"format_version": 1, "space": {"question": "?"}}', "cannot be read as a study's record"),
        ("[]", "cannot be read as a study's record"),
    ],
)
def test_a_record_that_is_broken_or_newer_is_refused(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / STUDY_FILE).write_text(text)
    with pytest.raises(StudyError, match=said):
        check_study(tmp_path, Asked("one", make_space(), dataset), resume=True)


def test_nothing_can_be_resumed_where_nothing_was_started(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="nothing to resume: no study 'one'"):
        open_study(tmp_path / "one", Asked("one", make_space(), dataset), resume=True)
    assert not list(tmp_path.iterdir())


def test_more_trials_and_another_share_are_the_same_study(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    folder, more = tmp_path / "one", make_space(trials=40, baseline_share=1.0)
    open_study(folder, Asked("one", make_space(trials=4), dataset, command=("a.yaml",)), resume=False)
    before = json.loads((folder / "study.json").read_text())
    open_study(folder, Asked("one", more, dataset, command=("a.yaml", "--trials", "40")), resume=True)
    after = json.loads((folder / "study.json").read_text())
    assert after == before | {"command": ["a.yaml", "--trials", "40"]}


def test_another_space_or_other_data_is_refused_saying_which(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    open_study(tmp_path / "one", Asked("one", make_space(), dataset), resume=False)
    with pytest.raises(StudyError, match=r"was started with another space.seed \(0, now 1\)$"):
        open_study(tmp_path / "one", Asked("one", make_space(seed=1), dataset), resume=True)
    synthesise("small", tmp_path / "other", 1)
    other = open_dataset(tmp_path / "other")
    with pytest.raises(StudyError, match=r"was started with another dataset \(its fingerprint differs\)$"):
        open_study(tmp_path / "one", Asked("one", make_space(), other), resume=True)
    with pytest.raises(StudyError, match=r"another space.seed \(0, now 1\), dataset \(its fingerprint"):
        open_study(tmp_path / "one", Asked("one", make_space(seed=1), other), resume=True)


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/tmp/away", "a/b", "it's", "two words", ".hidden", "n\n"])
def test_a_name_that_would_leave_the_folder_of_studies_is_refused(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SpecError, match=r"cannot be a name \(allowed: letters") as refused:
        open_study(tmp_path / "studies" / name, Asked(name, make_space(), dataset), resume=False)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_space_that_does_not_fit_its_models_makes_no_folder(
    make_space: MakeSpace, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"common\.model\.widht"):
        open_study(tmp_path / "one", Asked("one", make_space(common={"model.widht": 1}), dataset), resume=False)
    assert not list(tmp_path.iterdir())


def result_of(name: str) -> StudyResult:
    return StudyResult(
        study=name,
        question="which?",
        task="regression",
        dataset="small",
        data="/somewhere",
        fingerprints={"dataset": "d", "train": "t", "valid": "v", "test": "e"},
        spec_fingerprint="s",
        protocol=ProtocolSpec(),
        objective=ObjectiveSpec(metric="mae"),
        mask_seeds=2,
        trials={"complete": 1},
        arms={},
        wall_seconds=1.0,
        search_seconds=0.5,
        train_seconds=0.25,
        best={},
        baseline={},
        floor={"mae": 1.0},
        models=[],
        parent_run_id="run",
    )


def started(studies: Path, name: str) -> Path:
    (studies / name).mkdir(parents=True)
    (studies / name / "study.json").write_text("{}")
    return studies / name


def test_a_saved_result_is_read_back_equal_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = started(tmp_path, "one")
    save_result(folder, result_of("one"))
    assert load_result(tmp_path, "one") == result_of("one")
    assert {entry.name for entry in folder.iterdir()} == {"study.json", RESULT_FILE}


def test_a_result_from_before_anybody_was_dropped_is_read(tmp_path: Path) -> None:
    fields = json.loads(result_of("one").model_dump_json())
    fields["best"] = {"0.3": {"trial": "prlf-1", "metric": "mae", "mean": 1.0, "sd": 0.1, "seeds": 3}}
    del fields["dropped"], fields["runs_saved"]
    (started(tmp_path, "one") / RESULT_FILE).write_text(json.dumps(fields))

    read = load_result(tmp_path, "one")

    assert read.best["0.3"].probability_best is None
    assert (read.dropped, read.runs_saved) == ({}, 0)


def test_an_unknown_study_is_refused_naming_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no study 'nine' \(allowed: none exists yet\)"):
        load_result(tmp_path, "nine")
    for name in ("two", "one"):
        started(tmp_path, name)
    with pytest.raises(StudyError, match=r"no study 'nine' \(allowed: one, two\)"):
        load_result(tmp_path, "nine")


def test_an_unfinished_study_is_refused_saying_how_to_go_on(tmp_path: Path) -> None:
    started(tmp_path, "one")
    with pytest.raises(StudyError, match=r"'one' is not finished; continue it with `gapwise tune \.\.\. --resume`"):
        load_result(tmp_path, "one")


def test_a_newer_result_is_refused_by_its_version(tmp_path: Path) -> None:
    folder = started(tmp_path, "one")
    fields = json.loads(result_of("one").model_dump_json()) | {"format_version": 2, "from_the_future": True}
    (folder / RESULT_FILE).write_text(json.dumps(fields))
    with pytest.raises(StudyError, match=r"result format 2 \(allowed: 1\)"):
        load_result(tmp_path, "one")
