"""What a new study takes from earlier ones: decided on journals of the real book, kept in a file of its own folder.

Faked: training (see `write_study`: prlf 0 and 3 and both of late_fusion are complete, prlf 1 is pruned; prlf 3 and
late_fusion 0 also ran in the second phase).
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import Dataset, open_dataset
from gapwise.data.synth import synthesise
from gapwise.errors import SpecError, StudyError
from gapwise.spec.search import SearchSpec
from gapwise.tuning.history import HISTORY_FILE, WarmStart, load_history
from gapwise.tuning.opening import Asked, check_study, open_study, settled_space
from gapwise.tuning.reading import read_study
from gapwise.tuning.space import default_values
from gapwise.tuning.warm_start import Source, Taken, take_over

WriteStudy = Callable[..., Path]
Take = Callable[..., Taken]


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return open_dataset(small)


@pytest.fixture
def space_of(dataset: Dataset, write_study: WriteStudy, tmp_path: Path) -> Callable[..., SearchSpec]:
    """The space of the finished study `old`, which starts from it; keywords replace keys."""
    written = json.loads((write_study(tmp_path, "old") / "study.json").read_text())["space"]

    def make(use: str = "best", **changes: Any) -> SearchSpec:
        start = {"warm_start": {"studies": ["old"], "use": use}}
        return settled_space(SearchSpec.model_validate(written | {"trials": 9} | start | changes), dataset)

    return make


@pytest.fixture
def take(dataset: Dataset, tmp_path: Path) -> Take:
    def run(space: SearchSpec) -> Taken:
        taken = take_over(space, dataset.manifest.fingerprint, tmp_path)
        assert taken is not None
        return taken

    return run


def keys(taken: Taken, arm: str = "prlf") -> list[str]:
    return [one.trial for one in taken.warm_start.arms[arm]]


def lr_within(low: float, high: float) -> dict[str, Any]:
    return {"prlf": {"parameters": {"optimiser.lr": {"role": "nuisance", "low": low, "high": high, "log": True}}}}


def test_the_best_are_those_of_the_second_phase_first_and_never_the_default(
    space_of: Callable[..., SearchSpec], take: Take
) -> None:
    """Trial 0 is every arm's default, which is asked anyway; 1 was pruned and 2 failed."""
    taken = take(space_of())
    assert keys(taken) == ["prlf-3"]
    assert keys(taken, "late_fusion") == ["late_fusion-1"]
    assert taken.warm_start.of("prlf").first == (taken.warm_start.arms["prlf"][0].values,)
    assert taken.warm_start.of("prlf").history == ()


def test_a_number_outside_the_space_is_moved_to_its_bound(space_of: Callable[..., SearchSpec], take: Take) -> None:
    (default,) = default_values(space_of(), "prlf").values()
    moved = take(space_of(arms=lr_within(default * 1.5, default * 1.6))).warm_start.arms["prlf"]
    assert {one.values["optimiser.lr"] for one in moved} <= {default * 1.5, default * 1.6}


def test_what_was_fixed_before_and_is_searched_now_comes_from_the_training_that_was_run(
    space_of: Callable[..., SearchSpec], take: Take
) -> None:
    fisher = {"role": "searched", "choices": ["trace", "precision"]}
    space = space_of(
        arms={"prlf": {"parameters": {**lr_within(1e-4, 1e-2)["prlf"]["parameters"], "model.fisher": fisher}}}
    )
    assert {one.values["model.fisher"] for one in take(space).warm_start.arms["prlf"]} == {"precision"}


def test_a_configuration_with_a_choice_that_is_not_offered_is_left_out(
    space_of: Callable[..., SearchSpec], take: Take
) -> None:
    fisher = {"role": "searched", "choices": ["trace", "ema"]}
    space = space_of(arms={"prlf": {"parameters": {"model.fisher": fisher}}})
    taken = take(space)
    assert keys(taken) == []
    assert taken.sources[0].left_out == {"prlf": 2, "late_fusion": 0}


def test_no_more_is_tried_again_than_the_arm_has_trials_beside_its_default(
    space_of: Callable[..., SearchSpec], take: Take
) -> None:
    taken = take(space_of(trials=2, baseline_share=0.5))
    assert keys(taken) == ["prlf-3"]
    assert keys(taken, "late_fusion") == []


def test_a_history_is_complete_and_pruned_trials_with_what_the_sampler_needs(
    space_of: Callable[..., SearchSpec], take: Take
) -> None:
    taken = take(space_of("history"))
    by_key = {one.trial: one for one in taken.warm_start.arms["prlf"]}
    assert list(by_key) == ["prlf-0", "prlf-1", "prlf-3"], "the one that failed is not among them"
    assert (by_key["prlf-3"].state, by_key["prlf-3"].costs, by_key["prlf-3"].last) == ("complete", (0.8,), None)
    assert (by_key["prlf-1"].state, by_key["prlf-1"].costs, by_key["prlf-1"].last) == ("pruned", (), (2, 1.7))
    assert taken.sources == [
        Source(
            "old",
            "synthetic-small",
            taken.sources[0].data_fingerprint,
            True,
            {"prlf": 3, "late_fusion": 2},
            {"prlf": 0, "late_fusion": 0},
        )
    ]


def test_a_history_knows_this_studys_objectives_though_the_earlier_one_had_others(
    space_of: Callable[..., SearchSpec], take: Take
) -> None:
    objectives = {name: {"metric": "mae", "reduce": "rate", "rate": rate} for name, rate in (("a", 0.0), ("b", 0.5))}
    taken = take(space_of("history", objectives=objectives))
    costs = {one.trial: one.costs for one in taken.warm_start.arms["prlf"]}
    assert costs == {"prlf-0": (1.0, 1.5), "prlf-1": (), "prlf-3": (0.8, 1.3)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"epochs": 5, "protocol": {"rates": [0.0, 0.5]}}}, r"because of epochs \(4, now 5\)"),
        ({"common": {"model.width": 32}}, r"because of model\.width \(128, now 32\)"),
        ({"constraints": {"parameters": {"max": 10**9}}}, "because of parameters, which was not measured"),
    ],
    ids=["epochs", "width", "constraint"],
)
def test_a_history_of_other_training_is_refused_saying_what_differs(
    space_of: Callable[..., SearchSpec], take: Take, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=rf"nothing can be taken from study 'old': none of its trials fits .*{said}"):
        take(space_of("history", **changes))


def test_a_trial_outside_the_bounds_is_left_out_of_a_history_and_never_moved(
    space_of: Callable[..., SearchSpec], take: Take
) -> None:
    (default,) = default_values(space_of(), "prlf").values()
    taken = take(space_of("history", arms=lr_within(default, default * 1.01)))
    assert keys(taken) == ["prlf-0"]
    assert taken.sources[0].left_out["prlf"] == 2


@pytest.mark.parametrize("use", ["best", "history"])
@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"objective": {"metric": "corr"}}, r'train\.objective\.metric \("mae", now "corr"\)'),
        ({"objective": {"metric": "mae", "reduce": "worst"}}, r'train\.objective\.reduce \("mean", now "worst"\)'),
        (
            {"protocol": {"rates": [0.0, 0.5], "mask_visible": False}},
            r"train\.protocol\.mask_visible \(true, now false\)",
        ),
    ],
    ids=["metric", "reduction", "protocol"],
)
def test_a_study_that_was_asked_something_else_is_refused_saying_what_differs(
    space_of: Callable[..., SearchSpec], take: Take, use: str, train: dict[str, Any], said: str
) -> None:
    asked = {"epochs": 4, "protocol": {"rates": [0.0, 0.5]}} | train
    with pytest.raises(SpecError, match=f"warm_start.studies: study 'old' was asked something else: .*{said}"):
        take(space_of(use, train=asked))


def test_an_unknown_study_is_refused_naming_those_that_exist(space_of: Callable[..., SearchSpec], take: Take) -> None:
    with pytest.raises(StudyError, match=r"no study 'gone' \(allowed: old\)"):
        take(space_of(warm_start={"studies": ["gone"]}))


def test_other_data_are_allowed_and_written_down(space_of: Callable[..., SearchSpec], tmp_path: Path) -> None:
    synthesise("small", tmp_path / "grown", 1)
    grown = open_dataset(tmp_path / "grown")
    open_study(tmp_path / "new", Asked("new", space_of("history"), grown), resume=False)
    (source,) = read_study_record(tmp_path / "new")["warm_start"]
    assert source["same_data"] is False
    assert source["data_fingerprint"] != grown.manifest.fingerprint


def read_study_record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return found


def test_a_study_keeps_what_it_was_given_when_the_earlier_one_is_deleted(
    space_of: Callable[..., SearchSpec], dataset: Dataset, tmp_path: Path
) -> None:
    asked = Asked("new", space_of("history"), dataset)
    open_study(tmp_path / "new", asked, resume=False)
    given = load_history(tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    check_study(tmp_path / "new", asked, resume=True)
    assert load_history(tmp_path / "new") == given
    assert len(given.of("prlf").history) == 3
    (tmp_path / "new" / "journal.log").touch()
    assert [one["taken"]["prlf"] for one in read_study(tmp_path, "new").warm_start] == [3]


def test_nothing_is_written_where_a_warm_start_is_refused(
    space_of: Callable[..., SearchSpec], dataset: Dataset, tmp_path: Path
) -> None:
    asked = Asked("new", space_of(warm_start={"studies": ["gone"]}), dataset)
    for attempt in (check_study, open_study):
        with pytest.raises(StudyError):
            attempt(tmp_path / "new", asked, resume=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [None, "{", '{"format_version": 2, "use": "best", "arms": {}}'])
def test_a_missing_or_broken_file_is_one_line_because_no_suggestion_could_be_repeated(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / HISTORY_FILE).write_text(content)
    with pytest.raises(StudyError, match="what earlier studies gave cannot be read"):
        load_history(tmp_path)


def test_the_file_comes_back_as_it_was(space_of: Callable[..., SearchSpec], take: Take) -> None:
    kept = take(space_of("history")).warm_start
    assert WarmStart.model_validate_json(kept.model_dump_json()) == kept
