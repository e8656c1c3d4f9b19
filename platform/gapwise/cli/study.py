"""`gapwise study`: what studies there are and what they hold; a running one is read, never disturbed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from gapwise.cli import completion
from gapwise.cli.goals import goal_lines, show_front
from gapwise.cli.output import JsonOption, figure, heading, print_json, print_table, stdout
from gapwise.errors import SpecError, StudyError, nearest
from gapwise.spec.home import home
from gapwise.spec.train import ObjectiveSpec

app = typer.Typer(help="List, read, export and delete studies.", no_args_is_help=True)
StudyArgument = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=completion.studies, help="A study; see `gapwise study list`.")
]
_SORTS = ("trial", "objective", "best_epoch", "epochs", "seconds", "state")
_STATES, _BROKEN = ("complete", "pruned", "failed", "running"), "infeasible"


@app.command("list", epilog="Example:  `gapwise study list`")
def list_(as_json: JsonOption = False) -> None:
    """Every study: running, resumable or finished, and how far."""
    from gapwise.tuning.account import line
    from gapwise.tuning.reading import Study, read_studies

    found = read_studies(home().studies)
    lines = [line(one) for one in found.values() if isinstance(one, Study)]
    unreadable = {name: str(one) for name, one in found.items() if not isinstance(one, Study)}
    if as_json:
        print_json({"studies": lines, "unreadable": unreadable})
        return
    states = _present(one["trials"] for one in lines)
    rows = [
        [
            one["study"],
            one["dataset"] or one["data_fingerprint"][:12],
            ", ".join(one["arms"]),
            one["state"],
            *_counts(one["trials"], states),
            *_best_cells(one["best"]),
            one["changed"][:16].replace("T", " "),
        ]
        for one in lines
    ]
    columns = ["study", "dataset", "models", "state", *states, "best objective", "trial", "last change"]
    print_table(f"studies in {home().studies}", columns, rows, words=("dataset", "models", "state", "trial"))
    for reason in unreadable.values():
        stdout.print(f"not readable: {reason}", soft_wrap=True, markup=False)


def _present(counted: Iterable[dict[str, int]]) -> list[str]:
    """States that a table has columns for: few studies have infeasible trials."""
    return [*_STATES, *([_BROKEN] if any(one.get(_BROKEN) for one in counted) else [])]


def _counts(counted: dict[str, int], states: list[str]) -> list[str]:
    return [str(counted.get(state) or "-") for state in states]


def _best_cells(best: dict[str, Any] | None) -> list[str]:
    return [f"{best['objective']:.4f}", best["trial"]] if best else ["-", "-"]


@app.command(epilog="Example:  `gapwise study show prlf-mosi`")
def show(name: StudyArgument, as_json: JsonOption = False) -> None:
    """One study: question, space, data, counts, second phase, leaders, and how to go on."""
    from gapwise.tuning.account import whole
    from gapwise.tuning.leaders import leaders
    from gapwise.tuning.reading import read_study

    study = read_study(home().studies, name)
    body = whole(study)
    first = leaders(study)
    if as_json:
        print_json(body | {"leaders": _leaders_body(first)})
        return
    _show_head(body)
    _show_counts(body)
    for arm, parameters in body["space"].items():
        listed = [[path, one["role"], one["values"], str(one["first"])] for path, one in parameters.items()]
        print_table(arm, ["parameter", "role", "values", "tried first"], listed, words=("role", "values"))
    _show_leaders(body, first)
    if body["resume"]:
        stdout.print(f"continue with: {body['resume']}", soft_wrap=True, markup=False)


def _show_head(body: dict[str, Any]) -> None:
    by = f", {body['driver']}" if body["driver"] else ""
    where = f", in the {body['stage']}" if body["stage"] != "finished" else ""
    stdout.print(f"{body['study']}: {body['state']}{by}{where}", style="bold", soft_wrap=True, markup=False)
    sharing = body["sharing"]
    if sharing:
        slots = f"{sharing['held']} of {sharing['wanted']} slots, priority {sharing['priority']}"
        stdout.print("; ".join(filter(None, [slots, sharing["waits"]])), soft_wrap=True, markup=False)
    stdout.print(body["question"], soft_wrap=True, markup=False)
    data = " ".join(part for part in (body["dataset"], body["data"]) if part)
    stdout.print(f"data {data or 'of'} fingerprint {body['data_fingerprint'][:12]}", soft_wrap=True, markup=False)
    for line in goal_lines(body):
        stdout.print(line, soft_wrap=True, markup=False)


def _show_counts(body: dict[str, Any]) -> None:
    states = _present(body["arms"].values())
    rows = [[arm, *_counts(counted, states)] for arm, counted in body["arms"].items()]
    saved = f"{body['epochs_saved']} epochs saved by pruning"
    print_table("search trials", ["model", *states], rows, caption=saved)
    second = body["second_phase"]
    counted = [f"{count} {state}" for state, count in {**second["runs"], "waiting": second["waiting"]}.items() if count]
    stdout.print(f"second phase: {', '.join(counted) or 'not begun'}")
    if body["state"] == "resumable" and body["trials"]["running"] + second["runs"]["running"]:
        stdout.print("no driver runs: what is running above was left behind and continues from its last checkpoint")


@app.command(
    epilog="Examples:  `gapwise study trials prlf-mosi --sort objective`, "
    "`gapwise study trials prlf-mosi --arm prlf --state failed`"
)
def trials(
    name: StudyArgument,
    sort: Annotated[
        str,
        typer.Option(
            autocompletion=completion.one_of(_SORTS), help="trial, objective, best_epoch, epochs, seconds or state."
        ),
    ] = "trial",
    arm: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.one_of((*_STATES, _BROKEN)),
            help="Only complete, pruned, failed, running or infeasible ones.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Every trial of both phases: state, objective, epochs, time, values, and why it failed."""
    from gapwise.tuning.account import trial_rows
    from gapwise.tuning.reading import read_study

    study = read_study(home().studies, name)
    _one_of(arm, study.space.arm_names(), "--arm")
    _one_of(state, (*_STATES, _BROKEN), "--state")
    rows = [row for row in trial_rows(study) if arm in (None, row["arm"]) and state in (None, row["state"])]
    if sort != "trial":
        _one_of(sort, _SORTS, "--sort")
        rows.sort(key=lambda row: (row[sort] is None, row[sort]))
    if as_json:
        print_json({"study": name, "trials": rows})
        return
    limits = list(study.space.constraints.limits())
    listed = [
        [
            row["trial"],
            row["state"],
            "-" if row["objective"] is None else f"{row['objective']:.4f}",
            *(_number(row["objectives"].get(name), ".4f") for name in study.space.objectives),
            *(_number(row["constraints"].get(name), ",.4g") for name in limits),
            str(row["best_epoch"] or "-"),
            str(row["epochs"] or "-"),
            "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
            _memory(row) + (row["reason"] or _values(row["values"])),
        ]
        for row in rows
    ]
    last = "values, or why it has no figures"
    columns = ["trial", "state", "objective", *study.space.objectives, *limits, "best epoch", "epochs", "seconds", last]
    caption = (
        "objective: lower is better; of a running trial its best so far. -seedN: the second phase, mean over masks"
    )
    print_table(f"trials of {name}", columns, listed, caption=caption, words=("state", last))


def _memory(row: dict[str, Any]) -> str:
    if row["micro_batch"] is None:
        return ""
    changed = ", objective changed: left out of selection" if row["objective_changed"] else ""
    return f"(micro-batch {row['micro_batch']}{changed}) "


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _one_of(given: str | None, allowed: list[str] | tuple[str, ...], where: str) -> None:
    if given is not None and given not in allowed:
        raise SpecError(f"unknown {given!r}{nearest(given, allowed)}", where=where, allowed=allowed)


def _values(values: dict[str, Any]) -> str:
    short = {path.removeprefix("model.").removeprefix("optimiser."): value for path, value in values.items()}
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in short.items()
    )


@app.command(epilog="Example:  `gapwise study best prlf-mosi`")
def best(name: StudyArgument, as_json: JsonOption = False) -> None:
    """Who leads at each missing rate, with late_fusion and the floor beside."""
    from gapwise.tuning.account import whole
    from gapwise.tuning.leaders import leaders
    from gapwise.tuning.reading import read_study

    study = read_study(home().studies, name)
    first = leaders(study)
    if as_json:
        print_json({"study": name, "state": study.state, **_leaders_body(first)})
    else:
        _show_leaders(whole(study), first)


def _leaders_body(first: Any) -> dict[str, Any]:
    return {
        "source": first.source,
        "best": {condition: one.model_dump() for condition, one in first.best.items()},
        "baseline": {condition: one.model_dump() for condition, one in first.baseline.items()},
        "floor": first.floor,
        "front": [one.model_dump() for one in first.front],
        "baseline_front": [one.model_dump() for one in first.baseline_front],
    }


_SOURCES = {
    "second phase": "from the second phase, mean ± sd over seeds; the winners were chosen on these figures",
    "search": "from the search's complete trials, one seed and one mask each: the second phase may say otherwise",
}


def _show_leaders(body: dict[str, Any], first: Any) -> None:
    metric = body["objective"]["metric"]
    floor = figure(first.floor) if first.floor is not None else "-"
    rows = [
        [condition, one.trial, _figure(one), _figure(first.baseline.get(condition)), floor]
        for condition, one in (first.best or first.baseline).items()
    ]
    if not rows:
        stdout.print("no trial is complete yet")
        return
    columns = [heading(body["protocol"]["name"]), "best", metric, "late_fusion", "floor"]
    print_table(f"{body['study']}: best on validation", columns, rows, caption=_SOURCES[first.source])
    objectives = {name: ObjectiveSpec.model_validate(one) for name, one in body["objectives"].items()}
    show_front(body["study"], objectives, first.front, first.baseline_front)


def _figure(one: Any) -> str:
    if one is None:
        return "-"
    return figure(one.mean, one.sd) if one.seeds > 1 else figure(one.mean)


@app.command(
    epilog="Examples:  `gapwise study export prlf-mosi --out trials.csv`, "
    "`gapwise study export prlf-mosi --out study.json --summary`"
)
def export(
    name: StudyArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .json or .csv file; one that exists is replaced.")],
    summary: Annotated[
        bool, typer.Option("--summary", help="A short .json, a line a trial: good for committing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a study's trials, curves and result to a file."""
    from gapwise.tuning.export import export as write
    from gapwise.tuning.reading import read_study

    study = read_study(home().studies, name)
    write(study, out, summary=summary)
    if as_json:
        print_json({"study": name, "file": str(out), "trials": len(study.trials)})
    else:
        stdout.print(f"{len(study.trials)} trials of {name} written to {out}", soft_wrap=True, markup=False)


@app.command(epilog="Example:  `gapwise study delete prlf-mosi`")
def delete(
    name: StudyArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where a registered model came from it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a study from disk for good; its MLflow runs and registered versions stay."""
    from gapwise.promotion.in_use import in_use
    from gapwise.tracking.client import connect
    from gapwise.tuning.reading import study_folder
    from gapwise.tuning.removal import delete_study

    folder = study_folder(home().studies, name)
    served = [f"{one.name}@{one.alias}" for one in in_use(connect(home())) if one.study == name]
    if served and not force:
        raise StudyError(f"study {name!r} made {', '.join(served)}; --force deletes it all the same", where=str(folder))
    if not yes:
        typer.confirm(f"delete {folder} for good?", abort=True, err=True)
    delete_study(home(), name)
    if as_json:
        print_json({"study": name, "deleted": True, "served": served})
    else:
        stdout.print(f"deleted {name}", soft_wrap=True, markup=False)
