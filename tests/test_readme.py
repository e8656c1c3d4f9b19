"""The three guides, held to their word: every code block says whether it runs, and those that do run as written.

The team's walk is in `cluster/test_local_team.py`. Faked: the set-up (`gapwise.testing.guides`). Where the real
CMU-MOSI is not at hand, a synthetic pickle of the same layout lies in its place, and the test's id says so. Cluster,
studies and promotion are real.
"""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapwise.data.store import Split, TestSplit, open_dataset
from gapwise.testing.guides import ROOT, SHIPPED, blocks, blocks_of, lay_out, walk
from gapwise.testing.mlflow_server import environment
from gapwise.tuning.result import load_result

WALKS = {"README.md": ("run", "run-team", "run-recipe"), "search_spaces/README.md": ("run",), "cluster/README.md": ()}
"""By guide, the tags that a test below walks; what `cluster/` is about is no machine of ours."""
SERVED = """
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
"""The mean absolute error at rate 0.3 of a registered model, asked row by row."""
MOSI = Path(os.environ.get("GAPWISE_SHARED", ROOT.parent / "shared")) / "data" / "mosi" / "mosi_official.pkl"


def answer(folder: Path, *words: str) -> dict[str, Any]:
    """What a command says with --json."""
    command = [".venv/bin/gapwise", *words, "--json"]
    ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("guide", WALKS)
def test_every_code_block_says_whether_it_runs(guide: str) -> None:
    found = blocks_of(guide, (ROOT / guide).read_text(encoding="utf-8"))
    fences = len(re.findall(r"^```", (ROOT / guide).read_text(encoding="utf-8"), re.MULTILINE))
    untagged = [f"{guide}:{one.line}" for one in found if one.tag not in ("show", *WALKS[guide])]
    assert found and fences == 2 * len(found) and untagged == []


def test_a_block_without_a_tag_is_seen_and_named_by_its_line() -> None:
    text = "one\n```console\nls\n```\n```python run file=a/b.py\nx = 1\n```\n```diff run-recipe\n-a\n+b\n```\n"
    untagged, written, changed = blocks_of("G.md", text)
    assert (untagged.line, untagged.tag) == (2, "")
    assert (written.line, written.file, written.text) == (5, "a/b.py", "x = 1\n")
    assert "cat > a/b.py <<'END_OF_BLOCK'\nx = 1\nEND_OF_BLOCK" in written.command()
    assert changed.command().endswith("patch -p1 --no-backup-if-mismatch <<'END_OF_BLOCK'\n-a\n+b\nEND_OF_BLOCK")


def test_a_walk_stops_at_the_block_that_fails(tmp_path: Path) -> None:
    text = "```console run\nexport A=1\n```\n```console run\ntest $A = 2\n```\n```console run\ntouch late\n```\n"
    with pytest.raises(AssertionError, match=r"G\.md:4\n\Z"):
        walk(blocks_of("G.md", text), tmp_path)
    assert not (tmp_path / "late").exists()


class TestTheTutorial:
    """README's `run` blocks."""

    @pytest.mark.ray
    @pytest.mark.slow
    @pytest.mark.parametrize("data", ["real" if MOSI.exists() else "stand-in"])
    def test_it_runs_as_it_is_written(self, data: str, small: Path, tmp_path: Path) -> None:
        place = tmp_path / "shared" / "data" / "mosi" / MOSI.name
        place.parent.mkdir(parents=True)
        if data == "real":
            place.symlink_to(MOSI)
        else:
            write_stand_in(small, place)
        folder = lay_out(tmp_path / "gapwise")
        written = blocks("README.md", "run")
        assert "data import ../shared/data/mosi/" in written[0].text and written[-1].language == "python"
        said = walk(written, folder).stdout
        assert re.search(r"^mosi: champions by missing rate$", said, re.MULTILINE), said[-6000:]
        report = (folder / "report.html").read_text(encoding="utf-8")
        assert "<svg" in report and "mosi" in report
        assert (folder / "answers.parquet").stat().st_size > 0
        self.check_the_study(folder, {"real": [1284, 229, 686], "stand-in": [400, 150, 150]}[data])
        self.check_the_champions(folder)
        left = {".gapwise", ".venv", "answers.parquet", "data", "report.html", *SHIPPED}
        assert {entry.name for entry in folder.iterdir()} == left, "nothing else is written beside the user's files"

    def check_the_study(self, folder: Path, sizes: list[int]) -> None:
        study, data = load_result(folder / ".gapwise" / "studies", "first"), open_dataset(folder / "data" / "mosi")
        assert [data.manifest.splits[name].samples for name in ("train", "valid", "test")] == sizes
        assert study.trials["complete"] >= 2 and study.trials["failed"] == study.trials["running"] == 0
        assert study.fingerprints == data.fingerprints()
        assert list(study.best) == list(study.baseline) == [str(rate) for rate in study.protocol.rates]
        assert study.train_seconds > 0 and 0 < study.search_seconds < study.wall_seconds

    def check_the_champions(self, folder: Path) -> None:
        """The first champions are promoted everywhere; one, served, errs as much as `evaluate` says it does."""
        champions = answer(folder, "registry", "show", "mosi")["champions"]
        assert {"0.0", "0.3"} <= set(champions)
        assert all(one["version"] for one in champions.values())
        command = ("evaluate", "models:/mosi@champion-mr30", "--data", "data/mosi", "--mask-seeds", "3")
        judged = answer(folder, *command)
        assert judged["dataset_fingerprint"] == open_dataset(folder / "data" / "mosi").manifest.fingerprint
        assert judged["baseline"]["conditions"]["0.3"]["mae"]["mean"] > 0
        assert [judged["optimum"], judged["plugin_optimum"]] == [None, None], "nobody knows it of these data"
        told = environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/.gapwise/mlflow.db")
        told |= {"PYTHONPATH": str(folder / "platform"), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
        script = [sys.executable, "-c", SERVED, "models:/mosi@champion-mr30", "data/mosi"]
        ran = subprocess.run(script, cwd=folder, env=told, capture_output=True, text=True, check=True)
        served = json.loads(ran.stdout.splitlines()[-1])
        assert served["mae"] == pytest.approx(judged["rates"]["0.3"]["mae"]["mean"], abs=1e-4)
        assert not served["ray"], "a served model does not need Ray"

    def test_the_stand_in_is_a_pickle_of_the_same_layout(self, small: Path, tmp_path: Path) -> None:
        from gapwise.data.importers import ImportOptions, import_dataset

        write_stand_in(small, tmp_path / "it.pkl")
        made = import_dataset(tmp_path / "it.pkl", tmp_path / "made", "mmsa", ImportOptions(name="mosi"))
        assert {name: one.samples for name, one in made.splits.items()} == {"train": 400, "valid": 150, "test": 150}
        assert made.groups.startswith("video") and set(made.modalities) == {"text", "audio", "vision"}


def write_stand_in(small: Path, place: Path) -> None:
    """The synthetic `small` set as the field's pickles hold CMU-MOSI."""
    dataset = open_dataset(small)
    splits = (dataset.train, dataset.valid, TestSplit(small, dataset.manifest))  # a copy is no look at test
    place.write_bytes(pickle.dumps({one.name: _as_mmsa(one) for one in splits}, protocol=4))


def _as_mmsa(split: Split) -> dict[str, Any]:
    batch = split.batch(np.arange(len(split)))
    inside: dict[str, Any] = {
        "id": [f"{group}$_${row}" for row, group in enumerate(split.groups)],
        "raw_text": [f"sentence {row}" for row in range(len(split))],
        "regression_labels": split.labels,
    }
    for name in batch.values:
        inside[name] = batch.values[name].numpy()
        inside[f"{name}_lengths"] = split.lengths[name].tolist()
    return inside


@pytest.mark.ray
@pytest.mark.slow
def test_the_recipes_are_all_that_it_takes(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "gapwise", copied=True)
    written = blocks("README.md", "run-recipe")
    assert {one.language for one in written} >= {"python", "diff", "yaml", "console"}
    said = walk(written, folder, PYTHONPATH=str(folder / "platform")).stdout
    assert re.search(r"^\d+ passed", said, re.MULTILINE), "the contract suite found the new model"
    assert re.search(r"^study max: best by missing rate$", said, re.MULTILINE), said[-6000:]
    assert said.count("(verified)") >= 2, "every recipe for data ends with a dataset that checks out"


def test_the_search_space_that_its_guide_shows_is_one(tmp_path: Path) -> None:
    said = walk(blocks("search_spaces/README.md", "run"), lay_out(tmp_path / "gapwise")).stdout
    assert "pruned on robust" in said and "constraints: parameters at most 2,000,000" in said
