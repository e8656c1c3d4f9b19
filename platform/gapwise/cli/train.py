"""`gapwise train`: one training run through Ray Train."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapwise.cli import completion
from gapwise.cli.options import AddressOption, DataOption, SetOption, needed, worker_count
from gapwise.cli.output import JsonOption, figure, heading, print_json, print_table, say, stdout
from gapwise.cli.train_view import TrainView
from gapwise.spec.loader import load_spec
from gapwise.spec.train import TrainSpec

if TYPE_CHECKING:
    from gapwise.verbs.train import TrainBegun

EXAMPLES = """
Examples:

    gapwise train search_spaces/train_prlf.yaml --data data/mosi

    gapwise train search_spaces/train_prlf.yaml --data data/mosi --workers 2 --set model.steps=2 --set epochs=5

    gapwise train search_spaces/train_prlf.yaml --data data/mosi --workers 1:4 --address auto

    gapwise train search_spaces/train_prlf.yaml --data data/mosi --resume RUN_ID
"""


def train(
    spec_file: Annotated[
        Path, typer.Argument(metavar="SPEC.yaml", help="A training spec; see search_spaces/README.md.")
    ],
    data: DataOption = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Ray Train workers, which share each global batch; of MIN:MAX as many as there is room for.",
        ),
    ] = "1",
    settings: SetOption = [],  # noqa: B006
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN_ID", autocompletion=completion.runs, help="Continue a run from its last snapshot."),
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one model; validation chooses the epoch, and the run is tracked in MLflow."""
    spec = load_spec(TrainSpec, spec_file, tuple(settings))
    crew = worker_count(workers)
    folder = needed(data)

    from gapwise.training.job import Diverged
    from gapwise.verbs.train import TrainWish
    from gapwise.verbs.train import train as act

    wish = TrainWish(spec=spec, data=folder, workers=crew, resume=resume, address=address)
    with ExitStack() as shown:

        def begun(run: "TrainBegun") -> Callable[[dict[str, Any]], None]:
            say(f"run {run.run_id}; if it stops, continue it with --resume {run.run_id}")
            view = TrainView(f"{run.spec.model.name} on {run.dataset}", run.spec, run.earlier)
            return shown.enter_context(view).note

        try:
            done = act(wish, begun)
        except Diverged as error:
            shown.close()
            say(f"the run diverged: {error}")
            raise typer.Exit(1) from error
    body = {
        "run_id": done.run_id,
        "checkpoint": str(done.folder),
        "epochs": done.model.trained["epochs"],
        "protocol": done.model.spec.protocol.name,
        "metrics": {"valid": done.model.validation},
        "wall_seconds": done.wall_seconds,
        "samples_per_second": done.samples_per_second,
    }
    print_json(body) if as_json else _show(body)


def _show(body: dict[str, Any]) -> None:
    curves = body["metrics"]["valid"]
    names = [name for name in ("mae", "acc2_non0", "corr", "accuracy", "macro_recall") if name in curves]
    conditions = list(curves[names[0]])
    rows = [[condition, *(figure(curves[name][condition]) for name in names)] for condition in conditions]
    print_table("validation, kept epoch, one mask seed", [heading(body["protocol"]), *names], rows)
    stdout.print(f"run {body['run_id']}, {body['epochs']} epochs, {body['wall_seconds']:.1f} s")
    stdout.print(f"next: gapwise evaluate {body['run_id']} --data DIR", soft_wrap=True)
