"""What to try next, as rules over figures: each looks at one thing and says a sentence, or nothing. Pure.

A rule names what it saw, so that a reader can disagree. None of them looks at test.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

import numpy as np

from gapwise.errors import SpecError
from gapwise.evaluation.metrics import average_ranks, better, pearson
from gapwise.reporting.study_facts import Facts
from gapwise.reporting.words import counted, short, value
from gapwise.spec.search import BASELINE, Range, SearchSpec
from gapwise.tuning.account import resume_command
from gapwise.tuning.assignment import stopped_early
from gapwise.tuning.reading import TrialRecord
from gapwise.tuning.space import trial_spec

_EDGE = 0.05
"""Of a range, on its scale: so near a bound counts as on it."""
_FEW_SEEDS = 3
_TRIALS_PER_PARAMETER = 5
_TELLS = 0.4
"""Rank correlation of an early epoch with the end, below which it is a poor judge."""
_EQUAL = 0.9
"""Of the most trials: so many pass for as many."""
_ENOUGH = 8
"""Complete trials behind a correlation."""


def advice(facts: Facts) -> list[str]:
    """Sentences, the most pressing first."""
    return [line for rule in RULES for line in rule(facts)]


def go_on(facts: Facts) -> Iterator[str]:
    study = facts.study
    if study.state == "running":
        yield "The study is still running: wait for its second phase before believing a difference."
    elif study.state == "resumable":
        yield f"The study is not finished, and no driver runs: continue it: `{resume_command(study)}`."


def failures(facts: Facts) -> Iterator[str]:
    searched = facts.study.of("search")
    failed = [one for one in searched if one.outcome.state == "failed"]
    if failed:
        reason, count = Counter(one.outcome.reason for one in failed).most_common(1)[0]
        yield (
            f"{len(failed)} of {len(searched)} trials failed, most often ({count}) with: {reason}. "
            "Mend the cause, then `--resume --retry-failed`."
        )


def beyond_bounds(facts: Facts) -> Iterator[str]:
    """The best configuration of an arm lies on a bound of its range, and the model would take values beyond."""
    space = facts.study.space
    for arm in space.arm_names():
        best = _best(facts, arm)
        for path, at in best.assignment.values.items() if best else ():
            one = space.parameters_of(arm).get(path)
            side = bound_hit(one, at) if isinstance(one, Range) else ""
            if side and isinstance(one, Range) and _accepted(space, arm, path, beyond(one, side)):
                yield (
                    f"The best of {arm} has {short(path)} = {value(at)}, at the {side} end of its range "
                    f"({one.low:g} to {one.high:g}): widen it there."
                )


def beyond(one: Range, side: str) -> float | int:
    """A value a little outside a range."""
    if one.integer:
        return int(one.high) + 1 if side == "upper" else int(one.low) - 1
    if one.log:
        return one.high * 1.1 if side == "upper" else one.low / 1.1
    step = _EDGE * (one.high - one.low)
    return one.high + step if side == "upper" else one.low - step


def _accepted(space: SearchSpec, arm: str, path: str, outside: float | int) -> bool:
    try:
        trial_spec(space, arm, {path: outside}, seed=space.seed)
    except SpecError:
        return False
    return True


def bound_hit(one: Range, at: float) -> str:
    """ "lower" or "upper" where a value lies within a twentieth of the range from a bound, else empty."""
    low, high, here = (math.log(v) if one.log else v for v in (one.low, one.high, at))
    share = (here - low) / (high - low)
    if one.integer and at not in (one.low, one.high):
        return ""
    return "lower" if share <= _EDGE else "upper" if share >= 1 - _EDGE else ""


def pruned_too_early(facts: Facts) -> Iterator[str]:
    """The first rung judges by an epoch that says little of the end."""
    pruner = facts.study.space.pruner
    stopped = [one for one in facts.study.of("search") if stopped_early(one.outcome)]
    pairs = [
        (one.costs[pruner.min_epochs], one.outcome.cost)
        for one in facts.study.of("search")
        if one.outcome.eligible and pruner.min_epochs in one.costs
    ]
    if stopped and len(pairs) >= _ENOUGH and (told := early_tells(pairs)) is not None and told < _TELLS:
        yield (
            f"Among {len(pairs)} complete trials the objective after {pruner.min_epochs} epochs ranks them quite "
            f"unlike the end does (rank correlation {told:.2f}), yet {len(stopped)} were stopped on such grounds: "
            "raise `pruner.min_epochs`."
        )


def early_tells(pairs: Sequence[tuple[float, float | None]]) -> float | None:
    """Spearman's rank correlation; None where one side is all alike."""
    early, late = (average_ranks(np.array(side)) for side in zip(*pairs, strict=True))
    if np.ptp(early) == 0 or np.ptp(late) == 0:
        return None
    return float(pearson(early[None], late)[0])


def still_learning(facts: Facts) -> Iterator[str]:
    epochs = facts.study.space.train.epochs
    best = [one for arm in facts.study.space.arm_names() if (one := _best(facts, arm)) is not None]
    late = [one.assignment.key for one in best if one.outcome.best_epoch == epochs]
    if late:
        yield f"First of their arm, and best in their last epoch: {_listed(late)}. Train longer (`train.epochs`)."


def baseline_not_beaten(facts: Facts) -> Iterator[str]:
    metric, found = facts.study.metric, facts.leaders
    lost = [
        condition
        for condition, one in found.best.items()
        if condition in found.baseline and not better(metric, one.mean, found.baseline[condition].mean)
    ]
    if lost:
        yield f"{BASELINE} is not beaten at {_listed(lost)}: there the simpler model is the one to keep."


def floor_not_beaten(facts: Facts) -> Iterator[str]:
    metric, floor = facts.study.metric, facts.leaders.floor
    if floor is None:
        return
    lost = [at for at, one in facts.leaders.best.items() if not better(metric, one.mean, floor)]
    if lost:
        yield f"At {_listed(lost)} a constant answer is as good: nothing was learned there that validation can show."


def few_seeds(facts: Facts) -> Iterator[str]:
    best = facts.leaders.best
    seeds = min((one.seeds for one in best.values()), default=0)
    if facts.leaders.source == "second phase" and best and seeds < _FEW_SEEDS:
        yield f"Winners rest on {seeds} seeds: with at least {_FEW_SEEDS} (`second_phase.seeds`) luck shows."


def hardly_ahead(facts: Facts) -> list[str]:
    """Conditions where the lead over the baseline is smaller than the spread between seeds; none without seeds."""
    found = facts.leaders
    if found.source != "second phase":
        return []
    return [
        condition
        for condition, one in found.best.items()
        if (other := found.baseline.get(condition)) is not None
        and better(facts.study.metric, one.mean, other.mean)
        and abs(one.mean - other.mean) < math.hypot(one.sd, other.sd)
    ]


def within_noise(facts: Facts) -> Iterator[str]:
    close = hardly_ahead(facts)
    if close:
        yield (
            f"At {_listed(close)} the lead over {BASELINE} is smaller than the spread between seeds: "
            "more seeds, or more validation data, before it counts."
        )


def unequal_budgets(facts: Facts) -> Iterator[str]:
    space = facts.study.space
    counts = {arm: len([one for one in facts.study.of("search") if one.assignment.arm == arm]) for arm in space.arms}
    given = len([one for one in facts.study.of("search") if one.assignment.arm == BASELINE])
    most = max((count for arm, count in counts.items() if arm != BASELINE), default=0)
    if given and given < _EQUAL * most:
        yield (
            f"{BASELINE} had {given} trials against {most}: a figure that is to be quoted needs equal budgets "
            "(`baseline_share: 1`)."
        )


def few_trials(facts: Facts) -> Iterator[str]:
    space = facts.study.space
    for arm in [arm for arm in space.arm_names() if arm != BASELINE]:
        varied = [path for path, one in space.parameters_of(arm).items() if one.role != "fixed"]
        count = len([one for one in facts.study.of("search") if one.assignment.arm == arm])
        if 0 < count < _TRIALS_PER_PARAMETER * len(varied):
            yield (
                f"{arm} had {count} trials for {counted(len(varied), 'parameter')}; about "
                f"{_TRIALS_PER_PARAMETER * len(varied)} are a fair search (`--trials`, with `--resume`)."
            )


def room_left(facts: Facts) -> Iterator[str]:
    metric, best = facts.study.metric, facts.leaders.best
    shared = [condition for condition in facts.optimum if condition in best]
    if shared and metric == "mae":
        ratio = fmean(best[at].mean / facts.optimum[at] for at in shared if facts.optimum[at] > 0)
        yield f"The best possible error is known (synthetic data): the leaders lie {100 * (ratio - 1):.0f} % above."


def promote(facts: Facts) -> Iterator[str]:
    if facts.serving and facts.serving.here:
        return
    if facts.study.state == "finished" and facts.study.space.train.protocol.has_rates and facts.leaders.best:
        name = facts.serving.name if facts.serving else facts.study.dataset or "NAME"
        yield f"See what the gate would say: `gapwise promote {facts.study.name} --name {name} --dry-run`."


RULES: tuple[Callable[[Facts], Iterator[str]], ...] = (
    go_on,
    failures,
    floor_not_beaten,
    baseline_not_beaten,
    within_noise,
    few_seeds,
    beyond_bounds,
    still_learning,
    pruned_too_early,
    few_trials,
    unequal_budgets,
    room_left,
    promote,
)


def _best(facts: Facts, arm: str) -> TrialRecord | None:
    complete = [one for one in facts.study.of("search") if one.assignment.arm == arm and one.outcome.eligible]
    return min(complete, key=lambda one: (one.outcome.cost or 0.0, one.assignment.number), default=None)


def _listed(conditions: Sequence[str]) -> str:
    return ", ".join(conditions)
