"""How the search went: what mattered, where good values lie, how trials learned and which were stopped."""

from collections.abc import Iterator, Mapping, Sequence

from gapwise.reporting.figures_search import (
    DRAWN_CURVES,
    DRAWN_LINES,
    DRAWN_POINTS,
    importance_figure,
    learning_figure,
    parallel_figure,
    progress_figure,
    slice_figure,
    timeline_figure,
)
from gapwise.reporting.page import Chart, Section, Table
from gapwise.reporting.study_facts import Facts
from gapwise.reporting.words import NONE, counted, number, short, value
from gapwise.spec.search import Fixed, Parameter
from gapwise.tuning.account import epochs_saved, trial_row
from gapwise.tuning.importance import FEWEST
from gapwise.tuning.reading import TrialRecord

_SLICES, _AXES, _LISTED = 8, 10, 20


def importances(facts: Facts) -> Iterator[Section]:
    """By arm, as far as there are trials enough; otherwise it says so."""
    arms = facts.importance
    missing = [arm for arm in facts.study.space.arm_names() if arm not in arms]
    lead = ["An estimate from the trials there are: it says what moved the objective in these ranges, not why."]
    if missing:
        lead.append(f"Not estimated for {', '.join(missing)}: that needs {FEWEST} complete trials that differ.")
    yield Section(
        key="importance",
        title="What mattered",
        lead=lead,
        charts=[
            Chart(
                key=f"importance-{arm}",
                title=f"{arm}: importance of each parameter",
                text=f"Shares of the differences in the objective, from {counted(found.trials, 'complete trial')}: "
                "over all of them (fANOVA), and of what tells the best tenth from the rest (PED-ANOVA). "
                + _in_words(found.fanova),
                figure=importance_figure(found),
            )
            for arm, found in arms.items()
        ],
    )


def _in_words(shares: Mapping[str, float]) -> str:
    first = sorted(shares.items(), key=lambda one: -one[1])[:3]
    return "First by fANOVA: " + ", ".join(f"{short(path)} {share:.2f}" for path, share in first) + "."


def slices(facts: Facts) -> Iterator[Section]:
    """The objective against each searched parameter; where none is, against the nuisances."""
    trials, paths = _complete(facts), _asked_about(facts)
    charts = [_slice(facts, path, trials) for path in paths if _having(facts, path, trials)]
    some = [arm for arm in trials if len(trials[arm]) > 1]
    charts += [_parallel(facts, arm, trials[arm]) for arm in some if len(_varied(facts, arm)) > 1]
    if charts and any(trials.values()):
        yield Section(
            key="slices", title="Where good values lie", lead=["Complete trials of the search."], charts=charts
        )


def _complete(facts: Facts) -> dict[str, list[TrialRecord]]:
    searched = [one for one in facts.study.of("search") if one.outcome.eligible and one.outcome.cost is not None]
    return {arm: [one for one in searched if one.assignment.arm == arm] for arm in facts.study.space.arm_names()}


def _varied(facts: Facts, arm: str) -> dict[str, Parameter]:
    return {path: one for path, one in facts.study.space.parameters_of(arm).items() if not isinstance(one, Fixed)}


def _asked_about(facts: Facts) -> list[str]:
    """Paths, the most important first."""
    by_arm = {arm: _varied(facts, arm) for arm in facts.study.space.arm_names()}
    roles = {path: one.role for varied in by_arm.values() for path, one in varied.items()}
    wanted = [path for path, role in roles.items() if role == "searched"] or list(roles)
    weight = {
        path: max((one.fanova.get(path, 0.0) for one in facts.importance.values()), default=0.0) for path in wanted
    }
    return sorted(wanted, key=lambda path: -weight[path])[:_SLICES]


def _slice(facts: Facts, path: str, trials: Mapping[str, list[TrialRecord]]) -> Chart:
    space = facts.study.space
    having = _having(facts, path, trials)
    parameter = next(varied[path] for arm in space.arm_names() if path in (varied := _varied(facts, arm)))
    return Chart(
        key=f"slice-{path.replace('.', '-')}",
        title=f"Objective by {short(path)}",
        text=f"A mark is a complete trial of {' or '.join(having)}{_part(list(having.values()), DRAWN_POINTS)}.",
        figure=slice_figure(path, parameter, having, space.train.objective),
    )


def _having(facts: Facts, path: str, trials: Mapping[str, list[TrialRecord]]) -> dict[str, list[TrialRecord]]:
    return {arm: some for arm, some in trials.items() if path in _varied(facts, arm) and some}


def _part(groups: Sequence[Sequence[TrialRecord]], most: int) -> str:
    largest = max((len(one) for one in groups), default=0)
    return f"; of {largest:,} trials {most} are drawn, evenly spread" if largest > most else ""


def _parallel(facts: Facts, arm: str, trials: Sequence[TrialRecord]) -> Chart:
    varied = _varied(facts, arm)
    weight = facts.importance[arm].fanova if arm in facts.importance else {}
    paths = sorted(varied, key=lambda path: -weight.get(path, 0.0))[:_AXES]
    return Chart(
        key=f"parallel-{arm}",
        title=f"{arm}: parameters together",
        text="Parallel coordinates: a line is a complete trial, an axis a parameter from the low to the high end of "
        f"its range; the best tenth is drawn strong{_part([trials], DRAWN_LINES)}.",
        figure=parallel_figure({path: varied[path] for path in paths}, trials),
    )


def course(facts: Facts) -> Iterator[Section]:
    """Learning curves, when trials were stopped, and how fast the best came."""
    searched, space = facts.study.of("search"), facts.study.space
    if not searched:
        return
    arms = {arm: [one for one in searched if one.assignment.arm == arm] for arm in space.arm_names()}
    charts = [_timeline(searched)]
    if any(one.costs for one in searched):
        charts = [_learning(facts, arm, some) for arm, some in arms.items() if any(one.costs for one in some)] + charts
    if any(one.outcome.eligible for one in searched):
        text = "The best objective of complete trials so far, by the number of the trial in its arm."
        figure = progress_figure(arms, space.train.objective)
        charts.append(Chart(key="progress", title="How fast the best came", text=text, figure=figure))
    saved = f"Stopping trials that were behind saved {counted(epochs_saved(facts.study), 'epoch')} of training."
    yield Section(key="course", title="Learning and pruning", lead=[saved], charts=charts)


def _learning(facts: Facts, arm: str, trials: Sequence[TrialRecord]) -> Chart:
    return Chart(
        key=f"learning-{arm}",
        title=f"{arm}: learning curves",
        text=f"The objective on validation after each epoch, a line a trial{_part([trials], DRAWN_CURVES)}; "
        "broken lines ended early, at the mark.",
        figure=learning_figure(trials, facts.study.space.train.objective),
    )


def _timeline(trials: Sequence[TrialRecord]) -> Chart:
    return Chart(
        key="timeline",
        title="Which trials were stopped, and when",
        text=f"Epochs that each trial of the search was trained for{_part([trials], DRAWN_POINTS)}.",
        figure=timeline_figure(trials),
    )


def trials(facts: Facts) -> Iterator[Section]:
    """The best trials with their values, and all failures in numbers."""
    rows = [trial_row(facts.study.space, one) for one in facts.study.of("search")]
    if not rows:
        return
    ranked = sorted(
        rows, key=lambda row: (row["state"] != "complete", row["objective"] is None, row["objective"] or 0.0)
    )
    shown = ranked[:_LISTED]
    yield Section(
        key="trials",
        title="The best trials",
        tables=[
            Table(
                caption="Trials of the search, complete ones by their objective",
                columns=[
                    "trial",
                    "state",
                    "objective (cost)",
                    "best epoch",
                    "epochs",
                    "seconds",
                    "values, or why it failed",
                ],
                rows=[_trial_cells(row) for row in shown],
                words=("state", "values, or why it failed"),
                note=f"The objective is written as a cost: lower is better. {_of_all(len(shown), len(rows))} "
                f"`gapwise study trials {facts.study.name}` has every one.",
            )
        ],
    )


def _of_all(shown: int, total: int) -> str:
    return f"{shown} of {total:,} are listed;" if shown < total else "All are listed;"


def _trial_cells(row: Mapping[str, object]) -> list[str]:
    values = row["values"]
    assert isinstance(values, dict)
    seconds, objective = row["seconds"], row["objective"]
    last = row["reason"] or ", ".join(f"{short(path)} {value(one)}" for path, one in values.items())
    return [
        str(row["trial"]),
        str(row["state"]),
        number(objective if isinstance(objective, float) else None, 4),
        str(row["best_epoch"] or NONE),
        str(row["epochs"] or NONE),
        number(seconds if isinstance(seconds, float) else None, 1),
        str(last),
    ]
