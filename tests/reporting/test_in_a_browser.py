"""A made-up study's report in a real browser (Debian's `chromium`, headless), as wide as a desktop and a telephone.

A report has no script. For the test one is put into a copy of the page: it measures, and tells a page around it, which
holds it in a frame (a window is never narrower than 485) and whose title `--dump-dom` shows. Where there is no chromium
the test is skipped and says so.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from gapwise.reporting.compare_page import compare_page
from gapwise.reporting.page import Page, render
from gapwise.reporting.palette import DARK, LIGHT
from gapwise.reporting.registry_page import registry_page
from gapwise.reporting.study_page import study_page
from gapwise.spec.protocol import ProtocolSpec

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
SCHEMES = {"dark": 0, "light": 1}
"""As Chromium numbers preferred colour schemes."""
MEASURE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, rgb = (one, what) => getComputedStyle(one)[what];
  const svgs = [...document.querySelectorAll("svg")], box = one => one.getBoundingClientRect();
  const outside = svgs.flatMap(svg => [...svg.querySelectorAll("text")].filter(text =>
    box(text).left < box(svg).left - 6 || box(text).right > box(svg).right + 6 ||
    box(text).top < box(svg).top - 6 || box(text).bottom > box(svg).bottom + 6).map(text => text.textContent));
  top.postMessage(JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth,
    paper: rgb(document.body, "backgroundColor"), ink: rgb(document.body, "color"),
    empty: svgs.filter(svg => box(svg).width < 200 || box(svg).height < 100).length,
    figures: svgs.length, outside: outside,
    smallest: Math.min(...svgs.map(svg => [...svg.querySelectorAll("text")].map(text => box(text).height)).flat()),
    reached: document.querySelectorAll("a[href], [tabindex='0']").length,
  }), "*");
});
</script></body>"""
FRAME = """<title></title><script>addEventListener("message", told => document.title = "measured " + told.data)</script>
<iframe src="FILE" width="WIDTH" height="900" style="border: 0"></iframe>"""


@pytest.fixture(scope="module")
def page_file(lively_facts: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    html = render(study_page(lively_facts(), "a day"))
    file.write_text(html.replace("</body>", MEASURE), encoding="utf-8")
    return file


def opened(file: Path, width: int, scheme: str) -> tuple[dict[str, Any], str]:
    """What was measured, and what the browser's console said."""
    around = file.with_name(f"{width}.html")
    around.write_text(FRAME.replace("FILE", file.name).replace("WIDTH", str(width)), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += [
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        "--window-size=1400,1000",
        "--hide-scrollbars",
    ]
    command += ["--virtual-time-budget=2000", f"--user-data-dir={file.parent / 'profile'}", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>measured (.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    return json.loads(unescape(title[1])), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def compared() -> Page:
    """As of three contenders with long names."""
    names = ["models:/mosi@champion-mr30", "a-study-of-some-length/late_fusion-12", "f" * 32]
    grid = {at: dict.fromkeys(names, 0.8 + float(at)) for at in ("0.0", "0.3", "0.9")}
    rows = [
        {
            "contender": name,
            "against": names[0],
            "condition": at,
            "better_by": 0.1,
            "interval": [-0.05, 0.25],
            "p": 0.04,
        }
        | {"level": 0.01, "verdict": "better" if at == "0.9" else "within noise"}
        for name in names[1:]
        for at in (*grid, "mean")
    ]
    body: dict[str, Any] = {"metric": "mae", "split": "valid", "mask_seeds": 20, "samples": 150, "groups": 30}
    body |= {"alpha": 0.05, "rates": grid, "mean": grid["0.3"], "floor": 1.4, "differences": rows, "words": ["so"]}
    who = [{"name": name, "models": dict.fromkeys(grid, name), "seeds": {name: 1}} for name in names]
    body |= {"contenders": who, "dataset_fingerprint": "d" * 64, "reads_of_test": 2}
    return compare_page(body, ProtocolSpec(), "a day")


def promoted() -> Page:
    """Two decisions within a minute, when ticks are seconds."""
    told = {"who": "ann@host", "rate": "0.5", "decision": "promote", "digest": "1" * 64}
    rows = [
        told | {"sequence": at, "time": f"2026-01-01T08:00:{20 * at}+00:00", "from": None, "to": str(at)}
        for at in (1, 2)
    ]
    history = {"name": "mosi", "entries": rows, "head": {"sequence": 2, "digest": "1" * 64}, "problems": []}
    served = {"metric": "mae", "value": 0.9, "sd": 0.01, "trial": "prlf-3", "study": "one", "version": "2"}
    return registry_page(history, {"name": "mosi", "champions": {"0.5": served}, "previous": {}}, "a day")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", [compared, promoted])
def test_pages_of_comparisons_and_promotions_fit(page: Callable[[], Page], width: int, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(page()).replace("</body>", MEASURE), encoding="utf-8")
    found, console = opened(file, width, "light")
    assert (console, found["width"], found["overflow"], found["empty"], found["outside"]) == ("", width, 0, 0, [])
    assert found["figures"] == {compared: 2, promoted: 1}[page] and found["smallest"] > 8


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("scheme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_a_report_fits_follows_the_scheme_and_says_nothing_on_the_console(
    page_file: Path, width: int, scheme: str, colours: dict[str, str]
) -> None:
    found, console = opened(page_file, width, scheme)
    assert (console, found["width"]) == ("", width)
    assert (found["overflow"], found["empty"], found["outside"]) == (0, 0, [])
    assert (found["paper"], found["ink"]) == (rgb(colours["paper"]), rgb(colours["ink"]))
    assert found["figures"] > 15 and found["smallest"] > 8
    assert found["reached"] > 12
