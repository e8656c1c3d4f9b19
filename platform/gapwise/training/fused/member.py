"""One trial of a fused group: an ordinary run, whose tensors are a mirror while the group trains them.

Whoever looks at a run (a snapshot, a best epoch, the end) finds the unfused loop's own objects, so that a trial may
leave a group, or join one, at any time, and its files do not tell.
"""

from dataclasses import dataclass
from typing import NamedTuple

from gapwise.training.job import Job, Trained
from gapwise.training.protocols import CheckpointSink, Reporter
from gapwise.training.run_state import RunState


class Ending(NamedTuple):
    """How a trial left its group: what `fit` returns, or raises."""

    name: str
    outcome: Trained | Exception


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Member:
    """`job` is settled; `run` mirrors the trial's row."""

    name: str
    job: Job
    run: RunState
    reporter: Reporter
    sink: CheckpointSink
