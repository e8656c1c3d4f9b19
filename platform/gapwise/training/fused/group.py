"""K trials in lockstep. What `training.loop.fit` does for one, this does for a group, epoch by epoch.

    admit trials -> advance (batches, validation, reports) -> trials that have ended leave, fresh ones are admitted

Every trial keeps its own reporter, sink, history and position; it ends as it would alone, and whatever ends it, a loss
that is not finite or an exception of its own reporter or sink, ends nobody else. Trials that resume in the middle of an
epoch finish that one by themselves, and a trial that is left alone goes on in the unfused loop.

What goes wrong with all of them (memory) is raised: the trials then go on from their checkpoints, wherever. It
chooses neither which trials nor how many: a caller does, who knows the queue and the memory.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gapwise.evaluation.objective import settled
from gapwise.training.fused.answers import validate_fused
from gapwise.training.fused.epochs import Source, fused_batches, number_of_batches
from gapwise.training.fused.grouping import fusion_key, why_alone
from gapwise.training.fused.member import Ending, Member
from gapwise.training.fused.program import Mode, Program
from gapwise.training.fused.stack import Stack, pattern_of, prompts
from gapwise.training.fused.step import Stepper
from gapwise.training.job import Job, Trained, unwrapped
from gapwise.training.loop import advance, begin, close_epoch, finished, result
from gapwise.training.protocols import CheckpointSink, EpochReport, Position, Reporter


class FusedGroup:
    """Trials that train together; empty at first, and whoever comes first says what fits.

    `compiles` is `Program`'s: whether their step is compiled.
    """

    def __init__(self, *, compiles: Mode = False) -> None:
        self._compiles = compiles
        self._programs: dict[tuple[int, bool], Program] = {}
        self._members: list[Member] = []
        self._endings: list[Ending] = []
        self._stacked: list[Member] = []
        self._stack: Stack | None = None
        self._source: Source | None = None

    @property
    def names(self) -> list[str]:
        """Of the trials in training."""
        return [member.name for member in self._members]

    def fits(self, job: Job) -> bool:
        """Whether a trial may join those that are there."""
        if why_alone(job.spec) is not None or job.workers.world > 1 or job.wrap is not unwrapped:
            return False
        return all(_alike(member.job, job) for member in self._members[:1])

    def admit(self, name: str, job: Job, reporter: Reporter, sink: CheckpointSink) -> None:
        """Take a trial in, between two epochs: it starts with the next one, or continues from its sink's snapshot.

        Raises what `fit` raises before it trains: CheckpointError, SpecError.
        """
        assert self.fits(job), "ask before"
        assert name not in self.names, "each trial once"
        job = replace(job, spec=settled(job.spec, job.shape, job.valid.labels))
        member = Member(name=name, job=job, run=begin(job, sink), reporter=reporter, sink=sink)
        self._unstack()
        if not self._members:
            self._source, self._programs = None, {}
        self._members.append(member)

    def step_epoch(self) -> list[Ending]:
        """Train every trial by an epoch; returns those that ended, also because there was nothing left to train."""
        for member in list(self._members):
            if member.run.position.batch > 0:
                self._alone(member)
            elif finished(member.run, member.job):
                self._leave(member, result(member.run, stopped=False))
        if len(self._members) == 1:
            self._unstack()
            self._alone(self._members[0])
        elif self._members:
            self._together()
        endings, self._endings = self._endings, []
        return endings

    def _alone(self, member: Member) -> None:
        """The rest of an epoch in the unfused loop."""
        with self._ending(member):
            self._report(member, advance(member.job, member.run, member.run.model, member.sink))

    def _together(self) -> None:
        started = time.perf_counter()
        program = self._program()
        stack = self._restack(program)
        trained_seconds = self._train(stack, program, started)
        if not self._members:
            return
        grids = validate_fused(self._stacked[0].job, stack)
        seconds, trials = time.perf_counter() - started, len(self._stacked)
        share = seconds / trials
        program.after_epoch(trials, seconds, [one.job.spec.epochs - one.run.position.epoch for one in self._stacked])
        for row, member in enumerate(self._stacked):
            if member in self._members:
                stack.write_back(row, member.run, optimiser=False)
                member.run.train_seconds += share
                with self._ending(member):
                    speed = len(member.job.train) / trained_seconds
                    self._report(member, close_epoch(member.job, member.run, grids[row], speed))
        stack.losses = {}

    def _train(self, stack: Stack, program: Program, started: float) -> float:
        """Every batch of the epoch; returns its seconds."""
        members = self._stacked
        if self._source is None:
            self._source = Source(members[0].job.train, members[0].job.device)
        batches = number_of_batches(members[0])
        stepper, epochs = Stepper(stack, program, members, batches), [member.run.position.epoch for member in members]
        for index, views in enumerate(fused_batches(members, self._source)):
            for row, (member, epoch) in enumerate(zip(members, epochs, strict=True)):
                member.run.position = Position(epoch, index)
                self._keep_snapshot(row, member, stack, started)
            if not self._members:  # all of them were told to leave
                break
            stepper.step(views)
        for member, epoch in zip(members, epochs, strict=True):
            member.run.position, member.run.steps = Position(epoch + 1, 0), batches
        return time.perf_counter() - started

    def _keep_snapshot(self, row: int, member: Member, stack: Stack, started: float) -> None:
        if member not in self._members:
            return
        with self._ending(member):
            if member.sink.wants(member.run.position):
                stack.write_back(row, member.run, optimiser=True)
                share = (time.perf_counter() - started) / len(self._stacked)
                member.sink.save(member.run.snapshot(share))

    def _report(self, member: Member, report: EpochReport) -> None:
        if member.reporter.report(report):
            self._leave(member, result(member.run, stopped=True))
        elif finished(member.run, member.job):
            self._leave(member, result(member.run, stopped=False))

    @contextmanager
    def _ending(self, member: Member) -> Iterator[None]:
        """Whatever goes wrong with one trial is its ending, and nobody else's."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (the supervisor of trials; the error is the outcome)
            self._leave(member, error)

    def _leave(self, member: Member, outcome: Trained | Exception) -> None:
        self._members.remove(member)
        self._endings.append(Ending(member.name, outcome))

    def _program(self) -> Program:
        """Of those who are in the group now; the same one, however they come and go."""
        kind = prompts(self._members)
        if kind not in self._programs:
            self._programs[kind] = Program(pattern_of(self._members), self._members[0].job, self._compiles)
        return self._programs[kind]

    def _restack(self, program: Program) -> Stack:
        """The stack of those who are in the group now."""
        if self._stack is None or self._stacked != self._members:
            self._unstack()
            self._stack, self._stacked = Stack(self._members, program.pattern), list(self._members)
        return self._stack

    def _unstack(self) -> None:
        """Give every run that goes on its own tensors back; those that have left keep what they left with."""
        if self._stack is None:
            return
        for row, member in enumerate(self._stacked):
            if member in self._members:
                self._stack.write_back(row, member.run, optimiser=True)
        self._stack, self._stacked = None, []


def _alike(one: Job, other: Job) -> bool:
    """Whether jobs that may both be fused may be fused with each other."""
    same_data = one.fingerprints == other.fingerprints and one.shape == other.shape
    return same_data and one.device == other.device and fusion_key(one.spec) == fusion_key(other.spec)
