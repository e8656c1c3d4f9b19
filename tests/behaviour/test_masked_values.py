"""Values under a mask can never reach an output: every protocol with every model, in training and in answering.

Faked: the data are 12 samples of the synthetic `small` set, and what lies under the masks is NaN, infinite or noise.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from gapwise.data.batch import ModalityBatch, hide, join
from gapwise.data.loading import as_tensors, samples_of
from gapwise.data.protocols import PROTOCOLS, build_protocol
from gapwise.data.store import Dataset, open_dataset, statistics
from gapwise.models.catalogue import MODELS, build_model
from gapwise.models.interface import Alone, MultimodalModel, Quiet
from gapwise.spec.protocol import ProtocolSpec
from gapwise.testing.model_contract import differentiate
from gapwise.testing.runs import tiny_spec

ROWS = np.arange(8)
JUNK = (float("nan"), float("inf"), 1e3)
"""Standard deviations of what lies under the masks; not a number where the first two are."""
VARIANTS = {name: {"name": name} for name in MODELS} | {
    "prlf-trace": {"name": "prlf", "fisher": "trace"},
    "prlf-ema": {"name": "prlf", "fisher": "ema"},
    "promise-no-prompts": {"name": "promise", "prompt_length": 0},
}

VARIANT = pytest.mark.parametrize("variant", sorted(VARIANTS))
PROTOCOL = pytest.mark.parametrize("name", sorted(PROTOCOLS))


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return open_dataset(small)


def model_of(dataset: Dataset, variant: str) -> MultimodalModel:
    spec = tiny_spec(VARIANTS[variant]["name"]).model
    spec = type(spec).model_validate({**spec.model_dump(), **VARIANTS[variant], "dropout": 0.0})
    return build_model(spec, dataset.manifest.shape(), statistics(dataset.train), 0)


def masks_of(dataset: Dataset, name: str) -> list[dict[str, torch.Tensor]]:
    """The training mask of a protocol for the first samples, and its evaluation masks in the middle and at the end."""
    protocol = build_protocol(ProtocolSpec(name=name))
    samples = samples_of(dataset.train.keys[ROWS], dataset.train.batch(ROWS))
    drawn = list(protocol.evaluation(samples, split="train", mask_seed=0).values())
    return [
        as_tensors(one)
        for one in (protocol.training(samples, seed=0, epoch=0), drawn[len(drawn) // 2], drawn[0], drawn[-1])
    ]


def spoilt(batch: ModalityBatch, kept: dict[str, torch.Tensor], junk: float) -> ModalityBatch:
    """Junk wherever `kept` or the sample's own end says that nothing is to be seen; another one at each position."""
    noise = torch.Generator().manual_seed(0)
    values = {
        name: torch.where(
            (kept[name] & batch.attend[name]).unsqueeze(-1), value, junk * torch.randn(value.shape, generator=noise)
        )
        for name, value in batch.values.items()
    }
    return batch._replace(values=values)


@VARIANT
@PROTOCOL
def test_what_a_protocol_hides_changes_no_answer(dataset: Dataset, variant: str, name: str) -> None:
    model, base, masks = model_of(dataset, variant), dataset.train.batch(ROWS), masks_of(dataset, name)

    def answer(views: list[ModalityBatch]) -> torch.Tensor:
        with torch.inference_mode():
            return model.predict(join(views), model.initial_state()).output

    for mask_visible in (True, False):
        expected = answer([hide(base, kept, mask_visible=mask_visible) for kept in masks])
        assert expected.isfinite().all()
        for junk in JUNK:
            views = [hide(spoilt(base, kept, junk), kept, mask_visible=mask_visible) for kept in masks]
            assert torch.equal(answer(views), expected)
    clean = [hide(base, kept, mask_visible=True) for kept in masks]
    for junk in JUNK:
        assert torch.equal(answer([spoilt(view, view.attend, junk) for view in clean]), answer(clean))


@VARIANT
@PROTOCOL
def test_what_a_protocol_hides_changes_no_loss_gradient_or_running_statistic(
    dataset: Dataset, variant: str, name: str
) -> None:
    model, base = model_of(dataset, variant), dataset.train.batch(ROWS)
    clean = hide(base, masks_of(dataset, name)[0], mask_visible=True)
    dirty = [(spoilt(clean, clean.attend, junk), spoilt(base, base.attend, junk)) for junk in JUNK]
    found = []
    for incomplete, complete in ((clean, base), *dirty):
        loss = model(incomplete, complete, model.initial_state(), Quiet(), Alone())
        model.zero_grad()
        differentiate(loss)
        gradients = [part.grad.clone() for part in model.parameters() if part.grad is not None]
        found.append([loss.total, *gradients, *model.refresh(complete, loss.state, 8, Alone()).values()])
    assert all(value.isfinite().all() for value in found[0])
    for other in found[1:]:
        assert all(torch.equal(first, second) for first, second in zip(found[0], other, strict=True))
