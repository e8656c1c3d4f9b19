"""A stop that all workers hear: rank 0 alone asks, the others are told through the collective."""

import torch

from gapwise.training.job import Job
from gapwise.training.protocols import EpochReport, Reporter


class SharedDecision:
    """A reporter for every worker of a job, around the one that rank 0 talks to."""

    def __init__(self, inner: Reporter, job: Job) -> None:
        self._inner, self._job = inner, job

    def report(self, epoch: EpochReport) -> bool:
        stop = self._job.rank == 0 and self._inner.report(epoch)
        if self._job.workers.world == 1:
            return stop
        flag = torch.tensor([float(stop)], device=self._job.device)
        return bool(self._job.workers.total(flag).item() > 0)
