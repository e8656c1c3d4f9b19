"""The first thing a reader wants: who is best at every missing rate, and against what."""

from collections.abc import Iterator, Mapping
from statistics import fmean

from gapwise.evaluation.metrics import better
from gapwise.reporting.advice import advice, hardly_ahead
from gapwise.reporting.figures_result import Beside, Line, robustness_figure
from gapwise.reporting.page import Chart, Section, Table
from gapwise.reporting.serving import Serving
from gapwise.reporting.study_facts import Facts
from gapwise.reporting.words import NONE, condition_label, counted, metric_label, number, spread
from gapwise.spec.search import BASELINE
from gapwise.tuning.result import Best

_EVIDENCE = {
    "second phase": "Chosen on the validation split by the mean over training seeds; test had no part in it.",
    "search": "From the search alone, one seed and one mask a trial: the second phase may say otherwise.",
}
_DRAWN = 6


def answer(facts: Facts) -> Iterator[Section]:
    """The champion of every condition beside baseline, floor, optimum and who served before."""
    if not facts.leaders.best and not facts.leaders.baseline:
        yield Section(
            key="answer", title="The answer", lead=["No trial is complete, so there is nothing to compare yet."]
        )
        return
    yield Section(
        key="answer",
        title="The answer",
        lead=[*_sentences(facts), _EVIDENCE[facts.leaders.source], *_serving_now(facts)],
        tables=[_table(facts)],
        charts=[_robustness(facts)],
    )


def _sentences(facts: Facts) -> Iterator[str]:
    found, metric = facts.leaders, facts.study.metric
    best = found.best or found.baseline
    names = list(dict.fromkeys(one.trial for one in best.values()))
    among = "Of the searched models, " if found.baseline and found.best else ""
    if len(names) == 1:
        yield f"{among}{names[0]} is best at every condition ({len(best)} of them)."
    else:
        parts = (f"{name} at {', '.join(at for at, one in best.items() if one.trial == name)}" for name in names)
        yield f"{among}best are {'; '.join(parts)}."
    yield f"Mean over conditions, {metric_label(metric)}: {_against(facts, best)}."
    shared = [at for at in found.best if at in found.baseline]
    if shared:
        won = sum(better(metric, found.best[at].mean, found.baseline[at].mean) for at in shared)
        close = len(hardly_ahead(facts))
        noise = f", at {close} of them by less than the spread between seeds" if close else ""
        yield f"Ahead of {BASELINE} at {won} of {counted(len(shared), 'condition')}{noise}."


def _serving_now(facts: Facts) -> Iterator[str]:
    """This study's champions, who need not be the best of its search."""
    if facts.serving and (here := facts.serving.here):
        parts = (
            f"{one} at {', '.join(at for at, its in here.items() if its == one)}"
            for one in dict.fromkeys(here.values())
        )
        yield f"Champions of {facts.serving.name} now, after the gate's look at test: {'; '.join(parts)}."


def _against(facts: Facts, best: Mapping[str, Best]) -> str:
    figures = {"the leaders": fmean(one.mean for one in best.values())}
    if facts.leaders.best and facts.leaders.baseline:
        figures[BASELINE] = fmean(one.mean for one in facts.leaders.baseline.values())
    if facts.leaders.floor is not None:
        figures["floor"] = facts.leaders.floor
    if facts.optimum:
        figures["optimum"] = fmean(facts.optimum.values())
    return ", ".join(f"{name} {figure:.3f}" for name, figure in figures.items())


def _table(facts: Facts) -> Table:
    found, serving = facts.leaders, facts.serving
    columns = [
        condition_label(facts.study.space.train.protocol),
        "best",
        facts.study.metric,
        "sd between masks",
        "seeds",
    ]
    columns += ["P(best)", BASELINE, "floor", "optimum", "served before"]
    rows = [[at, *_cells(facts, at, one)] for at, one in (found.best or found.baseline).items()]
    kept = [index for index in range(len(columns)) if index < 3 or any(row[index] != NONE for row in rows)]
    note = "± one standard deviation between training seeds; floor: the best constant answer"
    if facts.optimum:
        note += "; optimum: the best possible expected score, known because the data are synthetic"
    if any(one.probability_best is not None for one in found.best.values()):
        note += "; P(best): how often it leads when validation groups, masks and seeds are resampled"
    if serving and serving.before:
        note += f"; served before: {_before(serving)}"
    return Table(
        caption=f"Best by condition, validation {facts.study.metric}",
        columns=[columns[index] for index in kept],
        rows=[[row[index] for index in kept] for row in rows],
        note=note + ".",
        words=("best",),
    )


def _before(serving: Serving) -> str:
    """Which models they were, with what their figures are."""
    models = dict.fromkeys(f"v{one.version} is {one.trial} of {one.study}" for one in serving.before.values())
    return f"in the registry's {serving.name}, as its own study validated it: {', '.join(models)}"


def _cells(facts: Facts, at: str, one: Best) -> list[str]:
    baseline = facts.leaders.baseline.get(at)
    before = facts.serving.before.get(at) if facts.serving else None
    return [
        one.trial,
        _figure(one),
        number(facts.mask_sd.get(one.trial, {}).get(at)),
        str(one.seeds),
        number(one.probability_best, 2),
        _figure(baseline) if baseline else NONE,
        number(facts.leaders.floor),
        number(facts.optimum.get(at)),
        f"{number(before.value)} (v{before.version})" if before else NONE,
    ]


def _figure(one: Best) -> str:
    return spread(one.mean, one.sd if one.seeds > 1 else None)


def _robustness(facts: Facts) -> Chart:
    study = facts.study
    lines, what = _lines(facts)
    before = facts.serving.before if facts.serving else {}
    known = {at: one.value for at, one in before.items() if one.value is not None}
    beside = Beside(facts.leaders.floor, facts.optimum, known)
    return Chart(
        key="robustness",
        title="Robustness: how figures change as more goes missing",
        text=f"Validation {metric_label(study.metric)}, by condition; {what}",
        figure=robustness_figure(lines, beside, study.space.train.protocol, study.metric),
    )


def _lines(facts: Facts) -> tuple[list[Line], str]:
    """The refitted models of a finished study, else who leads its search."""
    study, found = facts.study, facts.leaders
    if study.result is not None:
        lines = [
            Line(
                one.trial,
                {at: figure.mean for at, figure in curve.items()},
                {at: figure.sd for at, figure in curve.items()},
                facts.mask_sd.get(one.trial, {}),
            )
            for one in study.result.models
            if (curve := one.over_seeds.get(study.metric))
        ]
        if lines:
            more = f" {_DRAWN} of {len(lines)} models are drawn." if len(lines) > _DRAWN else ""
            masks = ", bars between masks (second phase)" if any(line.mask_sd for line in lines) else ""
            kept = sorted(lines, key=lambda line: line.name.startswith(BASELINE))
            kept = kept[: _DRAWN - 1] + kept[-1:] if len(kept) > _DRAWN else kept
            return (
                kept,
                f"the refitted winners on fresh seeds, bands ± one standard deviation{masks}.{more}",
            )
    sets = {"best at each condition": found.best, BASELINE: found.baseline}
    lines = [Line(name, {at: one.mean for at, one in some.items()}, {}, {}) for name, some in sets.items() if some]
    return lines, "the best complete trial of each condition, one seed and one mask each, so without a band."


def subsets(facts: Facts) -> Iterator[Section]:
    """Which modalities are enough: a matrix, for the protocol that takes whole modalities away."""
    protocol, result = facts.study.space.train.protocol, facts.study.result
    if protocol.has_rates or result is None or not result.models:
        return
    curves = {one.trial: one.over_seeds.get(facts.study.metric, {}) for one in result.models}
    conditions = list(next(iter(curves.values())))
    names = sorted({name for at in conditions for name in at.split("+")} - {"none"})
    rows = [
        [at]
        + ["yes" if name in at.split("+") else "no" for name in names]
        + [spread(curve[at].mean, curve[at].sd) if at in curve else NONE for curve in curves.values()]
        for at in conditions
    ]
    yield Section(
        key="subsets",
        title="Which modalities are enough",
        tables=[
            Table(
                caption=f"Validation {facts.study.metric} by the modalities that are there",
                columns=["subset", *names, *curves],
                rows=rows,
                words=tuple(names),
                note="Refitted winners, mean ± one standard deviation between seeds.",
            )
        ],
    )


def what_next(facts: Facts) -> Iterator[Section]:
    found = advice(facts)
    lead = [] if found else ["No rule has anything to say."]
    yield Section(key="next", title="What to try next", lead=lead, items=found)
