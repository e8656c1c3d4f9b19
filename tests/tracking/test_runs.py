"""Runs in a real SQLite MLflow in a temporary folder: parents, children, inputs, and how few requests they take.

Faked: a client whose one-by-one calls fail, to prove that none is made, and events of a study that nobody ran.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from gapwise.data.store import Dataset, open_dataset
from gapwise.errors import CheckpointError, RegistryError
from gapwise.models.saved import load_model_folder, save_model
from gapwise.spec.home import Home
from gapwise.spec.search import SearchSpec
from gapwise.spec.train import ObjectiveSpec, TrainSpec
from gapwise.testing.runs import tiny_spec, trained_on
from gapwise.tracking.client import Tracking, TrackingDown, connect, experiment_id
from gapwise.tracking.runs import KEY_TAG, PARENT_TAG, Point, TrialRuns, curve_points
from gapwise.tracking.study_run import StudyName, StudyRun
from gapwise.tracking.train_run import TrainRun
from gapwise.training.checkpoint import trained_model
from gapwise.training.validation import diagnostic_curves
from gapwise.tuning.assignment import Assignment, failure, infeasible
from gapwise.tuning.events import Event
from gapwise.tuning.logbook import Logbook
from gapwise.tuning.result import FrontMember, Spread

SPACE = SearchSpec.model_validate({"question": "which?", "arms": {"prlf": None}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def tracking(place: Home) -> Tracking:
    return connect(place)


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return open_dataset(small)


@pytest.fixture
def study(tracking: Tracking, place: Home, dataset: Dataset, request: pytest.FixtureRequest) -> StudyRun:
    return StudyRun.begin(tracking, place, StudyName(request.node.name, None), SPACE, dataset, resume=False)


@pytest.fixture
def in_batches_only(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **keywords: Any) -> None:
        raise AssertionError("one request a value")

    for call in ("log_metric", "log_param", "set_tag"):
        monkeypatch.setattr(tracking.client, call, refuse)


def test_the_embedded_store_is_sqlite_in_the_home_folder(tracking: Tracking, place: Home, study: StudyRun) -> None:
    assert tracking.uri == f"sqlite:///{place.root}/mlflow.db"
    assert (place.root / "mlflow.db").is_file()
    assert tracking.client.get_run(study.run_id).info.artifact_uri.startswith((place.root / "mlartifacts").as_uri())


def test_a_team_server_is_used_where_the_environment_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.team:5000")
    assert Home(tmp_path).tracking_uri == "http://mlflow.team:5000"
    assert Home(tmp_path).artifacts is None


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://somewhere"])
def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="the tracking server does not answer") as refused:
        connect(Home(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_study_is_a_parent_run_with_its_question_and_its_data_as_input(
    tracking: Tracking, study: StudyRun, dataset: Dataset
) -> None:
    run = tracking.client.get_run(study.run_id)
    assert run.data.tags["mlflow.note.content"].startswith("**which?**\n\nNot finished")
    assert "@" in run.data.tags["mlflow.user"] and run.data.tags["mlflow.source.name"] == "gapwise"
    assert run.data.tags["gapwise.data_fingerprint"] == dataset.manifest.fingerprint
    assert run.data.params["arms"] == "prlf, late_fusion"
    (logged,) = run.inputs.dataset_inputs
    assert logged.dataset.name == dataset.manifest.name
    assert dataset.manifest.fingerprint in logged.dataset.profile
    assert dataset.manifest.fingerprint.startswith(logged.dataset.digest)


def test_a_study_s_own_curves_are_told_once_and_again_where_they_changed(tracking: Tracking, study: StudyRun) -> None:
    def history() -> list[tuple[int, float]]:
        found = tracking.client.get_metric_history(study.run_id, "mae/winners")
        return sorted((one.step, one.value) for one in found)

    for _ in range(2):
        study.log_curves("mae", {"winners": {"0.0": 0.5, "0.3": 0.75}})
        assert history() == [(0, 0.5), (30, 0.75)]
    study.log_curves("mae", {"winners": {"0.0": 0.5, "0.3": 0.7}})
    assert history() == [(0, 0.5), (30, 0.7), (30, 0.75)]
    study.note("n" * 9000)
    assert len(tracking.client.get_run(study.run_id).data.tags["mlflow.note.content"]) == 8000


def test_a_resumed_study_goes_on_in_its_run_and_a_new_one_of_the_same_name_does_not(
    tracking: Tracking, place: Home, dataset: Dataset
) -> None:
    def begin(*, resume: bool) -> StudyRun:
        return StudyRun.begin(tracking, place, StudyName("night", None), SPACE, dataset, resume=resume)

    first = begin(resume=False)
    first.end("KILLED")
    assert tracking.client.get_run(first.run_id).info.status == "KILLED"
    again = begin(resume=True)
    assert again.run_id == first.run_id
    assert tracking.client.get_run(first.run_id).info.status == "RUNNING"
    again.end("FINISHED")
    assert tracking.client.get_run(first.run_id).info.status == "FINISHED"
    assert begin(resume=False).run_id != first.run_id


def test_a_resumed_study_leaves_alone_what_another_home_runs_under_its_name(
    tracking: Tracking, place: Home, dataset: Dataset
) -> None:
    def begin(own: str, *, resume: bool) -> str:
        return StudyRun.begin(tracking, place, StudyName("night", own), SPACE, dataset, resume=resume).run_id

    ours, theirs = begin("a1", resume=False), begin("b2", resume=False)
    assert (begin("a1", resume=True), begin("b2", resume=True)) == (ours, theirs)


def test_a_study_cannot_begin_on_a_server_that_stopped_answering(
    tracking: Tracking, place: Home, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(*args: Any, **keywords: Any) -> None:
        raise MlflowException("timed out\nafter 30 s")

    monkeypatch.setattr(tracking.client, "create_run", hangs)
    with pytest.raises(RegistryError, match=r"the tracking server does not answer: timed out$"):
        StudyRun.begin(tracking, place, StudyName("night", None), SPACE, dataset, resume=False)


def test_a_trial_is_a_child_run_found_again_by_its_key(
    tracking: Tracking, place: Home, study: StudyRun, dataset: Dataset
) -> None:
    first = study.trials.run_of("prlf-3", began=5.0, params={"optimiser.lr": 0.1}, tags={"gapwise.arm": "prlf"})
    child = tracking.client.get_run(first)
    assert child.info.start_time == 5000
    assert child.data.tags[PARENT_TAG] == study.run_id
    assert child.data.tags[KEY_TAG] == "prlf-3"
    assert child.data.params == {"optimiser.lr": "0.1"}
    experiment = experiment_id(tracking, place, dataset.manifest.name)
    assert child_run(TrialRuns(tracking, experiment, study.run_id), "prlf-3") == first
    assert child_run(TrialRuns(tracking, experiment, "another"), "prlf-3") != first


def child_run(runs: TrialRuns, key: str) -> str:
    return runs.run_of(key, began=0.0, params={}, tags={})


def assignment(number: int) -> Assignment:
    return Assignment("search", "prlf", number, {"optimiser.lr": 0.1}, 0, number)


def reported(number: int, epoch: int) -> Event:
    body = {
        "epoch": epoch,
        "cost": 1.0 / epoch,
        "curve": {"0.0": 1.0, "0.5": 1.5},
        "losses": {"total": 2.0},
        "samples_per_second": 10.0,
    }
    return Event("reported", assignment(number), body, 10.0 + epoch)


def events_of(number: int) -> list[Event]:
    """Two epochs and a good end."""
    outcome = {
        "state": "complete",
        "cost": 0.5,
        "best_epoch": 2,
        "metrics": {"mae": {"0.0": 1.0, "0.5": 1.5}},
        "train_seconds": 1.0,
        "reason": "",
        "diagnostics": {"dominant_share/text": {"0.0": 0.25, "0.5": 0.75}},
    }
    started = Event("started", assignment(number), {}, 10.0)
    finished = Event("finished", assignment(number), outcome, 20.0)
    return [started, reported(number, 1), reported(number, 2), finished]


@pytest.mark.usefixtures("in_batches_only")
def test_a_poll_of_events_is_one_batch_of_values_a_trial(
    tracking: Tracking, study: StudyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    log_batch = tracking.client.log_batch

    def counted(run_id: str, **values: Any) -> None:
        batches.append(values)
        log_batch(run_id, **values)

    monkeypatch.setattr(tracking.client, "log_batch", counted)
    Logbook(study, "mae").see(events_of(1))
    assert len([values for values in batches if "metrics" in values]) == 1
    run_id = child_run(study.trials, "prlf-1")
    run = tracking.client.get_run(run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 10_000, 20_000)
    assert run.data.tags["gapwise.state"] == "complete"
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("Trial of the search, prlf number 1, seed") and "Objective 0.5000" in note
    assert run.data.metrics["valid/objective"] == 0.5
    curve = tracking.client.get_metric_history(run_id, "curve/mae")
    assert {point.step: point.value for point in curve} == {0: 1.0, 50: 1.5}
    shares = tracking.client.get_metric_history(run_id, "diagnostics/dominant_share/text")
    assert {point.step: point.value for point in shares} == {0: 0.25, 50: 0.75}


@pytest.mark.usefixtures("in_batches_only")
def test_a_failed_trial_says_why(tracking: Tracking, study: StudyRun) -> None:
    Logbook(study, "mae").see([Event("finished", assignment(2), failure("NaN: epoch 1")._asdict(), 0.0)])
    run = tracking.client.get_run(child_run(study.trials, "prlf-2"))
    assert run.info.status == "FAILED"
    assert run.data.tags["gapwise.reason"] == "NaN: epoch 1"
    assert run.data.tags["mlflow.note.content"].endswith(": failed. NaN: epoch 1")


@pytest.mark.usefixtures("in_batches_only")
def test_more_values_than_a_batch_takes_become_several_batches(tracking: Tracking, study: StudyRun) -> None:
    run_id = study.trials.run_of("prlf-0", began=0.0, params={f"p{n}": n for n in range(130)}, tags={})
    study.trials.log(run_id, [Point("many", float(step), step, 0.0) for step in range(1200)])
    assert len(tracking.client.get_run(run_id).data.params) == 130
    assert tracking.client.get_run(run_id).data.metrics["many"] == 1199.0


def test_a_store_that_is_down_is_said_to_be_so_that_events_are_given_again(
    tracking: Tracking, study: StudyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: Any, **keywords: Any) -> None:
        raise MlflowException("connection refused")

    run_id = child_run(study.trials, "prlf-0")
    monkeypatch.setattr(tracking.client, "log_batch", down)
    with pytest.raises(TrackingDown, match="connection refused"):
        study.trials.log(run_id, [Point("x", 1.0, 1, 0.0)])


def histories(tracking: Tracking, run_id: str) -> dict[str, list[tuple[int, float, int]]]:
    """{metric: [(step, value, time)]}"""
    return {
        metric: [(one.step, one.value, one.timestamp) for one in tracking.client.get_metric_history(run_id, metric)]
        for metric in tracking.client.get_run(run_id).data.metrics
    }


def test_events_that_are_given_again_change_nothing(
    tracking: Tracking, study: StudyRun, place: Home, dataset: Dataset
) -> None:
    """What a dead driver delivered and did not record is delivered again by another, from any event on."""
    events = events_of(4)
    Logbook(study, "mae").see(events)
    run_id = child_run(study.trials, "prlf-4")
    whole, once = tracking.client.get_run(run_id), histories(tracking, run_id)
    assert once["valid/objective"] == [(1, 1.0, 11_000), (2, 0.5, 12_000)]
    for start in range(len(events)):
        again = StudyRun.begin(tracking, place, StudyName("another driver", None), SPACE, dataset, resume=False)
        again.trials = TrialRuns(tracking, whole.info.experiment_id, study.run_id)
        Logbook(again, "mae").see(events[start:])
    assert histories(tracking, run_id) == once
    assert tracking.client.get_run(run_id).to_dictionary()["info"] == whole.to_dictionary()["info"]
    assert len(children(tracking, study)) == 1


def children(tracking: Tracking, study: StudyRun) -> list[str]:
    """Keys of the child runs."""
    experiment = tracking.client.get_run(study.run_id).info.experiment_id
    found = tracking.client.search_runs([experiment], filter_string=f"tags.`{PARENT_TAG}` = '{study.run_id}'")
    return sorted(run.data.tags[KEY_TAG] for run in found)


def test_a_creation_that_was_carried_out_without_an_answer_leaves_one_child_run(
    tracking: Tracking, study: StudyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three unanswered requests: two are carried out before the next attempt, one only after the run was created."""
    create_run, late = tracking.client.create_run, []

    def unanswered(*args: Any, **keywords: Any) -> None:
        create_run(*args, **keywords)
        create_run(*args, **keywords)
        late.append(lambda: create_run(*args, **keywords))
        raise MlflowException("timed out")

    logbook = Logbook(study, "mae")
    with monkeypatch.context() as hanging:
        hanging.setattr(tracking.client, "create_run", unanswered)
        with pytest.raises(TrackingDown, match="timed out"):
            logbook.see(events_of(5))
    logbook.see(events_of(5))
    late[0]()
    logbook.end("FINISHED")
    assert children(tracking, study) == ["prlf-5"]
    run = tracking.client.get_run(child_run(study.trials, "prlf-5"))
    assert run.data.params["optimiser.lr"] == "0.1"
    assert run.data.metrics["valid/objective"] == 0.5
    assert tracking.client.get_run(study.run_id).info.status == "FINISHED"


def test_a_creation_that_mlflow_itself_repeated_leaves_one_child_run(
    tracking: Tracking, study: StudyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client sends a request again that was not answered: we hear of the second run, and of no error."""
    create_run = tracking.client.create_run

    def repeated(*args: Any, **keywords: Any) -> Any:
        create_run(*args, **keywords)
        return create_run(*args, **keywords)

    logbook = Logbook(study, "mae")
    monkeypatch.setattr(tracking.client, "create_run", repeated)
    logbook.see(events_of(5))
    logbook.end("FINISHED")
    assert children(tracking, study) == ["prlf-5"]
    assert tracking.client.get_run(child_run(study.trials, "prlf-5")).data.metrics["valid/objective"] == 0.5


def test_parameters_that_were_written_without_an_answer_leave_one_child_run(
    tracking: Tracking, study: StudyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies between its answer to the creation and its answer to the parameters, which it has written."""
    log_batch = tracking.client.log_batch

    def unanswered(*args: Any, **keywords: Any) -> None:
        log_batch(*args, **keywords)
        raise MlflowException("timed out")

    logbook = Logbook(study, "mae")
    with monkeypatch.context() as dying:
        dying.setattr(tracking.client, "log_batch", unanswered)
        with pytest.raises(TrackingDown, match="timed out"):
            logbook.see(events_of(5))
    logbook.see(events_of(5))
    logbook.end("FINISHED")
    assert children(tracking, study) == ["prlf-5"]


def test_a_trial_whose_run_a_person_deleted_does_not_hold_up_the_others(
    tracking: Tracking, study: StudyRun, caplog: pytest.LogCaptureFixture
) -> None:
    logbook = Logbook(study, "mae")
    logbook.see(events_of(6)[:2])
    tracking.client.delete_run(child_run(study.trials, "prlf-6"))
    logbook.see(events_of(6)[2:3])
    logbook.see(events_of(6)[3:])
    logbook.see(events_of(7))
    (line,) = caplog.messages
    assert line.startswith("the tracking server refused events of trial prlf-6:") and "\n" not in line
    assert tracking.client.get_run(child_run(study.trials, "prlf-7")).info.status == "FINISHED"


@pytest.mark.usefixtures("in_batches_only")
def test_a_training_run_records_spec_data_and_epochs_and_ends_truthfully(
    tracking: Tracking, place: Home, dataset: Dataset
) -> None:
    with TrainRun.begin(tracking, place, TrainSpec(objective=ObjectiveSpec(metric="mae")), dataset, resume=None) as run:
        run.log_epoch({"epoch": 1, "cost": 1.2, "metrics": {"mae": {"0.0": 1.2}}, "losses": {"total": 0.3}})
    found = tracking.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["optimiser.lr"] == "0.001"
    assert found.data.metrics == {"valid/objective": 1.2, "valid/mae/0.0": 1.2, "train/total": 0.3}
    assert [one.dataset.name for one in found.inputs.dataset_inputs] == [dataset.manifest.name]
    with pytest.raises(RuntimeError), TrainRun.begin(tracking, place, TrainSpec(), dataset, resume=run.run_id) as again:
        raise RuntimeError
    assert again.run_id == run.run_id
    assert tracking.client.get_run(run.run_id).info.status == "FAILED"


@pytest.mark.usefixtures("in_batches_only")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prlf", {"dominant_share/text", "rank_correlation/audio/score", "dominant_accuracy/chosen"}),
        ("promise", {"distance/cosine", "distance/relative_l2"}),
        ("late_fusion", set()),
    ],
)
def test_a_kept_model_s_diagnostics_are_logged_by_missing_rate_in_percent(
    tracking: Tracking, place: Home, dataset: Dataset, tmp_path: Path, name: str, expected: set[str]
) -> None:
    spec = tiny_spec(name, epochs=1, batch_size=200, protocol={"rates": [0.0, 0.5]})
    job, trained = trained_on(dataset, spec)
    kept = trained_model(job, trained, trained.kept.metrics)
    save_model(tmp_path / "model", kept._replace(diagnostics=diagnostic_curves(job, trained)))
    model = load_model_folder(tmp_path / "model")

    with TrainRun.begin(tracking, place, job.spec, dataset, resume=None) as run:
        run.log_model(model, tmp_path / "model")

    found = tracking.client.get_run(run.run_id).data.metrics
    logged = {metric.removeprefix("diagnostics/") for metric in found if metric.startswith("diagnostics/")}
    assert logged == set(model.diagnostics)
    assert logged >= expected and bool(logged) == bool(expected)
    for metric in ["curve/mae", *(f"diagnostics/{one}" for one in logged)]:
        assert [point.step for point in tracking.client.get_metric_history(run.run_id, metric)] == [0, 50]


def test_subsets_of_modalities_have_no_percentage_so_they_count_up() -> None:
    assert curve_points("curve", {"mae": {"audio": 1.0, "audio+text": 0.5}}, time=2.0) == [
        Point("curve/mae", 1.0, 0, 2.0),
        Point("curve/mae", 0.5, 1, 2.0),
    ]


def test_the_winners_diagnostics_are_a_file_of_the_study_where_any_model_has_some(
    tracking: Tracking, study: StudyRun
) -> None:
    def files() -> list[str]:
        return [one.path for one in tracking.client.list_artifacts(study.run_id)]

    study.log_diagnostics({"late_fusion-0": {}})
    assert files() == []
    study.log_diagnostics({"late_fusion-0": {}, "prlf-1": {"dominant_none": {"0.5": 0.0}}})
    assert files() == ["diagnostics.json"]


def test_a_run_that_does_not_exist_cannot_be_resumed(tracking: Tracking, place: Home, dataset: Dataset) -> None:
    with pytest.raises(CheckpointError, match=f"no run '{'0' * 32}' to resume"):
        TrainRun.begin(tracking, place, TrainSpec(), dataset, resume="0" * 32)


@pytest.mark.slow
def test_two_processes_may_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from gapwise.spec.home import Home;"
    code += "from gapwise.tracking.client import connect; connect(Home(Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=300)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said


def test_a_study_of_several_objectives_leaves_its_fronts_and_what_it_was_asked(
    tracking: Tracking, place: Home, dataset: Dataset, tmp_path: Path
) -> None:
    several = {"clean": {"metric": "mae"}, "rank": {"metric": "corr"}}
    fields = SPACE.model_dump(exclude={"train": {"model"}}) | {"objectives": several, "pruner": {"name": "none"}}
    space = SearchSpec.model_validate(fields | {"constraints": {"parameters": {"max": 7}}})
    run = StudyRun.begin(tracking, place, StudyName("several", None), space, dataset, resume=False)
    spread = {"clean": Spread(mean=1.0, sd=0.1), "rank": Spread(mean=0.5, sd=0.0)}
    member = FrontMember(trial="prlf-3", arm="prlf", values={"optimiser.lr": 0.1}, seeds=2, objectives=spread)
    run.log_front({"front": [member, member.model_copy(update={"trial": "prlf-9"})], "baseline_front": []})
    known = tracking.client.get_run(run.run_id)
    assert json.loads(known.data.params["objectives"])["rank"]["metric"] == "corr"
    assert json.loads(known.data.params["constraints"])["parameters"] == {"max": 7}
    assert "warm_start" not in known.data.params
    assert known.data.tags["gapwise.front"] == "prlf-3, prlf-9"
    file = tracking.client.download_artifacts(run.run_id, "pareto_front.json", str(tmp_path))
    assert json.loads(Path(file).read_text())["front"][0]["objectives"]["rank"] == {"mean": 0.5, "sd": 0.0}


def test_a_trial_tells_its_objectives_by_epoch_and_its_constraints_at_the_end(
    tracking: Tracking, study: StudyRun
) -> None:
    one = Assignment("search", "prlf", 0, {}, 0, 0)
    epoch = {
        "curve": {},
        "losses": {},
        "samples_per_second": 1.0,
        "epoch": 1,
        "cost": 2.0,
        "objectives": {"rank": -0.5},
    }
    ending = infeasible({"parameters": 12.0}, "12 parameters (at most 7)")._asdict()
    logbook = Logbook(study, "mae")
    logbook.see([Event("reported", one, epoch, 1.0), Event("finished", one, ending, 2.0)])
    logbook.end("FINISHED")
    (run,) = tracking.client.search_runs(
        [tracking.client.get_run(study.run_id).info.experiment_id], f"tags.`{PARENT_TAG}` = '{study.run_id}'"
    )
    assert run.data.metrics["valid/objectives/rank"] == -0.5
    assert run.data.metrics["constraints/parameters"] == 12.0
    assert (run.info.status, run.data.tags["gapwise.state"]) == ("FINISHED", "infeasible")
    assert run.data.tags["gapwise.reason"] == "12 parameters (at most 7)"


def test_another_study_that_was_quicker_to_write_the_dataset_down_is_no_failure(
    tracking: Tracking, place: Home, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, answers = type(tracking.client).log_inputs, ['(psycopg.errors.UniqueViolation) duplicate key "dataset_pk"']

    def log_inputs(*asked: Any) -> None:
        if answers:
            raise MlflowException(answers.pop())
        really(*asked)

    monkeypatch.setattr(type(tracking.client), "log_inputs", log_inputs)

    study = StudyRun.begin(tracking, place, StudyName("at-once", None), SPACE, dataset, resume=False)

    (data,) = tracking.client.get_run(study.run_id).inputs.dataset_inputs
    assert data.dataset.digest == dataset.manifest.fingerprint[: len(data.dataset.digest)]

    answers.append("no such run")
    with pytest.raises(RegistryError, match="no such run"):
        StudyRun.begin(tracking, place, StudyName("refused", None), SPACE, dataset, resume=False)
