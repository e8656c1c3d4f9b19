"""An arm's Optuna study as samplers see it: every objective is minimised, and earlier studies' trials come first.

Those are no trials of the study: they have no number of their own, stand in no journal, and only samplers meet them.
Optuna's TPE asks a study for its one direction when it ranks pruned trials, also where there are several objectives.
"""

import copy
from collections.abc import Container, Sequence

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class SampledStudy(optuna.Study):
    """Made in the storage where it is not there yet."""

    anything_waits = False
    """Told before each question: Optuna reads all trials to find out."""

    def __init__(
        self,
        name: str,
        storage: BaseStorage,
        sampler: optuna.samplers.BaseSampler,
        *,
        objectives: int,
        history: Sequence[FrozenTrial],
    ) -> None:
        directions = [StudyDirection.MINIMIZE] * objectives
        made = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, directions=directions, load_if_exists=True
        )
        super().__init__(name, made._storage, sampler, optuna.pruners.NopPruner())
        self._history = list(history)

    @property
    def direction(self) -> StudyDirection:
        return StudyDirection.MINIMIZE

    def _pop_waiting_trial_id(self) -> int | None:
        return super()._pop_waiting_trial_id() if self.anything_waits else None

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """The study's own."""
        return super()._get_trials(deepcopy, states)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What samplers ask for."""
        earlier = [trial for trial in self._history if states is None or trial.state in states]
        return (copy.deepcopy(earlier) if deepcopy else earlier) + super()._get_trials(deepcopy, states, use_cache)
