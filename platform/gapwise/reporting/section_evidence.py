"""How far to trust the answer, what models say of themselves, what it cost, and where it came from."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from statistics import fmean, variance

from matplotlib.figure import Figure

import gapwise
from gapwise.evaluation.objective import reduce_curve
from gapwise.reporting.figures_result import (
    accuracy_figure,
    cost_figure,
    distance_figure,
    front_figure,
    noise_figure,
    reliability_figure,
    shares_figure,
)
from gapwise.reporting.page import Chart, Section, Table
from gapwise.reporting.study_facts import Facts
from gapwise.reporting.words import NONE, counted, duration, metric_label, spread
from gapwise.spec.fingerprint import fingerprint
from gapwise.spec.protocol import ProtocolSpec
from gapwise.tuning.account import epochs_saved
from gapwise.tuning.result import FrontMember

Curves = Mapping[str, Mapping[str, float]]


def front(facts: Facts) -> Iterator[Section]:
    """What cannot be had together, for a study of several objectives."""
    goals, found = facts.study.space.objectives, facts.leaders
    if not goals or not found.front:
        return
    pairs = list(combinations(goals.items(), 2))[:3]
    members = {"front": found.front, "late_fusion's own front": found.baseline_front}
    evidence = "mean over seeds, bars one standard deviation" if found.source == "second phase" else "one seed each"
    yield Section(
        key="front",
        title="Pareto front",
        lead=["Configurations that no other beats at one objective without losing at another."],
        tables=[
            Table(
                caption="The Pareto front",
                columns=["trial", *goals],
                rows=[[one.trial, *_goals(one)] for one in found.front],
                note="; ".join(f"{name}: {metric_label(one.metric)}, {one.reduce}" for name, one in goals.items())
                + ".",
            )
        ],
        charts=[
            Chart(
                key=f"front-{first[0]}-{second[0]}",
                title=f"{first[0]} against {second[0]}",
                text=f"Each mark a configuration of a Pareto front; {evidence}.",
                figure=front_figure(members, first, second),
            )
            for first, second in pairs
        ],
    )


def _goals(one: FrontMember) -> list[str]:
    return [spread(value.mean, value.sd if one.seeds > 1 else None) for value in one.objectives.values()]


def noise(facts: Facts) -> Iterator[Section]:
    """The spread between seeds of the second phase beside the differences between configurations."""
    by_configuration = seed_costs(facts)
    several = {name: costs for name, costs in by_configuration.items() if len(costs) > 1}
    if not several:
        return
    figure = noise_figure(by_configuration, facts.study.space.train.objective)
    yield Section(
        key="noise",
        title="Is it luck?",
        lead=[noise_sentence(several)],
        charts=[
            Chart(
                key="noise",
                title="Noise between seeds",
                text="Second phase: a mark is a training run with its own seed, a bar the mean of its configuration.",
                figure=figure,
            )
        ],
    )


def seed_costs(facts: Facts) -> dict[str, list[float]]:
    """{configuration: the objective of each seed, as a cost}, the best mean first."""
    objective, found = facts.study.space.train.objective, dict[str, list[float]]()
    for one in facts.study.of("seeds"):
        if one.outcome.eligible and objective.metric in one.outcome.metrics:
            key = f"{one.assignment.arm}-{one.assignment.source}"
            found.setdefault(key, []).append(reduce_curve(one.outcome.metrics[objective.metric], objective))
    return dict(sorted(found.items(), key=lambda item: fmean(item[1])))


def noise_sentence(costs: Mapping[str, list[float]]) -> str:
    """The lead of the first configuration in units of what a seed changes. `costs` has two seeds or more of each."""
    pooled = fmean(variance(some) for some in costs.values()) ** 0.5
    means = sorted(fmean(some) for some in costs.values())
    said = f"A new seed alone moves the objective by about {pooled:.4f} (one standard deviation, pooled)"
    if len(means) < 2:
        return f"{said}; there is no second configuration to compare with."
    gap = means[1] - means[0]
    verdict = "less than a seed's own noise" if gap < pooled else "more than a seed's own noise"
    return f"{said}; the best two configurations differ by {gap:.4f}, {verdict}."


_KINDS: tuple[tuple[str, str, str, Callable[[Curves, ProtocolSpec], Figure]], ...] = (
    ("dominant_share/", "who leads", "Share of validation samples that each modality dominates.", shares_figure),
    (
        "dominant_accuracy/",
        "does the right modality lead",
        "Share of samples whose dominant modality is the one that carries most, by each way of naming it; known as "
        "the data are synthetic.",
        accuracy_figure,
    ),
    (
        "rank_correlation/",
        "calibration of reliability",
        "Rank correlation of a modality's reliability with what it truly carries; known for synthetic data.",
        reliability_figure,
    ),
    (
        "distance/",
        "incomplete against complete",
        "How far an incomplete sample's representation is from its complete one.",
        distance_figure,
    ),
)


def inside(facts: Facts) -> Iterator[Section]:
    """What models say of themselves, as far as they say anything."""
    result = facts.study.result
    charts = (
        []
        if result is None
        else [chart for one in result.models for chart in _of_model(facts, one.trial, one.diagnostics)]
    )
    if charts:
        yield Section(
            key="inside",
            title="Inside the models",
            lead=["The shipped seed of each refitted winner on validation. Nothing is selected by these figures."],
            charts=charts,
        )


def _of_model(facts: Facts, trial: str, found: Curves) -> Iterator[Chart]:
    for prefix, title, text, draw in _KINDS:
        curves = {
            name.removeprefix(prefix): curve for name, curve in found.items() if name.startswith(prefix) and curve
        }
        if prefix == "dominant_share/" and found.get("dominant_none"):
            curves["nobody"] = found["dominant_none"]
        if curves:
            yield Chart(
                key=f"{prefix.strip('/')}-{trial}",
                title=f"{trial}: {title}",
                text=text,
                figure=draw(curves, facts.study.space.train.protocol),
            )


def seconds_by_state(facts: Facts) -> dict[str, dict[str, float]]:
    """{phase: {state: device-seconds inside training loops}}, of runs that were recorded."""
    devices = facts.study.space.workers_per_trial
    found: dict[str, dict[str, float]] = {}
    for phase, name in (("search", "search"), ("seeds", "second phase")):
        for one in facts.study.trials:
            if one.assignment.phase == phase and one.outcome.train_seconds:
                by_state = found.setdefault(name, {})
                by_state[one.outcome.state] = by_state.get(one.outcome.state, 0.0) + (
                    one.outcome.train_seconds * devices
                )
    return found


def cost(facts: Facts) -> Iterator[Section]:
    seconds, result = seconds_by_state(facts), facts.study.result
    if not seconds:
        return
    total = sum(sum(one.values()) for one in seconds.values())
    lead = [f"{duration(total)} on devices (inside training loops, the refit not counted)."]
    if result is not None:
        lead.append(
            f"{duration(result.wall_seconds)} from start to end, {duration(result.search_seconds)} of it search."
        )
    lead.append(f"Pruning saved {counted(epochs_saved(facts.study), 'epoch')}.")
    if result is not None and result.runs_saved:
        lead.append(
            f"Dropping what was worse beyond doubt saved {counted(result.runs_saved, 'run')} of the second phase."
        )
    states = list(dict.fromkeys(state for one in seconds.values() for state in one))
    rows = [
        [phase, *(f"{one[state]:.1f}" if state in one else NONE for state in states)] for phase, one in seconds.items()
    ]
    yield Section(
        key="cost",
        title="What it cost",
        lead=lead,
        tables=[Table(caption="Device-seconds by phase and ending", columns=["phase", *states], rows=rows)],
        charts=[
            Chart(
                key="cost",
                title="Training time",
                text="Device-seconds inside training loops, by phase and by how runs ended.",
                figure=cost_figure(seconds),
            )
        ],
    )


def lineage(facts: Facts) -> Iterator[Section]:
    """What this rests on, by fingerprint."""
    study, result = facts.study, facts.study.result
    rows = [
        ["study", study.name],
        ["spec fingerprint", fingerprint(study.space)],
        ["data", study.dataset or NONE],
        ["data fingerprint", study.data_fingerprint],
    ]
    if result is not None:
        rows += [[f"{name} split", print_] for name, print_ in result.fingerprints.items() if name != "dataset"]
        rows.append(["MLflow run", result.parent_run_id])
    rows += [
        ["reads of the test split", "not known" if facts.test_reads is None else str(facts.test_reads)],
        ["gapwise", f"{gapwise.__version__} (wrote this report)"],
    ]
    if study.command:
        rows.append(["command", " ".join(["gapwise tune", *study.command])])
    if facts.serving is not None and facts.serving.here:
        here = "; ".join(f"{at}: {model}" for at, model in facts.serving.here.items())
        rows.append([f"champion in {facts.serving.name}", here])
    table = Table(caption="Where it came from", columns=["what", "value"], rows=rows, words=("value",))
    lead = [f"Not at hand when this was written: {'; '.join(facts.away)}."] if facts.away else []
    yield Section(key="lineage", title="Lineage", lead=lead, tables=[table])
