"""cluster/SCALING.md quotes what cluster/scaling.py prints, and the script reads what the benchmarks measured.

Nothing is faked but one changed result in a copy of the benchmarks' folder. No time is asserted: the arithmetic is.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def constants(scaling):
    return scaling.measured()


def quoted(text: str) -> str:
    found = re.search(r"<!-- cluster/scaling\.py -->\n+(.*?)\n+<!-- end -->", text, flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_document_quotes_what_the_script_prints(scaling, constants, cluster):
    assert quoted((cluster / "SCALING.md").read_text(encoding="utf-8")) == scaling.document(constants)


def test_another_measurement_gives_another_document(scaling, constants, tmp_path):
    folder = shutil.copytree(scaling.RESULTS, tmp_path / "results")
    result = json.loads((folder / "actors.json").read_text(encoding="utf-8"))
    (folder / "actors.json").write_text(json.dumps(result | {"book_cpu_milliseconds_a_call": 100.0}), encoding="utf-8")

    assert scaling.document(scaling.measured(folder)) != scaling.document(constants)


def test_a_measurement_that_is_missing_is_not_guessed(scaling, tmp_path):
    folder = shutil.copytree(scaling.RESULTS, tmp_path / "results")
    (folder / "actors.json").unlink()

    with pytest.raises(KeyError, match="actors"):
        scaling.measured(folder)


def test_more_gpus_search_faster_until_the_study_actor_is_full(scaling, constants):
    one, eight = scaling.search_seconds(1, constants), scaling.search_seconds(8, constants)
    many, more = scaling.search_seconds(10_000, constants), scaling.search_seconds(20_000, constants)

    assert one == pytest.approx(8 * eight)
    assert many == more == sum(part.trials * part.actor_seconds(constants) for part in scaling.parts(constants))


def test_what_is_full_first_comes_first(scaling, constants):
    slow = replace(constants, tpe_question=1000.0)

    assert scaling.filled(slow)[0][0] == "study actor, TPE at 1,000 trials"
    assert scaling.filled(constants)[0][0] == "study actor, Gaussian process, 300th trial"


def test_every_part_of_the_dataset_is_counted(scaling):
    assert scaling.TRAIN_SAMPLES + scaling.VALID_SAMPLES + 4_659 == scaling.ALL_SAMPLES


def test_the_counted_parameters_are_those_of_the_model_that_was_timed(scaling):
    import numpy as np

    from gapwise.data.shape import DataShape, ModalityShape, Moments, Statistics
    from gapwise.models.catalogue import build_model
    from gapwise.spec.model import PrlfSpec

    dims = {"text": (300, 50), "audio": (73, 1)}
    modalities = {name: ModalityShape(dim=dim, max_length=length) for name, (dim, length) in dims.items()}
    moments = {name: Moments(np.zeros(dim, np.float32), np.ones(dim, np.float32)) for name, (dim, _) in dims.items()}
    shape = DataShape(task="regression", modalities=modalities, label_range=(-3.0, 3.0))
    spec = PrlfSpec(width=64, heads=8, depth=2, summary_tokens=4)

    model = build_model(spec, shape, Statistics(moments, 0.0, 1.0), seed=0)

    assert sum(each.numel() for each in model.parameters()) == scaling.PARAMETERS


def test_what_was_not_measured_is_called_assumed(scaling, constants):
    lines = scaling.constants_table(constants).splitlines()
    guessed = ("one GPU", "shared storage", "a sample forward")

    assert [line for line in lines if any(one in line for one in guessed)] == [
        line for line in lines if "**assumed**" in line
    ]
