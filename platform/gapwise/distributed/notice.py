"""A node's notice that it is about to go (a spot instance reclaimed, a node drained): keep a checkpoint, leave, go on
elsewhere.

The notice is Ray's list of draining nodes, which `ray drain-node`, the autoscaler and a cloud's termination hook fill;
a signal to a worker process is none, for Ray keeps the process's main thread. Each worker asks for its own node, once a
second at most. Ray Train has a watcher of the same list (`RAY_TRAIN_ENABLE_PREEMPTION_WATCHER`), which is off: it waits
for the deadline before it starts workers again, and what they train until then is lost.
"""

import time
from collections.abc import Callable

import ray
import torch

from gapwise.distributed.cluster import draining
from gapwise.distributed.launch import Restart
from gapwise.training.job import Job
from gapwise.training.protocols import CheckpointSink, Position, Snapshot

_SECONDS_BETWEEN = 1.0
_STEPS_BETWEEN = 10
"""Of several workers: how often within an epoch they agree on leaving, for that takes a message to all of them."""


class Notice:
    """Whether the node of this process is about to go; once it is, it stays so."""

    def __init__(
        self,
        gone: Callable[[], bool] = lambda: ray.get_runtime_context().get_node_id() in draining(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gone, self._clock = gone, clock
        self._asked, self._heard = float("-inf"), False

    def __call__(self) -> bool:
        if not self._heard and self._clock() - self._asked >= _SECONDS_BETWEEN:
            self._asked, self._heard = self._clock(), self._gone()
        return self._heard


class LeavingSink:
    """Around a run's sink: at a notice one more snapshot is kept, and then all workers leave, raising Restart.

    A run of a single worker leaves before its next step, one of several at the next step on which they agree. The
    snapshot holds everything up to that step, so nothing is trained twice.
    """

    def __init__(self, inner: CheckpointSink, job: Job, notice: Callable[[], bool]) -> None:
        self._inner, self._job, self._notice = inner, job, notice
        self._leaves = False

    def wants(self, position: Position) -> bool:
        if self._job.workers.world == 1:
            self._leaves = self._notice()
        elif position.batch % _STEPS_BETWEEN == 0:
            self._leaves = self._any_worker(self._notice())
        return self._leaves or self._inner.wants(position)

    def save(self, snapshot: Snapshot) -> None:
        self._inner.save(snapshot)
        if self._leaves:
            self._any_worker(True)  # nobody leaves before rank 0 has written: the first to go takes all with it
            raise Restart("its node is about to go")

    def load(self) -> Snapshot | None:
        return self._inner.load()

    def _any_worker(self, flag: bool) -> bool:
        said = torch.tensor([int(flag)], device=self._job.device)
        return bool(self._job.workers.total(said).item())
