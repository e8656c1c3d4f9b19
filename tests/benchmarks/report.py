"""What drawing a study's report costs, by its number of trials: seconds from facts to file, and the file's bytes.

    python tests/benchmarks/report.py --out tests/benchmarks/results/report.json

The studies are those of `tests/reporting/conftest.py`: values made by formula, finished, with figures in every section.
Not in the seconds: Python's start and imports (measured apart, once), and reading a study from its journal.
"""

import statistics
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

_IMPORTING = time.perf_counter()

from measuring import arguments, publish  # noqa: E402

from gapwise.reporting.page import render, write  # noqa: E402
from gapwise.reporting.study_page import study_page  # noqa: E402

_IMPORTING = time.perf_counter() - _IMPORTING
_TESTS = Path(__file__).parents[1] / "reporting"


def drawn(facts: Any, out: Path) -> dict[str, float]:
    """Wall and processor seconds of one page, its bytes and figures."""
    began, used = time.perf_counter(), time.process_time()
    page = study_page(facts, "a day")
    size = write(render(page), out)
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - used,
        "bytes": size,
        "figures": len(page.charts),
    }


def main() -> None:
    chosen = arguments(__doc__, rounds=5, most=5000).parse_args()
    sys.path.insert(0, str(_TESTS))
    make_facts = import_module("conftest").make_facts
    pages: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for trials in (100, chosen.most):
            facts = make_facts(trials=trials)
            every = [drawn(facts, Path(folder, "report.html")) for _ in range(chosen.rounds)]
            pages[trials] = {name: statistics.median(one[name] for one in every) for name in every[0]}
            pages[trials]["slowest_seconds"] = max(one["seconds"] for one in every)
    publish({"rounds": chosen.rounds, "import_seconds": _IMPORTING, "trials": pages}, chosen.out)


if __name__ == "__main__":
    main()
