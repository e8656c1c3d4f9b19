"""`gapwise tune`: a study, from a search space to refitted winners by missing rate."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gapwise.cli import completion
from gapwise.cli.goals import show_front
from gapwise.cli.options import AddressOption, DataOption, SetOption, WarmStartOption, needed, search_settings, seconds
from gapwise.cli.output import JsonOption, figure, heading, print_json, print_table, say, stdout
from gapwise.distributed.sharing import HIGHEST, LOWEST
from gapwise.errors import SpecError
from gapwise.spec.loader import load_spec
from gapwise.spec.search import SearchSpec
from gapwise.tuning.result import StudyResult

EXAMPLES = """
Examples:

    gapwise tune search_spaces/prlf.yaml --data data/mosi --trials 12

    gapwise tune search_spaces/prlf.yaml --data data/mosi --study night --time-budget 2h --concurrency 2

    gapwise tune search_spaces/prlf.yaml --data data/mosi --study night --trials 40 --resume

    gapwise tune search_spaces/prlf.yaml --data data/mosi --study night --resume --retry-failed

    gapwise tune search_spaces/prlf.yaml --data data/mosi --study morning --warm-start night

    gapwise tune search_spaces/prlf.yaml --data data/mosi --address auto --priority 5 --concurrency 4
"""


def tune(
    space_file: Annotated[
        Path, typer.Argument(metavar="SPACE.yaml", help="A search space; see search_spaces/README.md.")
    ],
    data: DataOption = None,
    trials: Annotated[int | None, typer.Option(help="Trials of each model; by default the file's.", min=1)] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="30m", help="Start no further search trial after this long, in this session.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Trials at once; by default as many as fit.", min=1)] = None,
    priority: Annotated[
        int,
        typer.Option(
            help="Among studies on one cluster (--address): a higher one's trials start first; equals share evenly.",
            min=LOWEST,
            max=HIGHEST,
        ),
    ] = 0,
    study: Annotated[
        str | None, typer.Option(autocompletion=completion.studies, help="Name; by default SPACE-DATASET.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study of this name.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run trials that failed once more.")
    ] = False,
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="GAPWISE_STORAGE",
            help="Where trials are recorded: journal, sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
        ),
    ] = "journal",
    warm_start: WarmStartOption = [],  # noqa: B006
    settings: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    with_report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Put the report and its figures into MLflow when the study is done."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Search every model of the space and the baseline, repeat the best over seeds, refit the winners."""
    began = time.perf_counter()
    space = load_spec(SearchSpec, space_file, search_settings(settings, trials, warm_start))
    folder = needed(data)
    budget = None if time_budget is None else seconds(time_budget)
    _refuse_retrying_nothing(retry_failed, resume)

    from gapwise.cli.progress import StudyDisplay
    from gapwise.data.manifest import read_manifest
    from gapwise.tuning.storage import checked_storage
    from gapwise.verbs.tune import Audience, Wish, add_report, conduct

    name = f"{space_file.stem}-{read_manifest(folder).name}" if study is None else study
    recorded = checked_storage(storage)
    options: dict[str, Sequence[object]] = {
        "--data": [folder],
        "--study": [name],
        "--trials": [trials] if trials else [],
        "--storage": [recorded] if recorded != "journal" else [],
        "--warm-start": warm_start,
        "--set": settings,
    }
    words = [str(word) for option, values in options.items() for value in values for word in (option, value)]
    ended = conduct(
        Wish(
            name=name,
            space=space,
            data=folder,
            command=(str(space_file), *words),
            concurrency=concurrency,
            storage=recorded,
            address=address,
            priority=priority,
            began=began,
            search_budget_seconds=budget,
            resume=resume,
            retry_failed=retry_failed,
        ),
        Audience(say, StudyDisplay),
    )
    print_json(_body(ended.result)) if as_json else _show(ended.result)
    if with_report:
        add_report(ended, say)


def _refuse_retrying_nothing(retry_failed: bool, resume: bool) -> None:
    if retry_failed and not resume:
        raise SpecError("there is nothing to retry in a new study", where="--retry-failed", allowed="with --resume")


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
        "objectives": {name: one.model_dump(mode="json") for name, one in result.objectives.items()},
        "front": [one.model_dump() for one in result.front],
        "baseline_front": [one.model_dump() for one in result.baseline_front],
        "dropped": result.dropped,
        "runs_saved": result.runs_saved,
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
            "-" if best.probability_best is None else f"{best.probability_best:.2f}",
            figure(result.baseline[rate].mean, result.baseline[rate].sd) if rate in result.baseline else "-",
            figure(result.floor[metric]),
        ]
        for rate, best in winners.items()
    ]
    seeds = next(iter(winners.values())).seeds
    caption = (
        f"validation {metric}, mean ± sd over {seeds} seeds; the winners were chosen on these figures; "
        "P(best): how often the winner's mean leads all others' when groups, masks and seeds are resampled"
    )
    print_table(
        f"study {result.study}: best by missing rate",
        [heading(result.protocol.name), "winner", metric, "P(best)", "late_fusion", "floor"],
        rows,
        caption=caption,
    )
    show_front(result.study, result.objectives, result.front, result.baseline_front)
    counted = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    stdout.print(f"{counted}; {result.wall_seconds:.0f} s in all, {result.search_seconds:.0f} s of search")
    if result.dropped:
        names = ", ".join(sorted(result.dropped))
        stdout.print(f"dropped as worse beyond doubt: {names}; runs not started: {result.runs_saved}", soft_wrap=True)
    if result.protocol.name == "modalities":
        stdout.print("subsets of modalities have no champions; promote a study on protocol frames")
    else:
        stdout.print(f"next: gapwise promote {result.study} --name {result.dataset}", soft_wrap=True)
