"""Every model of the catalogue under the contract suite. Faked: the data, so that milliseconds suffice."""

import pytest
import torch

from gapwise.data.shape import DataShape
from gapwise.errors import DataError, SpecError
from gapwise.models.ablations import ABLATIONS, ablate
from gapwise.models.catalogue import MODELS, build_model
from gapwise.models.interface import Alone, Quiet
from gapwise.spec.model import LateFusionSpec, PrlfSpec, PromiseSpec, model_names, model_specs
from gapwise.testing.model_contract import ModelContract, complete_batch, small, synthetic_shape, synthetic_statistics

SMALLER = {PromiseSpec: {"prompt_length": 3, "scenario_length": 2, "projection": 8}}


for _kind in model_specs():  # TestLateFusion, TestPrlf, and whoever joins them
    _name = f"Test{_kind.__name__.removesuffix('Spec')}"
    globals()[_name] = type(_name, (ModelContract,), {"spec": _kind(**SMALLER.get(_kind, {})), "__module__": __name__})


class TestLateFusionExperts(ModelContract):
    spec = LateFusionSpec(readout="experts", encoder="statistics", components=3)


class TestPromiseExperts(ModelContract):
    spec = PromiseSpec(prompt_length=2, scenario_length=2, projection=8, readout="experts", components=3)


class TestPrlfExperts(ModelContract):
    spec = PrlfSpec(readout="experts", encoder="statistics")


class TestPrlfTrace(ModelContract):
    spec = PrlfSpec(fisher="trace")


class TestPrlfEma(ModelContract):
    spec = PrlfSpec(fisher="ema", fisher_every=2)


SHAPE = synthetic_shape(2, "regression")
STATISTICS = synthetic_statistics(SHAPE)


def test_every_model_that_may_be_named_can_be_built_and_every_ablation_is_of_one() -> None:
    assert set(model_names()) == set(MODELS) >= set(ABLATIONS)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    odd = LateFusionSpec().model_copy(update={"name": "early_fusion"})
    with pytest.raises(SpecError, match=rf"early_fusion.*{', '.join(sorted(MODELS))}"):
        build_model(odd, SHAPE, STATISTICS, 0)
    with pytest.raises(SpecError, match=r"no_magic.*no_cccl"):
        ablate(PromiseSpec(), "no_magic")


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, third = (build_model(small(PromiseSpec()), SHAPE, STATISTICS, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [model.state_dict()["head.mlp.hidden.weight"] for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", ["a.b", ""])
def test_a_modality_name_that_no_parameter_can_have_is_refused(name: str) -> None:
    shape = DataShape(task="regression", modalities={name: SHAPE.modalities["text"]}, label_range=(0.0, 1.0))
    with pytest.raises(DataError, match="modality name"):
        build_model(LateFusionSpec(), shape, STATISTICS, 0)


def test_a_modality_may_be_called_like_an_attribute() -> None:
    shape = DataShape(task="regression", modalities={"type": SHAPE.modalities["text"]}, label_range=(0.0, 1.0))
    statistics = STATISTICS._replace(modalities={"type": STATISTICS.modalities["text"]})
    assert build_model(small(LateFusionSpec()), shape, statistics, 0).modalities == ("type",)


def test_a_foreign_batch_is_refused() -> None:
    model = build_model(small(LateFusionSpec()), SHAPE, STATISTICS, 0).double()
    batch = complete_batch(SHAPE, 2)
    longer = {name: torch.cat([value, value], dim=1) for name, value in batch.values.items()}
    both = {name: torch.cat([mask, mask], dim=1) for name, mask in batch.attend.items()}
    with pytest.raises(DataError, match=r"audio: batch has 2 frames.*1 to 1"):
        model.predict(batch._replace(values=longer, attend=both), {})
    with pytest.raises(DataError, match="batch has modalities"):
        model(batch._replace(values={"text": batch.values["text"]}), batch, {}, Quiet(), Alone())
