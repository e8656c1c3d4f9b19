"""Diagnostics at the end of a run: those that `evaluate` would give, and never a reason to lose the run.

Nothing is faked; one truth file is broken.
"""

import logging
import shutil
from pathlib import Path

import pytest

from gapwise.data.store import open_dataset
from gapwise.data.truth import TRUTH_FILE
from gapwise.evaluation.diagnostics import curves
from gapwise.promotion.judge import diagnose
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.training.checkpoint import trained_model
from gapwise.training.validation import diagnostic_curves

PROTOCOL = {"rates": [0.0, 0.5]}


@pytest.mark.parametrize("name", ["prlf", "promise"])
def test_a_run_keeps_what_evaluate_would_say_of_validation(small: Path, name: str) -> None:
    """But for the mask seed: training looks at seed 0, `evaluate` at 1 and on. Nothing is masked at rate 0."""
    dataset = open_dataset(small)
    job, trained = trained_on(dataset, tiny_spec(name, epochs=1, batch_size=200, protocol=PROTOCOL))

    kept = diagnostic_curves(job, trained)

    model = trained_model(job, trained, {})
    later = curves(diagnose(model, dataset, job.spec.protocol, split=dataset.valid, mask_seeds=1))
    assert set(kept) == set(later)
    for curve, values in kept.items():
        assert set(values) == {"0.0", "0.5"}
        assert values["0.0"] == pytest.approx(later[curve]["0.0"], abs=1e-2)


def test_a_truth_that_cannot_be_read_costs_a_warning_and_not_the_run(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(small, tmp_path / "broken")
    (tmp_path / "broken" / TRUTH_FILE).write_bytes(b"nothing")
    spec = tiny_spec("prlf", epochs=1, batch_size=200, protocol=PROTOCOL)
    job, trained = trained_on(open_dataset(tmp_path / "broken"), spec)

    with caplog.at_level(logging.WARNING):
        assert diagnostic_curves(job, trained) == {}

    assert TRUTH_FILE in caplog.text
