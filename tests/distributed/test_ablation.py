"""Ablation tables: rows decided purely, and one small table trained for real on the local cluster."""

from pathlib import Path

import pytest

from gapwise.data.store import open_dataset
from gapwise.distributed.ablation import BASELINE, WHOLE, Ablation, check_ablation, run_ablation
from gapwise.distributed.side_by_side import Batch
from gapwise.errors import CheckpointError, SpecError
from gapwise.spec.train import TrainSpec


def spec_of(model: str, **fields: object) -> TrainSpec:
    sizes = {"name": model, "width": 16, "heads": 2, "depth": 1, "summary_tokens": 2}
    return TrainSpec.model_validate(
        {"model": sizes | fields, "epochs": 1, "batch_size": 200, "protocol": {"rates": [0.0, 0.5]}}
    )


def rows(spec: TrainSpec) -> dict[str, TrainSpec]:
    table = Ablation(spec, [3], Batch("data", "folder", 2)).runs()
    return {name: runs[0].spec for name, runs in table.items()}


@pytest.mark.parametrize("model", ["promise", "prlf"])
def test_every_row_differs_from_the_whole_model_in_what_it_names(model: str) -> None:
    made = rows(spec_of(model))
    assert made[WHOLE].model == spec_of(model).model
    assert made[BASELINE].model.name == "late_fusion"
    assert made[BASELINE].model.width == made[WHOLE].model.width
    assert len({one.model_dump_json() for one in made.values()}) == len(made)
    assert all(one.seed == 3 for one in made.values())


def test_an_ablation_that_changes_nothing_is_no_row() -> None:
    assert "fisher_trace" in rows(spec_of("prlf"))
    assert "fisher_trace" not in rows(spec_of("prlf", fisher="trace"))


def test_a_model_without_ablations_and_a_folder_of_another_table_are_refused(small: Path, tmp_path: Path) -> None:
    dataset = open_dataset(small)
    with pytest.raises(SpecError, match="late_fusion has no ablations"):
        check_ablation(tmp_path / "none", spec_of("late_fusion"), [0], dataset)
    assert not (tmp_path / "none").exists()
    check_ablation(tmp_path / "one", spec_of("prlf"), [0], dataset)
    check_ablation(tmp_path / "one", spec_of("prlf"), [0], dataset)
    with pytest.raises(CheckpointError, match="another ablation has this name"):
        check_ablation(tmp_path / "one", spec_of("prlf"), [0, 1], dataset)


@pytest.mark.ray
@pytest.mark.slow
def test_a_table_is_trained_once_and_read_again(ray_cluster: None, small: Path, tmp_path: Path) -> None:
    dataset = open_dataset(small)
    spec = check_ablation(tmp_path, spec_of("promise"), [0, 1], dataset)
    ablation = Ablation(spec, [0, 1], Batch(str(small), str(tmp_path), mask_seeds=2))
    heard: list[str] = []
    body = run_ablation(ablation, dataset, 2, heard.append)
    assert len(heard) == 2 * len(body["rows"])
    whole = body["rows"][WHOLE]
    assert whole["difference"] == {"mean": 0.0, "sd": 0.0}
    for row in body["rows"].values():
        assert row["failed"] == 0
        assert row["mean"]["mean"] == pytest.approx(sum(one["mean"] for one in row["conditions"].values()) / 2)
        assert row["difference"]["mean"] == pytest.approx(row["mean"]["mean"] - whole["mean"]["mean"])
    assert run_ablation(ablation, dataset, 2, heard.append) == body
    assert len(heard) == 2 * len(body["rows"]), "what is done is not done again"
