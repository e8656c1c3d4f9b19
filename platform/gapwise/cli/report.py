"""`gapwise report`: a study, or a registered name's promotions, as one HTML file that needs nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gapwise.cli import completion
from gapwise.cli.output import JsonOption, in_bytes, print_json, stdout
from gapwise.errors import SpecError
from gapwise.spec.home import home

if TYPE_CHECKING:
    from gapwise.reporting.page import Page

EXAMPLES = """
Examples:

    gapwise report prlf-mosi --out report.html

    gapwise report prlf-mosi --name mosi --out report.html

    gapwise report registry mosi --out promotions.html

The file is self-contained: no script, nothing is fetched, it prints, and it follows the reader's light or dark.
"""


def report(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY",
            autocompletion=completion.reported,
            help="A study, or `registry NAME` for a name's promotions.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The HTML file; one that exists is replaced.")] = Path(
        "report.html"
    ),
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=completion.registered,
            help="A registered model to set beside a study; by default the one it serves.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Write a study's report: the answer first, then robustness, search, noise, cost, lineage and what to try next."""
    if what[0] == "registry" and len(what) == 2:
        page = _of_registry(what[1])
    elif len(what) == 1:
        page = _of_study(what[0], name)
    else:
        raise SpecError(f"unexpected {' '.join(what[1:])!r}", where="report", allowed="STUDY, or registry NAME")

    from gapwise.reporting.page import render, write

    size = write(render(page), out)
    if as_json:
        sections = [section.key for section in page.sections]
        print_json({"file": str(out), "bytes": size, "sections": sections, "figures": len(page.charts)})
    else:
        stdout.print(f"{page.title}: {in_bytes(size)} written to {out}", soft_wrap=True, markup=False)


def _of_study(study: str, name: str) -> "Page":
    from gapwise.reporting.serving import serving_of
    from gapwise.reporting.study_facts import gather
    from gapwise.reporting.study_page import study_page
    from gapwise.reporting.words import now
    from gapwise.tuning.reading import read_study

    found = read_study(home().studies, study)
    return study_page(gather(found, *serving_of(found, home(), name)), now())


def _of_registry(name: str) -> "Page":
    from gapwise.promotion.champions import champions
    from gapwise.promotion.history import history
    from gapwise.reporting.registry_page import registry_page
    from gapwise.reporting.words import now
    from gapwise.tracking.client import connect

    tracking = connect(home())
    return registry_page(history(tracking, name), champions(tracking, name), now())
