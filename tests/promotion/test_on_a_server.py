"""Decisions through a real `mlflow server`, which refuses some things that a database takes.

Faked: nothing but the size and the gate, in whose place a deed is recorded. One model, trained for one epoch, is every
version.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gapwise.data.store import open_dataset, statistics
from gapwise.models.saved import save_model
from gapwise.promotion.announce import done
from gapwise.promotion.chain import Move
from gapwise.promotion.copy import Place, copy
from gapwise.promotion.history import history
from gapwise.promotion.rollback import approve, roll_back
from gapwise.promotion.standing import Deed, settled
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.testing.mlflow_server import Server
from gapwise.tracking import registering
from gapwise.tracking.client import connect, experiment_id
from gapwise.tracking.router import Router
from gapwise.tracking.runs import start_run
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    made.wait_until_it_answers()
    yield made
    made.stop()


def test_a_name_is_promoted_rolled_back_approved_and_copied_through_a_server(
    server: Server, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, folder = open_dataset(small), tmp_path / "refit" / "model"
    fields = {"model": {"name": "late_fusion", "width": 8, "heads": 2, "depth": 1}, "epochs": 1, "batch_size": 400}
    job = whole_job(TrainSpec.model_validate(fields), dataset, statistics(dataset.train))
    found = fit(job, NoReporter(), NoSink())
    save_model(folder, trained_model(job, found, found.kept.metrics))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    here = Home(tmp_path / "home")
    there = connect(here)
    run = start_run(there, experiment_id(there, here, "small"), "one", tags={})
    ground = {"dataset": "synthetic-small", "task": "regression", "ground": {"name": "frames"}}
    for number in (1, 2):
        registering.register(there, "small", folder, run_id=run, facts={**ground, "number": number})

    def names(version: str) -> dict[str, str | None]:
        return {"champion-mr30": version}

    first = Deed("promote", [Move(rate="0.3", before=None, after="1")], names("1"), {})
    done(there, here, settled(there, "small"), first)
    second = Deed("promote", [Move(rate="0.3", before="1", after="2")], {**names("2"), "previous-mr30": "1"}, {})
    done(there, here, settled(there, "small"), second)
    roll_back(there, here, "small", "0.3", None, "it stammers")
    asked = {"asked": {"0.3": "2"}, "champions": {"0.3": "1"}, "baseline": "1"}
    done(there, here, settled(there, "small"), Deed("ask", [], {"challenger-mr30": "2"}, asked))
    approve(there, here, "small", "ada")
    told = history(there, "small")
    assert told["verified"], told["problems"]
    decisions = [(one["decision"], one["from"], one["to"]) for one in told["entries"]]
    assert decisions == [
        ("promote", None, "1"),
        ("promote", "1", "2"),
        ("rollback", "2", "1"),
        ("approve", "1", "2"),
    ]
    batch = dataset.valid.batch(np.arange(5))
    through = Router(there, "small").answer(batch)
    assert set(through.versions) == {"2"}

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    home = Home(tmp_path / "production")
    production = connect(home)
    copy(Place(connect(home, server.uri), "small"), Place(production, "small"), home, None)
    assert history(production, "small")["verified"]
    assert Router(production, "small").answer(batch).predictions.tolist() == through.predictions.tolist()
