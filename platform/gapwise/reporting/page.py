"""A report as values (sections of figures, tables and words), and their one HTML file: no script, nothing from outside.

What stands in a report is decided elsewhere; nothing here knows of studies.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from gapwise.errors import SpecError
from gapwise.reporting.drawing import as_svg
from gapwise.reporting.palette import DARK, LIGHT


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A figure."""

    key: str
    """Unique on its page; also the name of its file in MLflow."""
    title: str
    text: str
    """What it shows, for those who do not see it; also its caption."""
    figure: Figure

    @property
    def svg(self) -> str:
        return as_svg(self.figure, self.key, title=self.title, text=self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text; the first column names its row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: Sequence[str] = ()
    """Columns that are not numbers, beside the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One question and its answer."""

    key: str
    title: str
    lead: Sequence[str] = ()
    """Sentences, a paragraph each."""
    items: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A whole report."""

    title: str
    question: str
    notice: str = ""
    """What a reader must know first, such as that the study is not finished."""
    sections: Sequence[Section] = field(default_factory=list)
    foot: str = ""

    @property
    def charts(self) -> list[Chart]:
        return [chart for section in self.sections for chart in section.charts]


def marked(text: str) -> Markup:
    """Words for HTML; what stands between backticks is code."""
    parts = text.split("`")
    pieces = [Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)]
    return Markup("").join(pieces)


def render(page: Page) -> str:
    """The HTML of a page."""
    environment = Environment(
        loader=PackageLoader("gapwise.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["marked"] = marked
    return environment.get_template("page.html.jinja").render(page=page, light=LIGHT, dark=DARK)


def write(html: str, file: Path) -> int:
    """Put the report in place at once, or leave what was there; returns its bytes. Raises SpecError for a place that
    does not do.
    """
    content = html.encode("utf-8")
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None
        raise SpecError(f"cannot be written: {error.strerror}", where=f"--out {file}", allowed="a file") from error
    return len(content)
