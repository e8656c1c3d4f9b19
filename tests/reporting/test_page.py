"""The page itself: its HTML is parsed with the standard library's parser, never rendered; studies are made up."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gapwise.errors import SpecError
from gapwise.reporting.page import Page, Section, Table, marked, render, write
from gapwise.reporting.palette import DARK, DRAWN, LIGHT, TEXT, contrast
from gapwise.reporting.study_page import study_page

WIDEST_BYTES = 3_000_000
OUTSIDE = re.compile(r"^(https?:)?//", re.IGNORECASE)


class Parsed(HTMLParser):
    """What the tests below ask of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.svgs: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.captions, self.tables, self.scripts = 0, 0, 0
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("src", "href", "xlink:href", "srcset", "action") if name in found]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.svgs += [found] if tag == "svg" else []
        self.cells += [found] if tag == "th" else []
        self.captions += tag == "caption"
        self.tables += tag == "table"
        self.scripts += tag == "script"
        self._inside = found.get("id", "") if tag in ("title", "desc") else ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.fixture(scope="module")
def page(lively_facts: Any) -> Page:
    return study_page(lively_facts(), "a day")


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render(page)


@pytest.fixture(scope="module")
def parsed(html: str) -> Parsed:
    return Parsed(html)


def test_nothing_is_fetched_and_nothing_is_run(html: str, parsed: Parsed) -> None:
    assert parsed.links
    assert [link for link in parsed.links if OUTSIDE.match(link)] == []
    assert all(link.startswith(("#", "data:")) for link in parsed.links)
    assert parsed.scripts == 0
    assert re.findall(r"@import|url\((?!#)", html) == []


def test_every_id_is_there_once_and_every_link_ends_somewhere(parsed: Parsed) -> None:
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_every_figure_has_a_name_and_a_description(page: Page, parsed: Parsed) -> None:
    assert len(parsed.svgs) == len(page.charts) > 15
    for svg in parsed.svgs:
        assert svg["role"] == "img"
        name, text = svg["aria-labelledby"].split()
        assert len(parsed.texts[name]) > 5 and len(parsed.texts[text]) > 30


UNIT = re.compile(r"\(.+\)")
NAMES_OF_THINGS = {"parameter", "configuration", "phase"}
"""Axes of names, which have no unit."""


def test_every_axis_says_what_it_is_and_in_which_unit(page: Page) -> None:
    for chart in page.charts:
        for axes in chart.figure.axes:
            for label in (axes.get_xlabel(), axes.get_ylabel()):
                assert UNIT.search(label) or label in NAMES_OF_THINGS, (chart.key, label)


def test_headings_come_in_order_without_a_gap(parsed: Parsed) -> None:
    assert parsed.headings[:2] == [1, 2] and parsed.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(parsed.headings, parsed.headings[1:], strict=False))


def test_tables_have_captions_and_every_header_a_scope(parsed: Parsed) -> None:
    assert parsed.tables == parsed.captions > 3
    assert all(cell.get("scope") in ("col", "row") for cell in parsed.cells)


def test_colours_of_figures_follow_the_reader_s_scheme(html: str) -> None:
    drawn = html[html.index("<svg") : html.rindex("</svg>")]
    assert "var(--series-1)" in drawn and "var(--ink)" in drawn
    assert [colour for colour in LIGHT.values() if colour in drawn] == []
    assert re.findall(r"#000000|fill: ?black", drawn) == []
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_words_of_figures_stay_words(html: str, page: Page) -> None:
    assert html.count("<text ") > 10 * len(page.charts)
    assert "font: " not in html[html.index("<svg") : html.rindex("</svg>")]


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
def test_contrast_is_aa(colours: dict[str, str], ground: str) -> None:
    assert all(contrast(colours[name], colours[ground]) >= 4.5 for name in TEXT)
    assert all(contrast(colours[name], colours[ground]) >= 3.0 for name in DRAWN)


def test_contrast_is_wcag_s() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_light_and_dark_name_the_same_colours_and_light_ones_differ() -> None:
    assert list(LIGHT) == list(DARK)
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_a_study_of_a_hundred_trials_stays_below_three_megabytes(html: str) -> None:
    assert 100_000 < len(html.encode()) < WIDEST_BYTES


def test_words_are_escaped_and_backticks_are_code() -> None:
    assert marked("a `b <i>` c & `d`") == "a <code>b &lt;i&gt;</code> c &amp; <code>d</code>"
    table = Table(caption="<b>", columns=["<u>"], rows=[["<script>"]])
    html = render(Page(title="<i>", question="<a>", sections=[Section(key="k", title="t", tables=[table])]))
    assert "<script>" not in html and "<u>" not in html and "<i>" not in html


@pytest.mark.parametrize("where", ["no/such/folder/report.html", "a-folder"])
def test_a_place_that_does_not_do_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-folder").mkdir()
    with pytest.raises(SpecError, match="cannot be written"):
        write("<!doctype html>", Path(where))
    assert [path.name for path in tmp_path.rglob("*")] == ["a-folder"]


def test_an_old_report_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")
    assert write("new é", file) == 6
    assert file.read_text(encoding="utf-8") == "new é"
    assert list(tmp_path.iterdir()) == [file]
