"""Whether data moved, asked of a real dataset that grew and of a real, registered champion (trained for an epoch, which
is enough to err). Nothing is faked; what arrives is shifted by hand, or is not.
"""

from pathlib import Path

import numpy as np
import pytest

from gapwise.data.growth import AppendOptions, append
from gapwise.data.importers import ImportOptions, import_dataset
from gapwise.data.store import open_dataset, statistics
from gapwise.models.saved import save_model
from gapwise.retraining.moved import moved
from gapwise.spec.home import Home
from gapwise.spec.schedule import TriggersSpec
from gapwise.spec.train import TrainSpec
from gapwise.tracking import registering, registry
from gapwise.tracking.client import connect, experiment_id
from gapwise.tracking.runs import start_run
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

BOTH = TriggersSpec(new_data=False, input_drift=0.01, error_drift=0.01)


def npz(path: Path, splits: dict[str, range], *, shift: float = 0.0, labels: float = 0.0) -> Path:
    """Speakers with four samples of three frames each; labels follow the audio."""
    random, content = np.random.default_rng(len(splits) + splits["test"].start), {}
    for name, speakers in splits.items():
        groups = np.repeat([f"speaker{one}" for one in speakers], 4)
        audio = random.normal(size=(len(groups), 3, 4)).astype(np.float32)
        content |= {
            f"{name}/id": np.array([f"{group}-{row}" for row, group in enumerate(groups)]),
            f"{name}/group": groups,
            f"{name}/label": (audio.mean((1, 2)) + labels).clip(-3, 3).astype(np.float32),
            f"{name}/audio": audio + np.float32(shift),
            f"{name}/text": random.normal(size=(len(groups), 3, 4)).astype(np.float32),
        }
    np.savez(path, **content)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A dataset of forty speakers, and its champion."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = npz(tmp_path / "first.npz", {"train": range(20), "valid": range(20, 24), "test": range(24, 40)})
    folder = tmp_path / "data"
    import_dataset(first, folder, "npz", ImportOptions(name="calls", label_range=(-3.0, 3.0)))
    dataset, model = open_dataset(folder), tmp_path / "refit" / "model"
    fields = {"model": {"name": "late_fusion", "width": 8, "heads": 2, "depth": 1}, "epochs": 1, "batch_size": 40}
    job = whole_job(TrainSpec.model_validate(fields), dataset, statistics(dataset.train))
    found = fit(job, NoReporter(), NoSink())
    save_model(model, trained_model(job, found, found.kept.metrics))
    here = Home(tmp_path / "home")
    tracking = connect(here)
    run = start_run(tracking, experiment_id(tracking, here, "calls"), "one", tags={})
    registry.set_alias(
        tracking,
        "calls",
        "champion-mr00",
        registering.register(tracking, "calls", model, run_id=run, facts={}).version,
    )
    return tracking, folder, dataset.manifest.fingerprint


def grow(folder, **shifted):
    """Sixteen new speakers, of whom some land in train and some in test."""
    more = npz(folder.parent / "more.npz", {"test": range(100, 140)}, **shifted)
    append(more, folder, "npz", AppendOptions(shares=(1, 0, 1)))


def test_more_of_the_same_is_no_drift_and_says_what_was_looked_at(place):
    tracking, folder, since = place
    grow(folder)

    found = moved(tracking, "calls", folder, since, BOTH)

    assert found.reasons == ()
    assert found.said.startswith("inputs: p ")
    assert "champion's errors: p " in found.said


def test_inputs_that_moved_are_named(place):
    tracking, folder, since = place
    grow(folder, shift=1.5)

    (reason,) = moved(tracking, "calls", folder, since, TriggersSpec(new_data=False, input_drift=0.01)).reasons

    assert "audio[" in reason


def test_a_champion_that_errs_more_on_new_test_samples_is_a_reason_and_a_look_at_test(place):
    tracking, folder, since = place
    grow(folder, labels=2.0)
    before = open_dataset(folder).exposures()

    (reason,) = moved(tracking, "calls", folder, since, TriggersSpec(new_data=False, error_drift=0.01)).reasons

    assert reason.startswith("champion's errors: p ")
    assert open_dataset(folder).exposures() == before + 1
