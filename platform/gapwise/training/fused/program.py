"""The losses of K trials as one function of tensors, compiled where that pays.

`torch.compile` makes an epoch of small models 1.5 to 2 times as fast on a CPU and takes minutes, for one number of
trials and one size of batch (tests/benchmarks/README.md). So a group compiles once, for its full size and whole
batches; a step of another size runs as ever, and so does each one where there is no compiler or nothing is gained.

Shape legend: K trials, B samples of a batch.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gapwise.data.batch import ModalityBatch
from gapwise.data.loading import Views
from gapwise.models.fusing import Pattern
from gapwise.models.interface import Alone, Quiet, State
from gapwise.training.fused.noise import Tape
from gapwise.training.job import Job
from gapwise.training.precision import autocast

_log = logging.getLogger(__name__)
Mode = bool | Literal["auto"]
Losses = tuple[Tensor, dict[str, Tensor], State]
"""(K,) totals, (K,) by term, and the states (K, ...) after the step."""

COMPILER_SECONDS = 250.0
"""What compiling took at most, on one thread: PRLF."""
SAVED = 1 / 3
"""Of an epoch's seconds, the least that it brought."""
MARGIN = 2.0
"""So many times the cost must be saved: trials are pruned, and what is left of an epoch is a guess."""
STILL = 0.9
"""A program that needs more than this share of what an epoch took without it is dropped."""
_BACKEND = "inductor"
_MOST_PROGRAMS = 64
"""In a process; torch's own limit of 8 is meant for one function whose inputs change their shapes."""


class Program:
    """Of all stacks of one pattern. `compiles`: never, from the start, or `auto`: on a CPU, where it pays."""

    def __init__(self, pattern: Pattern, job: Job, compiles: Mode) -> None:
        self.pattern = pattern
        self._autocast = partial(autocast, job.spec.precision, job.device)
        self._mapped = torch.vmap(partial(_loss, pattern))
        self._auto = compiles == "auto" and job.device.type == "cpu"  # what it brings elsewhere is not known
        self._full = 0
        """Most trials that an epoch was of."""
        self._before = 0.0
        """Seconds of one of them, without a compiler."""
        self._compiled: Callable[..., Losses] | None = None
        self._shape: tuple[int, ...] | None = None
        """Trials, samples of a batch and arguments of the only call that is compiled, once it was."""
        self._epochs = 0
        """Of the compiled program."""
        if compiles is True:
            self._compile()

    def __call__(
        self, parameters: State, fixed: State, views: Views, state: State, factors_KN: Tensor | None
    ) -> tuple[Losses, Sequence[Tensor]]:
        """The losses of a step, and the gradients of their sum by `parameters`, in their order."""
        given = [parameters, fixed, *views, state, *([] if factors_KN is None else [factors_KN])]
        shape = (*views.complete.labels.shape[:2], len(given))
        if self._compiled is None or shape[0] < self._full or (self._shape or shape) != shape:
            return self._differentiated(self._mapped, given)
        # Guards are also about strides, and a view of a longer tensor has other ones in the next window of batches.
        given[1:] = tree_map(torch.Tensor.contiguous, given[1:])
        if self._shape is not None:
            return self._differentiated(self._compiled, given)
        try:
            found = self._differentiated(self._compiled, given)
        except Exception as error:  # noqa: BLE001 - no compiler, or one that gives up: what else is wrong shows without
            _log.warning("torch.compile: %s; goes on without", " ".join(str(error).split())[:300])
            self._drop()
            return self._differentiated(self._mapped, given)
        self._shape = shape
        return found

    def after_epoch(self, trials: int, seconds: float, epochs_left: Sequence[int]) -> None:
        """Decide, where that is left to us: it took so many seconds, and each trial has so many epochs before it."""
        if not self._auto or trials < self._full:
            return
        self._full = trials
        if self._shape is not None:
            self._epochs += 1
            if self._epochs == 2 and seconds > STILL * self._before:  # the compiler worked in the first
                _log.info("torch.compile: %.2f s an epoch, %.2f without it; dropped", seconds, self._before)
                self._drop()
        elif self._compiled is None and median(epochs_left) * seconds * SAVED > MARGIN * COMPILER_SECONDS:
            self._before = seconds
            self._compile()

    def _drop(self) -> None:
        self._compiled, self._auto = None, False

    def _differentiated(self, losses: Callable[..., Losses], given: list[Any]) -> tuple[Losses, Sequence[Tensor]]:
        with self._autocast():
            found = losses(*given)
        return found, torch.autograd.grad(found[0].sum(), list(given[0].values()))

    def _compile(self) -> None:
        import torch._dynamo
        import torch._inductor.config as inductor

        inductor.compile_threads = torch.get_num_threads()
        torch._dynamo.config.recompile_limit = _MOST_PROGRAMS
        mapped = self._mapped
        self._compiled = torch.compile(lambda *given: mapped(*given), dynamic=False, backend=_BACKEND)


def _loss(
    pattern: Pattern, parameters: State, fixed: State, incomplete: ModalityBatch, complete: ModalityBatch, *rest: Any
) -> Losses:
    """Of one trial; `rest` is its state, and its row of a tape if there is noise."""
    state, *tape = rest
    noise = Tape(tape[0]) if tape else Quiet()
    loss = pattern.call(parameters, fixed, "forward", incomplete, complete, state, noise, Alone())
    return loss.total, loss.terms, loss.state
