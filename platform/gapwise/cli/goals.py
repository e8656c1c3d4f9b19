"""What a study goes by beside its curve, for people: several objectives and their front, constraints, warm starts."""

from collections.abc import Mapping, Sequence
from typing import Any

from gapwise.cli.output import figure, print_table
from gapwise.spec.search import BASELINE
from gapwise.spec.train import ObjectiveSpec
from gapwise.tuning.result import FrontMember


def show_front(
    study: str,
    objectives: Mapping[str, ObjectiveSpec],
    front: Sequence[FrontMember],
    baseline_front: Sequence[FrontMember],
) -> None:
    """Nothing where there is a single objective. The baseline's own front stands below, on or off the common one."""
    if not objectives:
        return
    named = [one.trial for one in front]
    below = [one for one in baseline_front if one.trial not in named]
    rows = [[one.trial, "yes", *_figures(one)] for one in front] + [[one.trial, "no", *_figures(one)] for one in below]
    columns = ["trial", "on the front", *(objective_words(name, one.model_dump()) for name, one in objectives.items())]
    seeds = f"mean ± sd over {front[0].seeds} seeds" if front and front[0].seeds > 1 else "one seed and one mask each"
    caption = f"validation, {seeds}; nothing that ran is better at one objective without being worse at another"
    if below:
        caption += f"; {BASELINE}'s own front stands beside"
    print_table(f"study {study}: Pareto front", columns, rows, caption=caption, words=("trial", "on the front"))


def objective_words(name: str, objective: Mapping[str, Any]) -> str:
    """An objective in a few words."""
    what = f"r = {objective['rate']:g}" if objective["rate"] is not None else objective["reduce"]
    return f"{name}: {objective['metric']}, {what}"


def goal_lines(body: Mapping[str, Any]) -> list[str]:
    """Objectives, constraints and warm starts of a plan's or a study's body, a line each, where there are any."""
    return [*_objectives(body), *_constraints(body["constraints"]), *_warm_start(body["warm_start"])]


def _objectives(body: Mapping[str, Any]) -> list[str]:
    if not body["objectives"]:
        return []
    listed = "; ".join(objective_words(name, one) for name, one in body["objectives"].items())
    return [
        f"objectives: {listed}; " + (f"pruned on {body['pruned_on']}" if body["pruned_on"] else "nothing is pruned")
    ]


def _constraints(body: Mapping[str, Any]) -> list[str]:
    if not body["limits"]:
        return []
    limits = ", ".join(f"{name} at most {limit:,.10g}" for name, limit in body["limits"].items())
    lines = [f"constraints: {limits}; what breaks them is not trained"]
    for arm, found in (body.get("defaults") or {}).items():
        lines.append(f"  default of {arm}: " + ", ".join(f"{name} {value:,.10g}" for name, value in found.items()))
    return lines


def _warm_start(body: Mapping[str, Any] | None) -> list[str]:
    if body is None:
        return []
    if body["sources"] is None:
        return [f"warm start ({body['use']}) from {', '.join(body['studies'])}; name a dataset to see what fits"]
    return [_source(body["use"], one) for one in body["sources"]]


def _source(use: str, one: Mapping[str, Any]) -> str:
    taken = ", ".join(f"{arm} {count}" for arm, count in one["taken"].items())
    left = sum(one["left_out"].values())
    data = "the same data" if one["same_data"] else f"other data ({one['dataset']}, {one['data_fingerprint'][:12]})"
    return f"warm start ({use}) from {one['study']}: {taken}; {left} left out; {data}"


def _figures(one: FrontMember) -> list[str]:
    return [figure(value.mean, value.sd) if one.seeds > 1 else figure(value.mean) for value in one.objectives.values()]
