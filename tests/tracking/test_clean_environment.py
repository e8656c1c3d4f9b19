"""A registered model in a virtual environment that holds its own requirements and nothing else: no Ray, no Optuna.

Faked: nothing. Everything comes from the package registry, at the versions that the repository pins; first what the
model requires, without any gapwise, and then gapwise built as a wheel, without its extra for training.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gapwise.data.rows import to_rows
from gapwise.data.store import open_dataset, statistics
from gapwise.models.saved import save_model
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.tracking import registering
from gapwise.tracking.client import connect, experiment_id
from gapwise.tracking.runs import start_run
from gapwise.tracking.served import answering
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
CONSUMER = """
import importlib.util, json, sys
import mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model("models:/small/1")
found = model.predict(pd.DataFrame(json.load(open(sys.argv[1]))))["prediction"].tolist()
lacking = [name for name in ("ray", "optuna", "transformers") if importlib.util.find_spec(name) is None]
import gapwise
lacking += [] if ".zip" in gapwise.__file__ else [gapwise.__file__]
print(json.dumps({"found": found, "lacking": lacking}))
"""


def run(*command: object, **environment: str) -> str:
    ended = subprocess.run(
        [str(word) for word in command],
        env={name: one for name, one in os.environ.items() if name != "PYTHONPATH"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout[-2000:]}{ended.stderr[-4000:]}"
    return ended.stdout


@pytest.mark.timeout(1500)
def test_a_model_s_own_requirements_are_enough_to_answer(small: Path, tmp_path: Path) -> None:
    dataset, home = open_dataset(small), Home(tmp_path / "home")
    fields = {"model": {"name": "prlf", "width": 8, "heads": 2, "depth": 1}, "epochs": 1, "batch_size": 400}
    job = whole_job(TrainSpec.model_validate(fields), dataset, statistics(dataset.train))
    found = fit(job, NoReporter(), NoSink())
    folder = tmp_path / "refit" / "model"
    save_model(folder, trained_model(job, found, found.kept.metrics))
    tracking = connect(home)
    stored = start_run(tracking, experiment_id(tracking, home, "small"), "one", tags={})
    registering.register(tracking, "small", folder, run_id=stored, facts={})
    columns = to_rows(dataset.valid.batch(np.arange(4)))
    rows = {name: [None if cell is None else cell.tolist() for cell in column] for name, column in columns.items()}
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "platform", source / "platform", ignore=shutil.ignore_patterns("*.egg-info"))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "dist", source)
    run(sys.executable, "-m", "venv", tmp_path / "clean")
    python = tmp_path / "clean" / "bin" / "python"
    needs = next((home.root / "mlartifacts").rglob("requirements.txt"))
    quiet, pinned = ["-q", "--no-compile", "--disable-pip-version-check"], REPOSITORY / "constraints.txt"
    torch = next(one for one in pinned.read_text().splitlines() if one.startswith("torch=="))
    run(python, "-m", "pip", "install", *quiet, torch)
    install = (Path(sys.executable).with_name("uv"), "pip", "install", "-q", "--python", python, "-c", pinned)
    run(*install, "-r", needs)
    said = run(python, "-c", CONSUMER, tmp_path / "rows.json", MLFLOW_TRACKING_URI=tracking.uri, OMP_NUM_THREADS="1")
    answer = json.loads(said.splitlines()[-1])
    assert answer["lacking"] == ["ray", "optuna", "transformers"]
    expected = answering(folder).predict(None, pd.DataFrame(rows))["prediction"]
    assert answer["found"] == pytest.approx(expected.tolist(), abs=1e-5)
    run(*install, next((tmp_path / "dist").glob("gapwise_platform-*.whl")))
    refused = subprocess.run(
        [tmp_path / "clean" / "bin" / "gapwise", "tune", "none.yaml"], capture_output=True, text=True
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
