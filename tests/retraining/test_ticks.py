"""`gapwise retrain tick` end to end: a dataset that grows by a part is trained on again, judged, and promoted or held.

Nothing is faked; the first schedule fires every minute. CMU-MOSI where `../shared/data` is there, otherwise a synthetic
set. The models are small and trained briefly; how good they are does not matter here.
"""

import json
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MOSI = ROOT.parent / "shared" / "data" / "mosi" / "mosi_official.pkl"

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = """
question: "Does anything beat the baseline?"
trials: 2
baseline_share: 0.5
common: {model.width: 16, model.heads: 2, model.depth: 1, model.summary_tokens: 2}
train:
  epochs: 5
  patience: 0
  batch_size: 64
  protocol: {name: frames, rates: [0.0, 0.5]}
arms:
  prlf: {parameters: {optimiser.lr: {role: nuisance, low: 0.001, high: 0.01, log: true}}}
  late_fusion: {parameters: {optimiser.lr: {role: nuisance, low: 0.001, high: 0.01, log: true}}}
second_phase: {top_k: 1, seeds: 1, cap: 1, mask_seeds: 2}
pruner: {name: none}
"""
GATE = "{mask_seeds: 3, confidence: 0.6, non_inferiority: 1.0, yearly_alpha: 1.0, decisions_per_year: 3}"
"""Easily passed, three times: these tests are of who decides when, and the gate has its own."""


class Place:
    """A home, a dataset that grows, and the commands a person would type."""

    def __init__(self, root):
        self.root = root
        self.data = root / "data"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "platform"),
            "GAPWISE_HOME": str(root / "home"),
            "OMP_NUM_THREADS": "1",
        }
        (root / "space.yaml").write_text(SPACE)

    def run(self, *words, code=0):
        command = [sys.executable, "-m", "gapwise", *(str(word) for word in words)]
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=800
        )
        assert done.returncode in ([code] if isinstance(code, int) else code), (words, done.stdout, done.stderr)
        return done

    def tick(self, *words, code=(0, 3)):
        return json.loads(self.run("retrain", "tick", "schedule.yaml", "--json", *words, code=code).stdout)

    def schedule(self, **lines):
        fields = {"name": "m", "cron": '"* * * * *"', "data": "data", "gate": GATE, **lines}
        text = "".join(f"{key}: {value}\n" for key, value in fields.items())
        (self.root / "schedule.yaml").write_text(text)


def synthetic():
    """Sixty videos of four samples; labels follow the text."""
    source, splits = np.random.default_rng(0), {}
    for name, videos in (("train", range(40)), ("valid", range(40, 50)), ("test", range(50, 60))):
        ids = [f"v{video}$_${clip}" for video in videos for clip in range(4)]
        text = source.normal(size=(len(ids), 5, 8)).astype(np.float32)
        splits[name] = {
            "raw_text": ["words"] * len(ids),
            "id": ids,
            "text": text,
            "text_lengths": [5] * len(ids),
            "audio": source.normal(size=(len(ids), 1, 6)).astype(np.float32),
            "audio_lengths": [1] * len(ids),
            "regression_labels": text.mean((1, 2)).clip(-3, 3),
        }
    return splits


def two_parts(content, root):
    """The first third of every split as a dataset, and what a producer appends later."""

    def cut(split, rows):
        return {
            key: np.asarray(value)[rows] if len(value) == len(split["id"]) else value for key, value in split.items()
        }

    first = {name: cut(split, slice(0, len(split["id"]) // 3)) for name, split in content.items()}
    later = {name: cut(split, slice(len(split["id"]) // 3, len(split["id"]) // 2)) for name, split in content.items()}
    for name, part in (("first.pkl", first), ("later.pkl", later)):
        (root / name).write_bytes(pickle.dumps(part))
    return root / "first.pkl", root / "later.pkl"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("schedule")
    place = Place(root)
    sys.stdout.write(f"data: {'CMU-MOSI' if MOSI.exists() else 'synthetic, in the layout of MMSA'}\n")
    content = pickle.loads(MOSI.read_bytes()) if MOSI.exists() else synthetic()
    first, place.later = two_parts(content, root)
    place.run("data", "import", first, "--format", "mmsa", "--out", "data", "--name", "mosi")
    return place


def in_its_minute(tick):
    """What the tick answers when it is due: in the minute of the one before it would wait."""
    while (told := tick())["action"] == "wait":
        time.sleep(60 - time.time() % 60)
    return told


def test_a_schedule_trains_grows_refits_skips_and_keeps_its_record(place):
    # The first tick searches, and its winner must beat the floor and the baseline to serve.
    place.schedule(mode="{kind: study, space: space.yaml}", triggers="{code: false}")
    begun = place.tick("--force")
    assert (begun["action"], begun["attempt"]) == ("study", 1)
    assert (begun["outcome"], begun["entry"]) == ("promoted", 1)
    history = json.loads(place.run("registry", "history", "m", "--json").stdout)
    assert history["verified"]

    # A part arrives: the data's fingerprint says so, and the next due tick trains on a copy of just that.
    place.schedule(mode="{kind: refit, seeds: 2, mask_seeds: 2}", triggers="{code: false}")
    grown = json.loads(place.run("data", "append", place.later, "--to", "data", "--format", "mmsa", "--json").stdout)
    again = in_its_minute(place.tick)
    assert (again["action"], again["entry"]) == ("refit", 2)
    assert again["outcome"] in ("promoted", "held")
    told = json.loads(place.run("retrain", "history", "schedule.yaml", "--json").stdout)
    assert told["healthy"]
    assert told["entries"][-1]["facts"]["data"] == grown["fingerprint"]
    decided = json.loads(place.run("registry", "history", "m", "--json").stdout)
    assert decided["verified"]
    assert {one["sequence"] for one in decided["entries"]} == {1, 2}
    study = json.loads(place.run("study", "show", again["study"], "--json").stdout)
    assert study["state"] == "finished"
    assert study["data_fingerprint"] == grown["fingerprint"]

    # Nothing changed: the next one is skipped, and neither Ray nor torch is imported for that.
    probe = (
        "import sys\nsys.argv = ['gapwise', 'retrain', 'tick', 'schedule.yaml', '--json']\n"
        "from gapwise.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {'torch', 'ray', 'optuna', 'transformers'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )

    def probed():
        command = [sys.executable, "-c", probe]
        done = subprocess.run(
            command, cwd=place.root, env=place.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    skipped = in_its_minute(probed)
    assert (skipped["action"], skipped["reason"]) == ("skip", "data and code are unchanged")
    sys.stdout.write(f"a tick with nothing to do took {skipped['seconds']} s beside starting Python\n")
    listed = place.run("retrain", "history", "schedule.yaml").stdout
    assert re.search(r"data and code are unchanged", listed)


def test_what_a_killed_tick_began_is_finished_by_the_next_one(place):
    # Yearly: not due while the test runs, so that the second tick, too, is one that was forced.
    place.schedule(cron='"0 0 1 1 *"', mode="{kind: study, space: space.yaml}", triggers="{code: false}")
    command = [sys.executable, "-m", "gapwise", "retrain", "tick", "schedule.yaml", "--json", "--force"]
    first = subprocess.Popen(
        command, cwd=place.root, env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert first.stderr is not None
    said = []
    for line in first.stderr:  # until the search has begun
        said.append(line)
        if "search:" in line:
            break
    else:
        pytest.fail(f"it never searched: {''.join(said)}")
    first.kill()
    first.wait()
    first.stdout.close()
    first.stderr.close()

    second = place.tick("--force")

    assert (second["action"], second["attempt"]) == ("study", 1)
    assert second["outcome"] in ("promoted", "held")
    told = json.loads(place.run("retrain", "history", "schedule.yaml", "--json").stdout)
    *_, dead, claim, end = told["entries"]
    assert [(one["kind"], one["attempt"]) for one in (dead, claim, end)] == [("claim", 1), ("claim", 1), ("end", 1)]
    assert dead["tick"] < claim["tick"] == end["tick"]
    assert claim["facts"] == dead["facts"] and second["study"] == dead["facts"]["study"]


def test_data_that_disappeared_are_one_line_and_a_record(place):
    # Yearly: every minute, a slow machine would be alerted that nothing succeeds, and that is an entry too.
    place.schedule(cron='"0 0 1 1 *"', data="gone", triggers="{code: false}", retry_minutes=0)

    done = place.run("retrain", "tick", "schedule.yaml", "--force", code=2)

    assert len(done.stderr.strip().splitlines()) == 1
    assert "gone" in done.stderr
    told = json.loads(place.run("retrain", "history", "schedule.yaml", "--json").stdout)
    assert told["entries"][-1]["outcome"] == "failed"
    assert "gone" in told["entries"][-1]["reason"]
