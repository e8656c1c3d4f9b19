"""A study's report: the answer first, then the evidence in the order of questions that a reader asks."""

from gapwise.reporting.page import Page
from gapwise.reporting.section_answer import answer, subsets, what_next
from gapwise.reporting.section_evidence import cost, front, inside, lineage, noise
from gapwise.reporting.section_search import course, importances, slices, trials
from gapwise.reporting.study_facts import Facts

SECTIONS = (answer, what_next, subsets, front, noise, importances, slices, course, inside, trials, cost, lineage)


def study_page(facts: Facts, written: str) -> Page:
    """`written` is the time, in words."""
    study = facts.study
    return Page(
        title=f"Study {study.name}",
        question=study.space.question,
        notice=_notice(facts),
        sections=[section for of in SECTIONS for section in of(facts)],
        foot=f"Written by gapwise on {written}. Figures are from the validation split unless a line says otherwise.",
    )


def _notice(facts: Facts) -> str:
    study = facts.study
    searched = study.of("search")
    if study.state == "running":
        return "Partial: this study is still running, and every figure below may change."
    if searched and all(one.outcome.state == "failed" for one in searched):
        return "Every trial of this study failed: there is nothing to compare, see what to try next."
    return "Partial: this study was not finished." if study.state == "resumable" else ""
