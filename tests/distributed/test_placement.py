"""Who gets what: pure arithmetic on clusters that are only numbers."""

import pytest

from gapwise.distributed.placement import Needs, Node, Resources, Share, most_at_once, place
from gapwise.distributed.threads import threads_for
from gapwise.errors import SpecError

LAPTOP = Resources((Node(cpus=2),))
GPU = Resources((Node(cpus=16, gpus=1),))
CLUSTER = Resources((Node(cpus=16, gpus=4), Node(cpus=16, gpus=4), Node(cpus=8)))
PAIR = Resources((Node(cpus=5), Node(cpus=5)))


@pytest.mark.parametrize(
    ("available", "needs", "wanted", "at_once", "share"),
    [
        (LAPTOP, Needs(), None, 2, Share(1, 0.0)),
        (LAPTOP, Needs(), 1, 1, Share(2, 0.0)),
        (LAPTOP, Needs(workers=2), None, 1, Share(1, 0.0)),
        (LAPTOP, Needs(trials_per_device=4), None, 2, Share(1, 0.0)),
        (GPU, Needs(), None, 1, Share(16, 1.0)),
        (GPU, Needs(trials_per_device=4), None, 4, Share(4, 0.25)),
        (GPU, Needs(trials_per_device=4), 3, 3, Share(5, 0.25)),
        (GPU, Needs(trials_per_device=64), None, 16, Share(1, 1 / 64)),
        (CLUSTER, Needs(), None, 8, Share(4, 1.0)),
        (CLUSTER, Needs(), 3, 3, Share(8, 1.0)),
        (CLUSTER, Needs(workers=3), None, 2, Share(5, 1.0)),
        (PAIR, Needs(), 3, 3, Share(2, 0.0)),
    ],
)
def test_trials_share_devices_and_all_cores(
    available: Resources, needs: Needs, wanted: int | None, at_once: int, share: Share
) -> None:
    assert place(available, needs, wanted) == (at_once, share)


@pytest.mark.parametrize(
    ("available", "needs", "wanted", "said"),
    [
        (LAPTOP, Needs(), 64, "--concurrency: 64 trials at once do not fit (allowed: at most 2 on 0 GPU, 2 CPU)"),
        (
            GPU,
            Needs(trials_per_device=2),
            3,
            "--concurrency: 3 trials at once do not fit (allowed: at most 2 on 1 GPU, 16 CPU, at 2 a GPU "
            "(trials_per_device))",
        ),
        (
            CLUSTER,
            Needs(workers=3),
            3,
            "--concurrency: 3 trials at once do not fit (allowed: at most 2 on 8 GPU, 40 CPU on 3 nodes, at 1 a GPU "
            "(trials_per_device), at 3 workers a trial)",
        ),
        (
            LAPTOP,
            Needs(workers=3),
            None,
            "workers_per_trial: a trial of 3 workers does not fit (allowed: at most 2, of 0 GPU, 2 CPU)",
        ),
        (
            GPU,
            Needs(workers=2),
            None,
            "workers_per_trial: a trial of 2 workers does not fit (allowed: at most 1, of 1 GPU, 16 CPU)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_saying_what_does(
    available: Resources, needs: Needs, wanted: int | None, said: str
) -> None:
    with pytest.raises(SpecError) as refused:
        place(available, needs, wanted)
    assert str(refused.value) == said


def test_a_trial_that_does_not_fit_is_none_at_once() -> None:
    assert most_at_once(LAPTOP, Needs(workers=3)) == 0


@pytest.mark.parametrize(
    ("cpus", "said", "threads"),
    [(4.0, None, 4), (4.0, "1", 1), (2.0, "8", 2), (0.5, None, 1), (3.0, "", 3), (3.0, "0", 3), (3.0, "all", 3)],
)
def test_a_worker_has_a_thread_a_core_and_no_more_than_the_environment_allows(
    cpus: float, said: str | None, threads: int
) -> None:
    assert threads_for(cpus, {} if said is None else {"OMP_NUM_THREADS": said}) == threads
