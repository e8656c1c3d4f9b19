"""The whole job as a newcomer types it, in a fresh folder and fresh processes. Nothing is faked.

Data is the real MOSI pickle where ../shared/data has it, otherwise the synthetic `small` set; the test's id says which.
The space is tiny: this is about the way through, not about figures.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
MOSI = Path(os.environ.get("GAPWISE_SHARED", ROOT.parent / "shared")) / "data" / "mosi" / "mosi_official.pkl"
SPACE = {
    "question": "Does the way through hold?",
    "trials": 1,
    "common": {"model.width": 16, "model.heads": 2, "model.depth": 1, "model.summary_tokens": 2},
    "train": {"epochs": 2, "patience": 0, "batch_size": 128, "protocol": {"rates": [0.0, 0.3]}},
    "arms": {
        "promise": {"parameters": {"model.tau_cross": {"role": "searched", "low": 0.05, "high": 1.0, "log": True}}},
        "prlf": {"parameters": {"model.fisher_lambda": {"role": "searched", "low": 0.0, "high": 1.0}}},
    },
    "second_phase": {"top_k": 1, "seeds": 2, "cap": 1, "mask_seeds": 3},
    "pruner": {"name": "none"},
}
REPRODUCE = """
import json, sys
import numpy as np, pandas as pd, mlflow
from gapwise.data.batch import hide
from gapwise.data.loading import as_tensors, samples_of
from gapwise.data.protocols import build_protocol
from gapwise.data.rows import to_rows
from gapwise.data.store import open_dataset
from gapwise.spec.protocol import ProtocolSpec

model = mlflow.pyfunc.load_model(sys.argv[1])
split = open_dataset(sys.argv[2]).valid
protocol = ProtocolSpec(rates=(0.3,))
whole = split.batch(np.arange(len(split)))
samples = samples_of(split.keys, whole)
errors = []
for seed in (1, 2, 3):
    observed = build_protocol(protocol).evaluation(samples, split="valid", mask_seed=seed)["0.3"]
    rows = pd.DataFrame(to_rows(hide(whole, as_tensors(observed), mask_visible=True)))
    errors.append(np.abs(model.predict(rows)["prediction"].to_numpy() - split.labels).mean())
print(json.dumps({"mae": float(np.mean(errors)), "ray": "ray" in sys.modules}))
"""


def gapwise(*arguments: str, cwd: Path, allowed: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run a command with --json in a process of its own."""
    command = [sys.executable, "-c", "from gapwise.cli.main import main; main()", *arguments, "--json"]
    ran = subprocess.run(command, cwd=cwd, env=_environment(), capture_output=True, text=True, check=False)
    assert ran.returncode in allowed, ran.stderr[-3000:]
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "GAPWISE", "RAY"))}
    return kept | {"PYTHONPATH": str(ROOT / "platform"), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


SOURCES = ["mosi" if MOSI.exists() else "synthetic"]


@pytest.mark.parametrize("source", SOURCES)
def test_data_in_champions_by_missing_rate_out(source: str, tmp_path: Path) -> None:
    if source == "mosi":
        made = gapwise("data", "import", str(MOSI), "--format", "mmsa", "--out", "D", "--name", "it", cwd=tmp_path)
        assert made["splits"] == {"train": 1284, "valid": 229, "test": 686}
    else:
        made = gapwise("data", "synth", "D", "--preset", "small", cwd=tmp_path)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))

    study = gapwise("tune", "space.yaml", "--data", "D", "--study", "first", cwd=tmp_path)
    assert study["trials"] == {"complete": 3, "pruned": 0, "failed": 0, "running": 0}
    assert study["data_fingerprint"] == made["fingerprint"]
    assert set(study["best"]) == {"0.0", "0.3"}
    assert study["train_seconds"] > 0 and 0 < study["search_seconds"] < study["wall_seconds"]

    promoted = gapwise("promote", "first", "--name", "it", cwd=tmp_path, allowed=(0, 3))
    shown = gapwise("registry", "show", "it", cwd=tmp_path)
    for decision in promoted["decisions"]:
        assert decision["decision"] == "promote", decision
        assert shown["champions"][decision["rate"]]["version"] == decision["version"]

    judged = gapwise("evaluate", "models:/it@champion-mr30", "--data", "D", "--mask-seeds", "3", cwd=tmp_path)
    assert judged["dataset_fingerprint"] == made["fingerprint"]
    assert judged["baseline"]["conditions"]["0.3"]["mae"]["mean"] > 0
    optima = [judged["optimum"], judged["plugin_optimum"]]
    if source == "synthetic":
        assert all(0.3 < one["conditions"]["0.3"]["mae"]["mean"] < 0.6 for one in optima)
    else:
        assert optima == [None, None]
    command = [sys.executable, "-c", REPRODUCE, "models:/it@champion-mr30", "D"]
    environment = _environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/.gapwise/mlflow.db"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    served = json.loads(ran.stdout.splitlines()[-1])
    assert served["mae"] == pytest.approx(judged["rates"]["0.3"]["mae"]["mean"], abs=1e-4)
    assert not served["ray"], "a served model does not need Ray"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".gapwise", "D", "space.yaml"]
