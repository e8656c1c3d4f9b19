"""What all workers hear: rank 0 alone asks, the others are told through the collective."""

import torch

from gapwise.training.job import Job
from gapwise.training.protocols import EpochReport, Reporter


def told(job: Job, number: int) -> int:
    """Rank 0's number, on every worker; all of them must ask."""
    if job.workers.world == 1:
        return number
    said = torch.tensor([number if job.rank == 0 else 0], device=job.device)
    return int(job.workers.total(said).item())


def agreed(job: Job, flag: bool) -> bool:
    """What rank 0 thinks, likewise."""
    return bool(told(job, int(flag)))


class NoReporter:
    """Hears of every epoch and never stops a run."""

    def report(self, epoch: EpochReport) -> bool:
        del epoch
        return False


class SharedDecision:
    """A reporter for every worker of a job, around the one that rank 0 talks to."""

    def __init__(self, inner: Reporter, job: Job) -> None:
        self._inner, self._job = inner, job

    def report(self, epoch: EpochReport) -> bool:
        return agreed(self._job, self._job.rank == 0 and self._inner.report(epoch))
