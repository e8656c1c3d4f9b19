"""Two real processes under gloo must compute what one worker computes on the global batch.

Faked: the cluster, by two processes of this machine that meet through a file. Shards are uneven on purpose (5 + 4),
and dealt as the loader deals them, so that a gathered batch is in another order than the batch of one worker.
"""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from gapwise.data.shape import Task
from gapwise.models.catalogue import build_model
from gapwise.models.collective import WorkerGroup
from gapwise.models.interface import Alone, Collective, Quiet, State
from gapwise.spec.model import LateFusionSpec, ModelSpec, PrlfSpec, PromiseSpec
from gapwise.testing.model_contract import (
    complete_batch,
    incomplete_batch,
    small,
    synthetic_shape,
    synthetic_statistics,
)
from gapwise.training.parts import in_parts

CASES: dict[str, tuple[ModelSpec, Task]] = {
    "late_fusion": (LateFusionSpec(), "regression"),
    "late_fusion in parts": (LateFusionSpec(), "regression"),
    "promise": (PromiseSpec(prompt_length=3, scenario_length=2, projection=8), "regression"),
    "promise without prompts": (PromiseSpec(prompt_length=0), "regression"),
    "promise classes": (PromiseSpec(prompt_length=3, scenario_length=2, projection=8), "classification"),
    "promise, a batch larger than its queue": (PromiseSpec(projection=8, queue=4), "regression"),
    "promise, a queue that cuts a batch": (PromiseSpec(projection=8, queue=13), "classification"),
    "promise without a queue": (PromiseSpec(projection=8, queue=0), "regression"),
    "prlf precision": (PrlfSpec(), "regression"),
    "prlf trace": (PrlfSpec(fisher="trace"), "classification"),
    "prlf ema": (PrlfSpec(fisher="ema", fisher_every=1), "regression"),
}
Found = list[tuple[dict[str, tuple[dict[str, Tensor], State, Tensor]], tuple[Tensor, Tensor]]]
SAMPLES = 9
MICRO_BATCH = {"late_fusion in parts": 2}
"""Of the two workers; the one that they are compared with takes the whole batch."""


def two_steps(case: str, rank: int, workers: Collective) -> tuple[dict[str, Tensor], State, Tensor]:
    """Gradients of the second step, through DDP where there are workers, from the state that the first step and its
    refresh have left."""
    spec, task = CASES[case]
    shape = synthetic_shape(3, task)
    model = build_model(small(spec), shape, synthetic_statistics(shape), 0).double()
    complete = complete_batch(shape, SAMPLES)
    rows = slice(rank, None, workers.world)
    views = incomplete_batch(complete).part(rows), complete.part(rows)
    state = model(*views, model.initial_state(), Quiet(), workers).state
    state = model.refresh(views[0], state, 1, workers)
    trained = DistributedDataParallel(model) if workers.world > 1 else model
    total = torch.zeros(())
    most = MICRO_BATCH.get(case) if workers.world > 1 else None
    for part in in_parts(SAMPLES, (rank, workers.world), most):
        loss = trained(*(view.part(part.rows) for view in views), state, Quiet(), workers)
        (part.weight * loss.total).backward()
        total, state = total + part.weight * loss.total.detach(), loss.state
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return gradients, state, total


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    group = WorkerGroup()
    found = {case: two_steps(case, rank, group) for case in CASES}
    gathered = group.gather(torch.arange(3 - 2 * rank)), group.gather(torch.tensor([rank == 1]))
    torch.save((found, gathered), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder: Path = tmp_path_factory.mktemp("workers")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    spawn(worker, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", list(CASES))
def test_two_workers_average_to_one_workers_gradient(found: Found, case: str) -> None:
    gradients, state, total = two_steps(case, 0, Alone())
    (first, first_state, first_total), (second, second_state, second_total) = (one[0][case] for one in found)
    torch.testing.assert_close((first_total + second_total) / 2, total, rtol=1e-6, atol=1e-12)
    for name, expected in gradients.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-6, atol=1e-10, msg=name)
    for name, expected in state.items():
        assert torch.equal(first_state[name], second_state[name]), name
        torch.testing.assert_close(first_state[name], expected, rtol=1e-6, atol=1e-12)


def test_integers_and_truth_values_are_gathered_in_order_of_rank(found: Found) -> None:
    for _, (numbers, truths) in found:
        assert numbers.tolist() == [0, 1, 2, 0] and truths.tolist() == [False, True]
