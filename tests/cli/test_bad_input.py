"""Bad input through the command line: one line on stderr, exit code 2, nothing on stdout, nothing half-written.

Faked: the files, each broken in one way; nothing is mocked below `main`. Ray is never reached, and a test would hang or
fail if it were: what can be refused is refused before. The embedded tracking store (`.gapwise/mlflow.db`) may come into
being, because a registry has to be asked; studies and runs may not.
"""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gapwise.testing.texts import spoken

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "search_spaces" / "smoke.yaml"
TRAIN = ROOT / "search_spaces" / "train_prlf.yaml"
STORE = {".gapwise", ".gapwise/mlflow.db", ".gapwise/mlflow.lock", ".gapwise/mlartifacts"}

Call = Callable[..., Any]
Refuse = Callable[..., str]


def listing(folder: Path) -> set[str]:
    return {str(entry.relative_to(folder)) for entry in folder.rglob("*")} - STORE


@pytest.fixture
def refuse(call: Call) -> Refuse:
    """Runs a command that must be refused and returns its one line."""

    def run(*words: object) -> str:
        before = listing(Path.cwd())
        answer = call(*words)
        assert answer.code == 2, answer
        assert answer.out == ""
        assert answer.err.count("\n") == 1, answer.err
        assert answer.err.startswith("error: ")
        assert "Traceback" not in answer.err
        assert listing(Path.cwd()) == before
        return str(answer.err)

    return run


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def tree() -> dict[str, dict[str, Any]]:
    random = np.random.default_rng(0)
    return {
        split: {
            "id": [f"{split}v_{row}" for row in range(4)],
            "text": random.standard_normal((4, 3, 5)).astype(np.float32),
            "audio": random.standard_normal((4, 6, 2)).astype(np.float32),
            "audio_lengths": [6, 5, 4, 3],
            "regression_labels": random.uniform(-3, 3, 4).astype(np.float32),
        }
        for split in ("train", "valid", "test")
    }


def pickled(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value, 4))
    return path


def import_words(file: Path, file_format: str = "mmsa") -> tuple[object, ...]:
    return "data", "import", file, "--format", file_format, "--out", "out", "--name", "toy"


def test_the_same_file_unbroken_is_imported(call: Call, tmp_path: Path) -> None:
    assert call(*import_words(pickled(tmp_path / "good.pkl", tree()))).code == 0


def test_a_pickle_that_calls_a_function_is_refused_and_never_executed(refuse: Refuse, tmp_path: Path) -> None:
    line = refuse(*import_words(pickled(tmp_path / "bad.pkl", tree() | {"more": Malicious()})))
    assert "bad.pkl" in line
    assert "Path.touch" in line or "pathlib" in line or "getattr" in line


def test_a_truncated_pickle_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    file = pickled(tmp_path / "bad.pkl", tree())
    file.write_bytes(file.read_bytes()[:-200])
    assert "bad.pkl" in refuse(*import_words(file))


def test_a_header_that_declares_a_terabyte_is_refused_without_asking_for_it(refuse: Refuse, tmp_path: Path) -> None:
    file = tmp_path / "bad.pkl"
    file.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"short")
    assert "bad.pkl" in refuse(*import_words(file))


def test_an_array_header_that_declares_a_terabyte_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    file = tmp_path / "bad.npz"
    header = tmp_path / "labels.npy"
    with header.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, {"descr": "<f8", "fortran_order": False, "shape": (1 << 37,)})
    shutil.make_archive(str(file), "zip", tmp_path, "labels.npy")
    Path(f"{file}.zip").rename(file)
    assert "bad.npz" in refuse(*import_words(file, "npz"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("regression_labels", np.array([0, np.nan, 1, 2], np.float32), "train/regression_labels"),
        ("regression_labels", np.zeros(3, np.float32), "train"),
        ("regression_labels", None, "labels for regression are missing"),
        ("audio_lengths", [6, 5, 4], "train/audio"),
        ("audio_lengths", [6, 5, 4, 7], "train/audio"),
        ("audio_lengths", [6, 5, 4, -1], "train/audio"),
        ("audio", np.zeros((3, 6, 2), np.float32), "train/audio"),
        ("id", ["a", "b", "c", "a"], "a"),
    ],
    ids=[
        "NaN label",
        "too few labels",
        "no labels",
        "too few lengths",
        "length beyond the array",
        "negative length",
        "too few rows",
        "the same id twice",
    ],
)
def test_labels_and_lengths_that_disagree_with_the_arrays_are_refused_by_name(
    refuse: Refuse, tmp_path: Path, key: str, value: object, said: str
) -> None:
    broken = tree()
    if value is None:
        del broken["train"][key]
    else:
        broken["train"][key] = value
    assert said in refuse(*import_words(pickled(tmp_path / "bad.pkl", broken)))


def test_an_unknown_format_task_or_file_is_refused_naming_what_is_allowed(refuse: Refuse, tmp_path: Path) -> None:
    file = pickled(tmp_path / "good.pkl", tree())
    assert "allowed: mmsa, parquet, npz" in refuse(*import_words(file, "hdf5"))
    assert "allowed: regression, classification" in refuse(*import_words(file), "--task", "ranking")
    assert "no such file" in refuse(*import_words(tmp_path / "none.pkl"))


def test_an_unknown_preset_is_refused_naming_those_that_exist(refuse: Refuse) -> None:
    line = refuse("data", "synth", "out", "--preset", "smal")
    assert "'smal'" in line
    assert "small" in line.split("allowed")[1]


def test_a_folder_that_holds_something_is_not_overwritten(refuse: Refuse, small: Path) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    assert "out" in refuse("data", "synth", "out")


@pytest.fixture
def altered(small: Path, tmp_path: Path) -> Path:
    """A dataset in which one byte of a value changed after it was written."""
    folder = tmp_path / "altered"
    shutil.copytree(small, folder)
    part = max(folder.glob("valid*.arrow"), key=lambda file: file.stat().st_size)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check"),
        ("train", TRAIN, "--data"),
        ("tune", SPACE, "--data"),
        ("evaluate", "models:/nobody@champion-mr30", "--data"),
    ],
    ids=lambda words: words[0],
)
def test_data_that_no_longer_match_their_fingerprint_are_refused(
    refuse: Refuse, altered: Path, words: tuple[object, ...]
) -> None:
    assert "no longer matches" in refuse(*words, altered)


@pytest.mark.parametrize("words", [("data", "check"), ("train", TRAIN, "--data"), ("tune", SPACE, "--data")])
def test_a_folder_without_a_dataset_is_refused(refuse: Refuse, tmp_path: Path, words: tuple[object, ...]) -> None:
    assert "not a gapwise dataset" in refuse(*words, tmp_path / "nothing")


@pytest.mark.parametrize("words", [("train", TRAIN), ("tune", SPACE), ("evaluate", "0" * 32)])
def test_a_missing_dataset_option_is_refused_saying_how_to_name_one(refuse: Refuse, words: tuple[object, ...]) -> None:
    assert "--data DIR, or GAPWISE_DATA" in refuse(*words)


def append_words(file: Path, file_format: str = "mmsa") -> tuple[object, ...]:
    return "data", "append", file, "--to", "out", "--format", file_format


def fresh(**changes: Any) -> dict[str, dict[str, Any]]:
    """A part for `tree()`: its validation split under ids that are new."""
    return {"valid": tree()["valid"] | {"id": [f"new_{row}" for row in range(4)]} | changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"audio": np.zeros((4, 6, 3), np.float32)}, "audio float32[3]"),
        ({"vision": np.zeros((4, 6, 3), np.float32)}, "vision float32[3]"),
        ({"raw_text": ["a", "b", "c", "d"]}, "raw"),
        ({"regression_labels": np.full(4, 3.5, np.float32)}, "allowed: -3 to 3"),
        ({"id": ["new_0", "new_1", "new_2", "new_0"]}, "'new_0' occurs more than once"),
        ({"id": ["new_0", "new_1", "new_2", "testv_3"]}, "'testv_3' is in the dataset already"),
        ({"id": [f"testv_{row}" for row in range(4)]}, "all of its 4 samples"),
        ({"id": ["a", "b", "c", "d"]}, "each id is its own group"),
    ],
    ids=["dims", "modality", "raw text", "labels", "id twice", "known id", "all known", "no groups"],
)
def test_a_part_that_does_not_fit_its_dataset_is_refused_and_the_dataset_stays(
    call: Call, refuse: Refuse, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    call(*import_words(pickled(tmp_path / "base.pkl", tree())))
    call(*append_words(pickled(tmp_path / "first.pkl", fresh(id=["first_0", "first_1", "first_2", "first_3"]))))
    before = Path("out/dataset.json").read_bytes()
    line = refuse(*append_words(pickled(tmp_path / "part.pkl", fresh(**changes))))
    assert said in line and "part.pkl" in line
    assert Path("out/dataset.json").read_bytes() == before
    assert call(*append_words(pickled(tmp_path / "good.pkl", fresh()))).code == 0


def test_a_file_is_appended_once_by_a_known_format_to_a_dataset(call: Call, refuse: Refuse, tmp_path: Path) -> None:
    part = pickled(tmp_path / "part.pkl", fresh())
    assert "not a gapwise dataset" in refuse(*append_words(part))
    call(*import_words(pickled(tmp_path / "base.pkl", tree())))
    assert call(*append_words(part)).code == 0
    assert "was appended before (step 1)" in refuse(*append_words(part))
    assert "was imported from" in refuse(*append_words(tmp_path / "base.pkl"))
    assert "allowed: mmsa, parquet, npz" in refuse(*append_words(pickled(tmp_path / "x.h5", {}), "hdf5"))
    assert "no such file" in refuse(*append_words(tmp_path / "none.pkl"))
    assert "fixed by the first append" in refuse(*append_words(part), "--split", 9, 1, 0)
    assert "train, valid, test" in refuse("data", "append", part, "--to", "out", "--format", "mmsa", "--split", 0, 0, 0)
    assert "--split" in refuse(*append_words(part), "--split", "most", "few", "few")


Change = Callable[[dict[str, Any]], None]


def put(*path: str, value: Any) -> Change:
    def change(mapping: dict[str, Any]) -> None:
        for key in path[:-1]:
            mapping = mapping[key]
        mapping[path[-1]] = value

    return change


def shared_gpus_through_ray_train(mapping: dict[str, Any]) -> None:
    mapping |= {"trials_per_device": 2, "executor": "train"}


LR = "optimiser.lr"


@pytest.mark.parametrize("verb", ["tune", "plan"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("trails", value=3), ["unknown key 'trails'; did you mean 'trials'?", "allowed: arms, "]),
        (put("train", "epoch", value=3), ["train.epoch", "unknown key 'epoch'", "batch_size, checkpoint_every"]),
        (put("arms", "prlf", "parameter", value={}), ["arms.prlf.parameter", "allowed: parameters"]),
        (
            put("arms", "prlf", "parameters", LR, value={"role": "nuisance", "low": 0.1, "high": 0.01}),
            [f"arms.prlf.parameters.{LR}", "low must be below high, got low 0.1 and high 0.01"],
        ),
        (
            put("arms", "prlf", "parameters", "model.stepz", value={"role": "searched", "low": 1, "high": 2}),
            ["arms.prlf.parameters.model.stepz", "did you mean 'steps'", "allowed: "],
        ),
        (put("arms", "prlff", value=None), ["arms.prlff", "promise"]),
        (put("common", "model.widht", value=32), ["common.model.widht", "did you mean 'width'"]),
        (put("train", "protocol", "rates", value=[0.0, 1.3]), ["train.protocol.rates", "1.3"]),
        (put("train", "protocol", "rates", value=[0.5, 0.3]), ["train.protocol.rates", "ascending"]),
        (put("trials", value=0), ["trials", "got 0"]),
        (put("workers_per_trial", value=2), ["workers_per_trial above 1 needs executor: train"]),
        (shared_gpus_through_ray_train, ["trials_per_device above 1 needs executor: warm"]),
        (put("train", "micro_batch", value=0), ["train.micro_batch", "got 0"]),
        (
            put("train", "objective", value={"metric": "loss"}),
            ["train.objective.metric", "auto, mae, corr", "unknown 'loss'"],
        ),
        (
            put("objectives", value={"a": {}, "b": {"reduce": "worst"}}),
            ["with several objectives pruning needs pruner.on"],
        ),
        (
            put("objectives", value={"a": {"metric": "mea"}, "b": {}}),
            ["objectives.a.metric", "auto, mae, corr", "unknown 'mea'"],
        ),
        (put("constraints", value={"parameter": {"max": 5}}), ["unknown key 'parameter'; did you mean 'parameters'?"]),
        (put("constraints", value={"latency_ms": {"max": -1}}), ["constraints.latency_ms.max", "got -1"]),
        (
            put("warm_start", value={"studies": ["a"], "use": "all"}),
            ["warm_start.use", "unknown 'all'", "best, history"],
        ),
    ],
    ids=[
        "unknown key",
        "unknown key below",
        "unknown key of an arm",
        "reversed bounds",
        "unknown parameter",
        "unknown model",
        "unknown common",
        "rate above 1",
        "descending rates",
        "no trials",
        "workers without train",
        "shared GPUs through Ray Train",
        "no sample at once",
        "a metric that no trial reports",
        "objectives and a pruner that does not know which",
        "unknown metric of an objective",
        "unknown constraint",
        "negative limit",
        "unknown use of earlier studies",
    ],
)
def test_a_wrong_search_space_is_refused_by_key_path(
    refuse: Refuse, tmp_path: Path, small: Path, verb: str, change: Change, said: list[str]
) -> None:
    mapping = yaml.safe_load(SPACE.read_text())
    change(mapping)
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(mapping, sort_keys=False))
    line = refuse(verb, file, "--data", small)
    for words in said:
        assert words in line
    if not said[0].startswith(("arms.prlf.parameters.model", "common.model")):
        assert str(file) in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("model", "name", value="prlff"), ["unknown name 'prlff'; did you mean 'prlf'?", "late_fusion, prlf"]),
        (put("model", "stepz", value=1), ["model.stepz", "did you mean 'steps'"]),
        (put("protocol", "rates", value=[-0.1]), ["protocol.rates", "-0.1"]),
        (put("objective", value={"reduce": "rate", "rate": 0.33}), ["must be one of protocol.rates"]),
        (put("model", "width", value=30), ["heads must divide width"]),
    ],
    ids=["unknown model", "unknown key", "negative rate", "rate off the grid", "heads"],
)
def test_a_wrong_training_spec_is_refused_by_key_path(
    refuse: Refuse, tmp_path: Path, small: Path, change: Change, said: list[str]
) -> None:
    mapping = yaml.safe_load(TRAIN.read_text())
    change(mapping)
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(mapping, sort_keys=False))
    line = refuse("train", file, "--data", small)
    for words in [str(file), *said]:
        assert words in line


def test_a_file_that_is_no_yaml_or_not_there_is_refused(refuse: Refuse, tmp_path: Path, small: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [1,\nb: 2")
    assert "not valid YAML" in refuse("tune", tmp_path / "bad.yaml", "--data", small)
    assert "No such file" in refuse("tune", tmp_path / "none.yaml", "--data", small)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs", "'epochs' is not an assignment (allowed: key.path=value)"),
        ("epochs=[", "is not valid YAML"),
        ("epoch=3", "did you mean 'epochs'"),
        ("epochs.more=3", "'epochs' in 'epochs.more' is a value"),
        ("protocol.rates=[0, 2]", "protocol.rates"),
    ],
)
def test_a_wrong_override_is_refused(refuse: Refuse, small: Path, setting: str, said: str) -> None:
    assert said in refuse("train", TRAIN, "--data", small, "--set", setting)


@pytest.mark.parametrize("duration", ["", "soon", "5x", "-3m", "0", "nan", "inf", "1e999h"])
def test_a_wrong_duration_is_refused(refuse: Refuse, small: Path, duration: str) -> None:
    line = refuse("tune", SPACE, "--data", small, f"--time-budget={duration}")
    assert "--time-budget" in line
    assert "allowed: 90s, 30m, 2h" in line


@pytest.mark.parametrize("name", ["../up", "/tmp/away", "a/b", "", "it's"])
def test_a_study_name_that_is_no_name_is_refused(refuse: Refuse, small: Path, name: str) -> None:
    assert "cannot be a name" in refuse("tune", SPACE, "--data", small, f"--study={name}")


def test_nothing_can_be_resumed_where_nothing_was_started(refuse: Refuse, small: Path) -> None:
    assert "nothing to resume" in refuse("tune", SPACE, "--data", small, "--study", "none", "--resume")


def test_a_study_whose_tracking_server_is_down_leaves_no_folder_behind(
    refuse: Refuse, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "does not answer" in refuse("tune", SPACE, "--data", small, "--study", "one")


RATES = ["1.1", "-0.1", "nan", "0:2:0.5", "0:0.9", "0:0.9:0", "0:inf:0.1", "0:1:1e-12", "0.3,0.1", "half", ""]


@pytest.mark.parametrize("rates", RATES)
def test_rates_that_are_no_rates_are_refused(refuse: Refuse, model: Path, small: Path, rates: str) -> None:
    assert "rates" in refuse("evaluate", model, "--data", small, f"--rates={rates}")


@pytest.fixture(scope="module")
def model(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that was never trained: every refusal comes before its weights matter."""
    from gapwise.data.store import open_dataset, statistics
    from gapwise.models.catalogue import build_model
    from gapwise.models.saved import ModelFolder, save_model
    from gapwise.spec.train import TrainSpec

    dataset = open_dataset(small)
    fields = {"name": "late_fusion", "width": 8, "heads": 2, "depth": 1, "summary_tokens": 1}
    spec = TrainSpec.model_validate({"model": fields})
    shape, moments = dataset.manifest.shape(), statistics(dataset.train)
    weights = dict(build_model(spec.model, shape, moments, 0).state_dict())
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(folder, ModelFolder(spec, shape, moments, dataset.fingerprints(), {}, {}, weights, {}))
    return folder


def test_a_split_that_does_not_exist_is_refused(refuse: Refuse, model: Path, small: Path) -> None:
    assert "allowed: train, valid, test" in refuse("evaluate", model, "--data", small, "--split", "dev")


@pytest.mark.parametrize("rates", [["--rates", "0:0.9:0.1"], ["--rates", "0.67"]])
def test_random_rate_above_its_limit_is_refused_naming_the_option(
    refuse: Refuse, model: Path, small: Path, rates: list[str]
) -> None:
    said = refuse("evaluate", model, "--data", small, "--protocol", "random_rate", *rates)
    assert "--rates" in said and "allowed: rates up to 2/3 = 0.66" in said


@pytest.mark.parametrize(
    ("protocol", "key", "conditions", "seeds"),
    [("random_rate", "rates", 7, 2), ("block", "rates", 10, 2), ("modalities", "subsets", 7, 1)],
)
def test_a_model_of_frames_is_evaluated_under_any_protocol(
    call: Call, model: Path, small: Path, protocol: str, key: str, conditions: int, seeds: int
) -> None:
    """Without --rates: random_rate counts cells and so has a grid of its own, block has the model's."""
    answer = call("evaluate", model, "--data", small, "--protocol", protocol, "--mask-seeds", 2, "--json")
    said = json.loads(answer.out)
    assert (len(said[key]), said["mask_seeds"]) == (conditions, seeds)
    assert said["optimum"]["mean"]["mae"]["mean"] > 0


def test_plan_and_train_refuse_what_the_dataset_cannot_have(refuse: Refuse, small: Path) -> None:
    rates = ["--set", "train.protocol.name=random_rate", "--set", "train.protocol.rates=[0.0, 0.9]"]
    assert "2/3 = 0.66" in refuse("plan", SPACE, "--data", small, *rates)
    assert "no metric 'accuracy'" in refuse("plan", SPACE, "--data", small, "--set", "train.objective.metric=accuracy")
    assert "no metric 'f1_macro'" in refuse("train", TRAIN, "--data", small, "--set", "objective.metric=f1_macro")


def test_an_objective_that_the_dataset_cannot_have_is_refused_by_its_name(refuse: Refuse, small: Path) -> None:
    settings = [
        "--set",
        "pruner.name=none",
        "--set",
        "objectives.a.metric=mae",
        "--set",
        "objectives.b.metric=accuracy",
    ]
    for verb in ("plan", "tune"):
        line = refuse(verb, SPACE, "--data", small, *settings)
        assert "objectives.b.metric" in line and "no metric 'accuracy'" in line


@pytest.mark.parametrize("verb", ["plan", "tune"])
def test_an_unknown_earlier_study_is_refused_by_name(refuse: Refuse, small: Path, verb: str) -> None:
    line = refuse(verb, SPACE, "--data", small, "--warm-start", "gone")
    assert "no study 'gone'" in line and "allowed: none exists yet" in line
    assert "cannot be a name" in refuse(verb, SPACE, "--data", small, "--warm-start", "../up")


def test_an_unknown_protocol_is_refused(refuse: Refuse, model: Path, small: Path) -> None:
    assert "modalities" in refuse("evaluate", model, "--data", small, "--protocol", "blocks")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("models:/nobody@champion-mr30", "models:/nobody@champion-mr30"),
        ("models:/nobody/7", "models:/nobody/7"),
        ("0" * 32, "no run"),
        ("nowhere", "allowed: a model folder, a run id"),
    ],
)
def test_a_model_that_does_not_exist_is_refused(refuse: Refuse, small: Path, what: str, said: str) -> None:
    assert said in refuse("evaluate", what, "--data", small)


def test_tampered_weights_are_refused(refuse: Refuse, model: Path, small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    assert "not the ones described" in refuse("evaluate", copy, "--data", small)


def test_a_run_that_does_not_exist_cannot_be_resumed(refuse: Refuse, small: Path) -> None:
    assert "there is no run to continue" in refuse("train", TRAIN, "--data", small, "--resume", "0" * 32)


def test_an_unknown_study_is_refused(refuse: Refuse) -> None:
    assert "no study 'none' (allowed: none exists yet)" in refuse("promote", "none", "--name", "small")


@pytest.mark.parametrize("name", ["nobody", "it's", "a/b"])
def test_an_unknown_registered_model_is_refused(refuse: Refuse, name: str) -> None:
    assert name in refuse("registry", "show", name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "No such command 'nope'"),
        (("tune",), "Missing argument"),
        (("tune", SPACE, "--trails", "3"), "--trails"),
        (("tune", SPACE, "--trials", "0"), "--trials"),
        (("tune", SPACE, "--trials", "many"), "--trials"),
        (("tune", SPACE, "--concurrency", "0"), "--concurrency"),
        (("train", TRAIN, "--workers", "0"), "--workers"),
        (("train", TRAIN, "--workers", "4:1"), "allowed: N, or MIN:MAX"),
        (("train", TRAIN, "--workers", "a"), "'a' is no number of workers"),
        (("evaluate", "m", "--mask-seeds", "0"), "--mask-seeds"),
        (("data", "synth", "out", "--seed", "-1"), "--seed"),
        (("promote", "one"), "--name"),
        (("data", "import", "file"), "--format"),
    ],
)
def test_a_wrong_command_line_is_one_line_too(refuse: Refuse, words: tuple[object, ...], said: str) -> None:
    assert said in refuse(*words)


TEXT = ROOT / "search_spaces" / "train_text_mosi.yaml"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.text.path=/no/such/model", "error: model.text.path: no model at '/no/such/model' (allowed: "),
        ("model.text.path=./model", "model.text.path: path must be an absolute folder, a hub name or 'minilm'"),
        ("model.text.mode=tuned", "model.text.mode: unknown 'tuned' (allowed: frozen, prompted, finetuned)"),
        ("model.text.modality=speech", "unknown modality 'speech' (allowed: audio, text)"),
        ("model.text.path=minilm", "a sequence begins with token 2: the ids were made by another tokenizer"),
    ],
)
def test_a_text_encoder_that_is_not_there_or_does_not_fit_is_refused(
    refuse: Refuse, tmp_path_factory: pytest.TempPathFactory, setting: str, said: str
) -> None:
    data = tmp_path_factory.mktemp("spoken") / "d"
    spoken(data)
    assert said in refuse("train", TEXT, "--data", data, "--set", setting)


def test_a_text_encoder_for_a_dataset_without_token_ids_is_refused(refuse: Refuse, small: Path) -> None:
    assert "keeps no token ids of 'text' (allowed: none in this dataset)" in refuse("train", TEXT, "--data", small)
