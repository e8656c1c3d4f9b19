"""What a study's report says, of made-up studies in every state; only two tests read one from disk (`write_study`)."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gapwise.data.store import open_dataset
from gapwise.distributed.lock import DriverLock
from gapwise.reporting.page import Page, Section, render
from gapwise.reporting.section_evidence import noise_sentence, seconds_by_state
from gapwise.reporting.serving import Serving
from gapwise.reporting.study_facts import Facts, gather
from gapwise.reporting.study_page import study_page
from gapwise.tuning.reading import TrialRecord, read_study

MakeFacts = Callable[..., Facts]


def page_of(facts: Facts) -> Page:
    """The page, which must also be one that can be drawn."""
    page = study_page(facts, "a day")
    assert render(page).rstrip().endswith("</html>")
    return page


def keys(page: Page) -> list[str]:
    return [section.key for section in page.sections]


def section(page: Page, key: str) -> Section:
    return next(one for one in page.sections if one.key == key)


def charts(page: Page) -> set[str]:
    return {chart.key for chart in page.charts}


def cut(facts: Facts, keep: Callable[[TrialRecord], bool], **changes: Any) -> Facts:
    """The unfinished study of just these trials, with nothing that is known from elsewhere."""
    from gapwise.tuning.leaders import leaders

    study = replace(facts.study, trials=[one for one in facts.study.of("search") if keep(one)], result=None, **changes)
    return replace(facts, study=study, leaders=leaders(study), importance={}, mask_sd={}, optimum={}, serving=None)


@pytest.fixture(scope="module")
def whole(lively_facts: MakeFacts) -> Facts:
    return lively_facts()


@pytest.fixture(scope="module")
def whole_page(whole: Facts) -> Page:
    return study_page(whole, "a day")


def test_the_answer_comes_first_and_stands_beside_everything_that_is_known(whole_page: Page) -> None:
    answer = whole_page.sections[0]
    assert answer.key == "answer"
    table = answer.tables[0]
    assert list(table.columns)[1:] == [
        "best",
        "mae",
        "sd between masks",
        "seeds",
        "late_fusion",
        "floor",
        "optimum",
        "served before",
    ]
    assert len(table.rows) == 10
    assert table.rows[0][-2:] == ["0.600", "0.950 (v1)"]
    assert "v1 is promise-2 of older" in table.note
    assert "Of the searched models, promise-24 is best at every condition" in answer.lead[0]


def test_who_the_gate_let_serve_is_said_beside_who_is_best(whole: Facts) -> None:
    here = {"0.0": "late_fusion-0 (v2)", "0.3": "late_fusion-0 (v2)", "0.9": "prlf-2 (v3)"}
    page = page_of(replace(whole, serving=Serving("mosi", {}, here)))
    serves = "Champions of mosi now, after the gate's look at test: late_fusion-0 (v2) at 0.0, 0.3; prlf-2 (v3) at 0.9."
    assert serves == section(page, "answer").lead[-1]
    assert "--dry-run" not in " ".join(section(page, "next").items), "the gate has been asked"


def test_a_finished_study_has_every_section_and_figure(whole_page: Page) -> None:
    wanted = ["answer", "next", "noise", "importance", "slices", "course", "inside", "trials", "cost", "lineage"]
    assert keys(whole_page) == wanted
    assert whole_page.notice == ""
    assert charts(whole_page) >= {
        "robustness",
        "noise",
        "importance-promise",
        "slice-model-prompt_length",
        "slice-model-fisher",
        "parallel-prlf",
        "learning-late_fusion",
        "timeline",
        "progress",
        "dominant_share-prlf-2",
        "rank_correlation-prlf-2",
        "cost",
    }


def test_what_mattered_is_found(whole: Facts) -> None:
    """The formula behind the figures rewards long prompts most, and temperatures not at all."""
    shares = whole.importance["promise"].fanova
    assert max(shares, key=lambda path: shares[path]) == "model.prompt_length"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert whole.importance["promise"].ped_anova["model.prompt_length"] > 0.5


def test_a_running_study_says_that_it_is_partial(lively_facts: MakeFacts) -> None:
    facts = cut(lively_facts(trials=30), lambda _: True, driver="pid 1")
    page = page_of(facts)
    assert "Partial: this study is still running" in page.notice
    assert "the second phase may say otherwise" in " ".join(section(page, "answer").lead)
    assert "noise" not in keys(page)


def test_without_a_finished_trial_the_report_says_so(lively_facts: MakeFacts) -> None:
    page = page_of(cut(lively_facts(trials=30), lambda one: False))
    assert "No trial is complete" in section(page, "answer").lead[0]
    assert page.charts == []


def test_one_trial_is_enough_for_a_report(lively_facts: MakeFacts) -> None:
    facts = lively_facts(trials=30)
    page = page_of(cut(facts, lambda one: one.assignment.key == "promise-0"))
    assert "promise-0 is best at every condition" in section(page, "answer").lead[0]
    assert "that needs 10 complete trials" in section(page, "importance").lead[1]


def test_failed_trials_only(lively_facts: MakeFacts) -> None:
    page = page_of(cut(lively_facts(), lambda one: one.outcome.state == "failed"))
    assert page.notice.startswith("Every trial of this study failed")
    assert any("NaN: the loss is nan" in line for line in section(page, "next").items)


def test_one_rate(lively_facts: MakeFacts) -> None:
    space = {"train": {"epochs": 12, "objective": {"metric": "mae"}, "protocol": {"rates": [0.5]}}}
    page = page_of(lively_facts(trials=40, space=space))
    assert [row[0] for row in section(page, "answer").tables[0].rows] == ["0.5"]


def test_subsets_of_modalities_are_a_matrix(lively_facts: MakeFacts) -> None:
    space = {"train": {"epochs": 12, "objective": {"metric": "mae"}, "protocol": {"name": "modalities"}}}
    page = page_of(lively_facts(trials=40, space=space))
    table = section(page, "subsets").tables[0]
    assert list(table.columns)[:4] == ["subset", "audio", "text", "vision"]
    assert next(list(row)[:4] for row in table.rows if row[0] == "audio+vision") == ["audio+vision", "yes", "no", "yes"]
    assert not any("promote" in line for line in section(page, "next").items)


def test_several_objectives_have_a_front(lively_facts: MakeFacts) -> None:
    goals = {name: {"metric": "mae", "reduce": "rate", "rate": rate} for name, rate in (("clean", 0.0), ("half", 0.5))}
    facts = lively_facts(trials=40, finished=False, space={"objectives": goals, "pruner": {"name": "none"}})
    page = page_of(facts)
    assert "front-clean-half" in charts(page)
    assert [row[0] for row in section(page, "front").tables[0].rows] == [one.trial for one in facts.leaders.front]


@pytest.mark.slow
def test_of_five_thousand_trials_a_part_is_drawn_and_the_size_holds(lively_facts: MakeFacts) -> None:
    page = study_page(lively_facts(trials=5000), "a day")
    assert len(render(page).encode()) < 3_000_000
    text = next(chart.text for chart in page.charts if chart.key == "timeline")
    assert "of 5,000 trials 400 are drawn" in text
    assert len(section(page, "trials").tables[0].rows) == 20
    assert "20 of 5,000 are listed" in section(page, "trials").tables[0].note


def test_noise_is_compared_with_the_lead() -> None:
    assert "less than a seed's own noise" in noise_sentence({"a": [1.0, 1.2], "b": [1.05, 1.25]})
    assert "more than a seed's own noise" in noise_sentence({"a": [1.0, 1.01], "b": [2.0, 2.01]})
    assert "no second configuration" in noise_sentence({"a": [1.0, 1.1]})


def test_cost_counts_every_device(whole: Facts, lively_facts: MakeFacts) -> None:
    alone = seconds_by_state(whole)
    four = replace(whole.study, space=whole.study.space.model_copy(update={"workers_per_trial": 4}))
    assert alone["second phase"] == {"complete": pytest.approx(24.0 * len(whole.study.of("seeds")))}
    assert seconds_by_state(replace(whole, study=four))["search"]["pruned"] == pytest.approx(
        4 * alone["search"]["pruned"]
    )


def test_lineage_names_data_spec_and_reads_of_test(whole_page: Page) -> None:
    told = {row[0]: row[1] for row in section(whole_page, "lineage").tables[0].rows}
    assert told["data fingerprint"] == "d" * 64
    assert told["reads of the test split"] == "3"
    assert told["command"] == "gapwise tune space.yaml --data data/mosi"
    assert "spec fingerprint" in told and "test split" in told


def test_facts_of_a_study_on_disk(tmp_path: Path, write_study: Callable[..., Path], small: Path) -> None:
    own = shutil.copytree(small, tmp_path / "data", ignore=shutil.ignore_patterns("test.exposures.jsonl"))
    open_dataset(own).test("a look")
    write_study(tmp_path, "one", data=own)
    facts = gather(read_study(tmp_path, "one"))
    assert facts.leaders.source == "second phase"
    assert facts.optimum.keys() == {"0.0", "0.5"}
    assert 0.0 < facts.optimum["0.0"] < facts.optimum["0.5"]
    assert (facts.test_reads, facts.away, facts.mask_sd) == (1, (), {})
    with DriverLock(tmp_path / "one"):
        assert "still running" in page_of(gather(read_study(tmp_path, "one"))).notice


def test_data_that_are_gone_are_said_and_not_missed(
    tmp_path: Path, write_study: Callable[..., Path], small: Path
) -> None:
    shutil.copytree(small, tmp_path / "data")
    write_study(tmp_path, "one", data=tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    page = page_of(gather(read_study(tmp_path, "one")))
    assert "Not at hand when this was written: the data:" in section(page, "lineage").lead[0]
    assert "not known" in [row[1] for row in section(page, "lineage").tables[0].rows]
