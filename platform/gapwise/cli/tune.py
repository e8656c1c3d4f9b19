"""`gapwise tune`: a study, from a search space to refitted winners by missing rate."""

import time
from pathlib import Path
from typing import Annotated

import typer

from gapwise.cli.options import AddressOption, DataOption, SetOption, needed, seconds
from gapwise.cli.output import JsonOption, figure, heading, print_json, print_table, stderr, stdout
from gapwise.errors import SpecError
from gapwise.spec.home import home
from gapwise.spec.loader import load_spec
from gapwise.spec.search import SearchSpec
from gapwise.tuning.result import StudyResult

EXAMPLES = """
Examples:

    gapwise tune search_spaces/prlf.yaml --data data/mosi --trials 12

    gapwise tune search_spaces/prlf.yaml --data data/mosi --study night --time-budget 2h --concurrency 2

    gapwise tune search_spaces/prlf.yaml --data data/mosi --study night --trials 40 --resume
"""


def tune(
    space_file: Annotated[
        Path, typer.Argument(metavar="SPACE.yaml", help="A search space; see search_spaces/README.md.")
    ],
    data: DataOption = None,
    trials: Annotated[int | None, typer.Option(help="Trials of each model; by default the file's.", min=1)] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="30m", help="Start no further search trial after this long.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Trials at once; by default one a device.", min=1)] = None,
    study: Annotated[str | None, typer.Option(help="Name; by default SPACE-DATASET.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study of this name.")] = False,
    settings: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search every model of the space and the baseline, repeat the best over seeds, refit the winners."""
    began = time.perf_counter()
    chosen = (*settings, f"trials={trials}") if trials else tuple(settings)
    space = load_spec(SearchSpec, space_file, chosen)
    folder = needed(data)
    budget = seconds(time_budget) if time_budget is not None else None

    from gapwise.cli.progress import StudyDisplay
    from gapwise.data.store import open_dataset
    from gapwise.distributed.cluster import connected
    from gapwise.distributed.lock import DriverLock
    from gapwise.reporting.curves import log_curves
    from gapwise.tracking.client import connect
    from gapwise.tracking.study_run import StudyRun
    from gapwise.tuning.executor import default_concurrency
    from gapwise.tuning.logbook import Logbook
    from gapwise.tuning.observer import Watcher
    from gapwise.tuning.study import StudyPlan, check_study, open_study, run_study, settled_space

    dataset = open_dataset(folder, verify=True)
    name = f"{space_file.stem}-{dataset.manifest.name}" if study is None else study
    space = settled_space(space, dataset)
    place = home().studies / name
    check_study(place, name, space, dataset, resume=resume)
    tracking = connect(home())
    with connected(address) as found:
        at_once = concurrency or default_concurrency(space.executor, space.workers_per_trial, found)
        if at_once * space.workers_per_trial > max(found.cpus, found.gpus):
            raise SpecError(
                f"{at_once} trials at once do not fit", where="--concurrency", allowed=f"at most {found.cpus}"
            )
        # All that can be refused has been: from here on the study exists.
        open_study(place, name, space, dataset, resume=resume)
        stderr.print(f"study {name}: {space.question}", soft_wrap=True, markup=False)
        plan = StudyPlan(
            name=name,
            space=space,
            data=folder,
            folder=place,
            concurrency=at_once,
            began=began,
            search_budget_seconds=budget,
        )
        held = DriverLock(place)
        begun = StudyRun.begin
        with held, begun(tracking, home(), name, space, dataset, resume=resume) as run, StudyDisplay(plan) as display:
            watchers: list[Watcher] = [display, Logbook(run.trials, space.train.objective.metric)]
            result = run_study(plan, display, watchers, run.run_id)
            run.log_result(result.best, result.baseline)
            run.log_diagnostics({model.trial: model.diagnostics for model in result.models})
            log_curves(tracking, run.run_id, result)
    print_json(_body(result)) if as_json else _show(result)


def _body(result: StudyResult) -> dict[str, object]:
    return {
        "study": result.study,
        "data_fingerprint": result.fingerprints["dataset"],
        "trials": result.trials,
        "wall_seconds": result.wall_seconds,
        "search_seconds": result.search_seconds,
        "train_seconds": result.train_seconds,
        "best": {rate: best.model_dump() for rate, best in result.best.items()},
        "baseline": {rate: best.model_dump() for rate, best in result.baseline.items()},
        "floor": result.floor,
        "parent_run_id": result.parent_run_id,
    }


def _show(result: StudyResult) -> None:
    metric = result.objective.metric
    winners = result.best or result.baseline  # a study of the baseline alone has no other
    rows = [
        [
            rate,
            best.trial,
            figure(best.mean, best.sd),
            figure(result.baseline[rate].mean, result.baseline[rate].sd) if rate in result.baseline else "-",
            figure(result.floor[metric]),
        ]
        for rate, best in winners.items()
    ]
    seeds = next(iter(winners.values())).seeds
    caption = f"validation {metric}, mean ± sd over {seeds} seeds; the winners were chosen on these figures"
    print_table(
        f"study {result.study}: best by missing rate",
        [heading(result.protocol.name), "winner", metric, "late_fusion", "floor"],
        rows,
        caption=caption,
    )
    counted = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    stdout.print(f"{counted}; {result.wall_seconds:.0f} s in all, {result.search_seconds:.0f} s of search")
    if result.protocol.name == "modalities":
        stdout.print("subsets of modalities have no champions; promote a study on protocol frames")
    else:
        stdout.print(f"next: gapwise promote {result.study} --name {result.dataset}", soft_wrap=True)
