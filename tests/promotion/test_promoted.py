"""What can be done with a promoted name: predict with it, copy it to another registry, train a version again.

Faked: nothing but the size and the gate, in whose place a deed is recorded. Two models, trained for one epoch, serve
two rates in a SQLite MLflow; commands run as a person's would, in this process.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gapwise.cli.main import main
from gapwise.data.rows import to_rows
from gapwise.data.store import Dataset, open_dataset, statistics
from gapwise.errors import DataError, GateError, RegistryError
from gapwise.models.saved import save_model
from gapwise.promotion.announce import done
from gapwise.promotion.chain import Move
from gapwise.promotion.copy import Place, copy
from gapwise.promotion.history import history
from gapwise.promotion.reproduce import refuse_other_data, reproduce, through_ray
from gapwise.promotion.standing import Deed, record, settled, standing
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.tracking import registering, registry
from gapwise.tracking.client import Tracking, connect, experiment_id
from gapwise.tracking.locate import locate
from gapwise.tracking.router import Router
from gapwise.tracking.runs import start_run
from gapwise.training.checkpoint import NoSink, trained_model
from gapwise.training.decision import NoReporter
from gapwise.training.job import whole_job
from gapwise.training.loop import fit

NAME = "small"
GROUND = {"dataset": "synthetic-small", "task": "regression", "ground": {"name": "frames"}}
Command = Callable[..., tuple[int, Any, str]]


class Promoted(NamedTuple):
    home: Home
    tracking: Tracking
    dataset: Dataset


@pytest.fixture(scope="module")
def promoted(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    """Version 1 serves 0.0, version 2 serves 0.6."""
    dataset, home = open_dataset(small), Home(tmp_path_factory.mktemp("home"))
    tracking = connect(home)
    run = start_run(tracking, experiment_id(tracking, home, "small"), "one", tags={})
    names: dict[str, str | None] = {}
    for seed, rate in ((1, "0.0"), (2, "0.6")):
        fields = {"model": {"name": "late_fusion", "width": 8, "heads": 2, "depth": 1}, "epochs": 1, "batch_size": 400}
        job = whole_job(TrainSpec.model_validate(fields | {"seed": seed}), dataset, statistics(dataset.train))
        found = fit(job, NoReporter(), NoSink())
        folder = tmp_path_factory.mktemp("refit") / f"{seed}" / "model"
        save_model(folder, trained_model(job, found, found.kept.metrics))
        facts = {**GROUND, "metric": "mae", "trial": f"late_fusion-{seed}", "study": "one"}
        made = registering.register(tracking, NAME, folder, run_id=run, facts=facts)
        names[f"champion-mr{round(100 * float(rate)):02d}"] = made.version
    moves = [Move(rate="0.0", before=None, after="1"), Move(rate="0.6", before=None, after="2")]
    record(tracking, settled(tracking, NAME), Deed("promote", moves, names, {"gate": "g"}))
    return Promoted(home, tracking, dataset)


@pytest.fixture
def command(promoted: Promoted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code, the object on stdout where there is one, and stderr."""

    def run(*arguments: str, home: Home = promoted.home) -> tuple[int, Any, str]:
        monkeypatch.setenv("GAPWISE_HOME", str(home.root))
        monkeypatch.setattr("sys.argv", ["gapwise", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out) if out.strip() else None, err

    return run


def read(file: Path) -> pd.DataFrame:
    if file.suffix == ".jsonl":
        return pd.read_json(file, lines=True, dtype={"version": str, "id": str})
    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype={"version": str, "id": str})


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_split_is_answered_by_the_champions_of_its_rows_rates(
    promoted: Promoted, command: Command, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"answers.{ending}"
    code, body, _ = command("predict", NAME, "--data", str(promoted.dataset.folder), "--out", str(out))
    valid, found = promoted.dataset.valid, read(out)
    assert (code, body["rows"], body["versions"]) == (0, len(valid), {"1": len(valid)})
    assert found["id"].tolist() == valid.ids
    expected = Router(promoted.tracking, NAME).model("1").answer(valid.batch(np.arange(len(valid))))
    assert found["prediction"].to_numpy() == pytest.approx(expected, abs=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_rate_that_is_told_chooses_the_champion_and_a_row_s_own_goes_before(
    promoted: Promoted, command: Command, tmp_path: Path
) -> None:
    columns: dict[str, Any] = {
        name: [None if cell is None else cell.tolist() for cell in column]
        for name, column in to_rows(promoted.dataset.valid.batch(np.arange(3))).items()
    }
    pq.write_table(pa.table({**columns, "missing_rate": [0.1, None, None]}), tmp_path / "rows.parquet")
    out = tmp_path / "answers.parquet"
    where = ("--data", str(tmp_path / "rows.parquet"), "--out", str(out))
    assert command("predict", NAME, *where, "--rate", "0.9")[:2] == (
        0,
        {
            "name": NAME,
            "out": str(out),
            "rows": 3,
            "versions": {"1": 1, "2": 2},
            "missing_rate": pytest.approx(1.9 / 3),
        },
    )
    assert read(out)["version"].tolist() == ["1", "2", "2"]
    command("predict", NAME, *where)
    assert read(out)["version"].tolist() == ["1", "1", "1"]


def test_reading_the_test_split_for_predictions_is_counted(
    promoted: Promoted, command: Command, tmp_path: Path
) -> None:
    before = promoted.dataset.exposures()
    where = ("--data", str(promoted.dataset.folder), "--out", str(tmp_path / "answers.csv"))
    command("predict", NAME, *where)
    assert promoted.dataset.exposures() == before
    assert command("predict", NAME, *where, "--split", "test")[0] == 0
    assert promoted.dataset.exposures() == before + 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "nobody"}, "no registered model 'nobody' (allowed: small)"),
        ({"--out": "answers.txt"}, "a file that ends in .txt (allowed: .parquet, .csv, .jsonl)"),
        ({"--out": "nowhere/answers.csv"}, "no such folder"),
        ({"--rate": "often"}, "--rate: not a missing rate: 'often' (allowed: auto, or a number from 0 to 1)"),
        ({"--rate": "nan"}, "not a missing rate: 'nan'"),
        ({"--data": "rows.csv"}, "rows.csv: cannot be read as Parquet"),
        ({"rows": {"smell": [[1.0]]}}, "unknown column 'smell'"),
        ({"rows": {"text": [[[1.0]]]}}, "from row 0: row 0, text: 1 features a frame (allowed: 16)"),
        ({"rows": {"text": ["hello"]}}, "from row 0: row 0, text: not a list of frames of numbers"),
        ({"rows": {"text": [[[float("inf")] * 16]]}}, "a number is not finite"),
        ({"rows": {"id": ["a"]}}, "no modality among the columns"),
    ],
)
def test_what_cannot_be_answered_is_one_line_and_leaves_no_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text\n1\n")
    rows = changes.pop("rows", {"text": [None]})
    pq.write_table(pa.table(rows), "rows.parquet")
    name = changes.pop("name", NAME)
    options = {"--data": "rows.parquet", "--out": "answers.csv", **changes}
    code, _, err = command("predict", name, *(word for pair in options.items() for word in pair))
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.parquet"]


@pytest.fixture
def production(tmp_path: Path) -> tuple[Home, Tracking]:
    home = Home(tmp_path / "production")
    return home, connect(home)


def test_champions_are_copied_with_one_entry_that_cites_the_source_and_answer_alike(
    promoted: Promoted, production: tuple[Home, Tracking]
) -> None:
    home, there = production
    source = Place(promoted.tracking, NAME)
    entry = copy(source, Place(there, "live"), home, None)
    now = standing(there, "live")
    assert (now.champions, len(now.ledger.entries), now.ledger.problems) == ({"0.0": "1", "0.6": "2"}, 1, [])
    cited = entry.facts["source"]
    assert isinstance(cited, dict) and cited["head"] == standing(promoted.tracking, NAME).ledger.head._asdict()
    batch = promoted.dataset.valid.batch(np.arange(10))
    answers = [Router(*one).answer(batch).predictions for one in ((promoted.tracking, NAME), (there, "live"))]
    assert answers[0].tolist() == answers[1].tolist()
    assert registry.aliases(there, "live-router") == {"champion": "1"}
    assert registry.version_of(there, "live", "2").facts["copied_from"]["version"] == "2"
    assert history(there, "live")["verified"]
    with pytest.raises(RegistryError, match="has these champions already"):
        copy(source, Place(there, "live"), home, "0.6")
    assert standing(promoted.tracking, NAME).ledger.last_number == 1, "the source is only read"


def test_one_rate_alone_can_be_copied_and_what_is_not_there_is_named(
    promoted: Promoted, production: tuple[Home, Tracking]
) -> None:
    home, there = production
    copy(Place(promoted.tracking, NAME), Place(there, NAME), home, "0.6")
    assert standing(there, NAME).champions == {"0.6": "1"}
    with pytest.raises(RegistryError, match=r"no champion of rate 0\.3 \(allowed: 0\.0, 0\.6\)"):
        copy(Place(promoted.tracking, NAME), Place(there, NAME), home, "0.3")
    with pytest.raises(RegistryError, match=r"no registered model 'nobody' \(allowed: small\)"):
        copy(Place(promoted.tracking, "nobody"), Place(there, NAME), home, None)


def test_a_source_whose_ledger_does_not_hold_is_not_copied(
    promoted: Promoted, production: tuple[Home, Tracking]
) -> None:
    home, there = production
    client = promoted.tracking.client
    (kept,) = client.search_model_versions(f"name = '{NAME}-ledger'")
    text = kept.tags["gapwise.ledger.entry"]
    try:
        client.set_model_version_tag(f"{NAME}-ledger", kept.version, "gapwise.ledger.entry", text.replace("0.6", "0.7"))
        with pytest.raises(GateError, match="the ledger does not hold: entry 1 was changed"):
            copy(Place(promoted.tracking, NAME), Place(there, NAME), home, None)
    finally:
        client.set_model_version_tag(f"{NAME}-ledger", kept.version, "gapwise.ledger.entry", text)
    assert registry.aliases_if_any(there, NAME) is None


def test_a_name_on_other_ground_takes_no_copies(promoted: Promoted, production: tuple[Home, Tracking]) -> None:
    home, there = production
    copy(Place(promoted.tracking, NAME), Place(there, NAME), home, "0.6")
    registry.note(there, NAME, "1", "dataset", "another")
    with pytest.raises(RegistryError, match="has champions of another dataset than version 1 of 'small'"):
        copy(Place(promoted.tracking, NAME), Place(there, NAME), home, "0.0")


def test_the_commands_of_a_person_who_takes_back_agrees_and_checks(
    promoted: Promoted, command: Command, production: tuple[Home, Tracking]
) -> None:
    home, there = production
    uri = promoted.tracking.uri

    def registry_command(*words: str) -> tuple[int, Any, str]:
        return command("registry", *words, home=home)

    code, copied, _ = registry_command("copy", NAME, "--source", uri, "--as", "live")
    assert (code, copied["decision"], len(copied["moves"])) == (0, "copy", 2)
    code, back, _ = registry_command("rollback", "live", "--rate", "0.6", "--to", "1", "--reason", "slow")
    assert (code, back["moves"]) == (0, [{"rate": "0.6", "from": "2", "to": "1"}])
    asked = {"asked": {"0.6": "2"}, "champions": {"0.0": "1", "0.6": "1"}, "baseline": "1"}
    done(there, home, settled(there, "live"), Deed("ask", [], {"challenger-mr60": "2"}, asked))
    code, agreed, _ = registry_command("approve", "live", "--as", "ada")
    assert (code, agreed["moves"]) == (0, [{"rate": "0.6", "from": "1", "to": "2"}])
    code, told, _ = registry_command("history", "live", "--verify", "--expect", copied["digest"])
    assert (code, told["verified"], [one["decision"] for one in told["entries"]]) == (
        0,
        True,
        ["copy", "copy", "rollback", "approve"],
    )
    assert registry_command("history", "live", "--expect", "0" * 63 + "1")[0] == 1
    there.client.delete_model_version("live-ledger", "4")
    code, told, _ = registry_command("history", "live", "--verify")
    assert code == 1 and any("entry 4 is missing" in problem for problem in told["problems"])
    code, _, err = registry_command("rollback", "live", "--rate", "all")
    assert code == 2 and "the ledger does not hold: entry 4 is missing" in err
    assert registry_command("show", "live")[1]["champions"]["0.6"]["version"] == "2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rollback", NAME, "--rate", "0.3"), "no champion of rate 0.3 (allowed: 0.0, 0.6)"),
        (("rollback", NAME, "--rate", "often"), "not a missing rate: 'often' (allowed: all, or a number from 0 to 1)"),
        (("rollback", NAME, "--rate", "0.0", "--to", "9"), "no version 9 (allowed: 2, 1)"),
        (("rollback", NAME, "--rate", "all"), "there is nothing to go back to"),
        (("approve", NAME), "no promotion waits for approval"),
        (("history", "nobody"), "no registered model 'nobody' (allowed: small)"),
        (
            ("copy", NAME, "--source", "sqlite:////none.db", "--as", "small-ledger"),
            "the name of a ledger, a router or a schedule",
        ),
    ],
)
def test_what_cannot_be_done_with_a_name_is_one_line(
    promoted: Promoted, command: Command, words: tuple[str, ...], said: str
) -> None:
    before = promoted.tracking.client.get_registered_model(NAME).aliases
    code, _, err = command("registry", *words)
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert promoted.tracking.client.get_registered_model(NAME).aliases == before


def test_a_registry_that_is_not_there_is_not_made(command: Command, tmp_path: Path) -> None:
    code, _, err = command("registry", "copy", NAME, "--source", f"sqlite:///{tmp_path}/none.db")
    assert code == 2 and "no such tracking store" in err
    assert not (tmp_path / "none.db").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_version_trained_again_is_the_same_to_the_last_bit(promoted: Promoted) -> None:
    model = locate(promoted.tracking, f"models:/{NAME}/2")
    refuse_other_data(model, promoted.dataset)
    found = reproduce(model, promoted.dataset, train=through_ray)
    assert (found["identical"], found["largest_weight_difference"], found["seed"]) == (True, 0.0, 2)
    assert all(one["registered"] == one["again"] for curve in found["valid"].values() for one in curve.values())
    assert reproduce(model, promoted.dataset) == found, "in this process as well"
    other = model._replace(spec=model.spec.model_copy(update={"seed": 3}))
    assert not reproduce(other, promoted.dataset)["identical"]


def test_a_version_is_trained_again_on_its_own_data_only(promoted: Promoted) -> None:
    model = locate(promoted.tracking, f"models:/{NAME}/1")
    other = model._replace(fingerprints={**model.fingerprints, "train": "0" * 64})
    with pytest.raises(
        DataError, match=r"the content of train is not what the model was trained on .*train 000000000000"
    ):
        refuse_other_data(other, promoted.dataset)
