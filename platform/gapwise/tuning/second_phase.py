"""The second phase: the best configurations again, seed by seed, until they are done or out of the race.

A round is one plan of repeats, and the next is made when all of it has ended: who goes on is derived from the finished
runs alone, so a resumed study decides as the one that was killed, whoever ended first. A configuration with a finished
run whose predictions are gone stays in the race. The price of rounds is a barrier: near the end of one, devices wait.
With several objectives the search's Pareto front runs all its seeds: what leads at no rate may be the best compromise.
"""

import logging
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from gapwise.data.protocols import build_protocol
from gapwise.data.store import open_dataset
from gapwise.errors import CheckpointError, StudyError
from gapwise.evaluation.metrics import Real
from gapwise.evaluation.paired import draw_resamples, resampled
from gapwise.tuning.arm import Repeat
from gapwise.tuning.assignment import Assignment, Finished, count_states
from gapwise.tuning.elimination import Chances, Configuration, Dropped, Round, gather
from gapwise.tuning.front import candidates, pareto_front, spread_out
from gapwise.tuning.predictions import load_predictions, predictions_file
from gapwise.tuning.selection import chosen_again, conditions_of
from gapwise.tuning.trial import Place

_log = logging.getLogger(__name__)

Rounds = Generator[list[Repeat], list[Finished], "SecondPhase"]
"""Yields what is to run, but for what has run already; is sent every finished run of the second phase."""


class SecondPhase(NamedTuple):
    """How it ended."""

    repeats: list[Finished]
    dropped: Dropped
    chances: Chances
    runs_saved: int
    """Runs that were not started, because their configuration was out of the race."""


def second_phase(place: Place, searched: Sequence[Finished]) -> Rounds:
    """Raises StudyError where no search trial finished."""
    phase, first = place.space.second_phase, place.space.seed + 1
    front = _front(place, searched)
    chosen, figures = _candidates(place, searched, front), _Figures(place)
    racing = chosen
    dropped: Dropped = {}
    for seeds in phase.rounds():
        repeats = yield [_repeat(run, first + k) for run in racing.values() for k in range(seeds)]
        now = figures.after(seeds, [run for run in repeats if run.assignment.seed < first + seeds])
        if seeds < phase.seeds:
            dropped = now.drop(phase, dropped)
            out = {one for one, where in dropped.items() if len(where) == len(now.conditions)} - set(front)
            racing = {one: run for one, run in chosen.items() if one not in out}
    run = sum((one.assignment.arm, one.assignment.source) in chosen for one in repeats)
    chances = now.chances(seed=place.space.seed)
    return SecondPhase(repeats, dropped, chances, runs_saved=len(chosen) * phase.seeds - run)


def _repeat(run: Assignment, seed: int) -> Repeat:
    """What did not fit the memory in the search begins as it did fit."""
    return Repeat(run.arm, run.number, run.values, seed, run.micro_batch)


def _front(place: Place, searched: Sequence[Finished]) -> list[Configuration]:
    """The search's Pareto front of each arm by itself, the most telling first; empty with a single objective."""
    objectives = place.space.objectives
    if not objectives:
        return []
    by_arm = ([run for run in searched if run.assignment.arm == arm] for arm in place.space.arm_names())
    fronts = (spread_out(pareto_front(candidates(runs, objectives))) for runs in by_arm)
    return [(one.arm, one.source) for front in fronts for one in front]


def _candidates(
    place: Place, searched: Sequence[Finished], front: Sequence[Configuration]
) -> dict[Configuration, Assignment]:
    phase, metric = place.space.second_phase, place.space.train.objective.metric
    found: dict[Configuration, Assignment] = {}
    for arm in place.space.arm_names():
        runs = {run.assignment.number: run for run in searched if run.assignment.arm == arm}
        telling = [source for one, source in front if one == arm]
        for number in chosen_again(list(runs.values()), metric, top_k=phase.top_k, cap=phase.cap, front=telling):
            found[arm, number] = runs[number].assignment
    if not found:
        raise StudyError(_nothing_to_choose(place, searched), where=place.folder)
    return found


def _nothing_to_choose(place: Place, searched: Sequence[Finished]) -> str:
    limits = place.space.constraints.limits()
    counted = count_states(run.outcome for run in searched)
    if not counted.get("infeasible"):
        return "no trial finished, so there is nothing to choose from"
    said = ", ".join(f"{name} at most {limit:g}" for name, limit in limits.items())
    others = sum(counted.values()) - counted["infeasible"]
    return f"no trial keeps within the constraints ({said}): {counted['infeasible']} do not" + (
        f", {others} did not finish" if others else ""
    )


class _Figures:
    """Runs on the resamples of validation; each file is read once."""

    def __init__(self, place: Place) -> None:
        dataset = open_dataset(Path(place.data))
        self._place, self._valid, self._shape = place, dataset.valid, dataset.manifest.shape()
        self._metric = place.space.train.objective.metric
        mask_seeds = place.space.second_phase.mask_seeds if build_protocol(place.space.train.protocol).seeded else 1
        self._resamples = draw_resamples(self._valid.groups, mask_seeds, seed=place.space.seed)
        self._known: dict[str, Real] = {}

    def after(self, seeds: int, runs: Sequence[Finished]) -> Round:
        """The race, from the runs of the first `seeds` seeds."""
        complete = [run for run in runs if run.outcome.eligible]
        for run in complete:
            if run.assignment.key not in self._known:
                self._read(run)
        return Round(
            seeds=seeds,
            groups=self._resamples.groups,
            conditions=conditions_of(complete, self._metric),
            found=gather(complete, self._known, self._metric),
        )

    def _read(self, run: Finished) -> None:
        file = predictions_file(Path(self._place.folder), run.assignment)
        try:
            outputs = load_predictions(file)
        except CheckpointError as error:
            _log.warning("%s; it counts as missing, so %s stays in the race", error, run.assignment.key)
            outputs = None
        if outputs is not None:
            figures = resampled(self._metric, outputs.values, self._valid.labels, self._shape, self._resamples)
            self._known[run.assignment.key] = figures
