"""`gapwise train`: one training run through Ray Train."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapwise.cli import completion
from gapwise.cli.options import AddressOption, DataOption, SetOption, needed, worker_count
from gapwise.cli.output import JsonOption, figure, heading, print_json, print_table, say, stdout
from gapwise.cli.train_view import TrainView
from gapwise.errors import SpecError
from gapwise.spec.home import home
from gapwise.spec.loader import load_spec
from gapwise.spec.train import TrainSpec

if TYPE_CHECKING:
    from gapwise.distributed.placement import Resources

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

    from gapwise.data.store import open_dataset
    from gapwise.distributed.cluster import connected
    from gapwise.distributed.launch import least, most
    from gapwise.distributed.lock import DriverLock
    from gapwise.distributed.progress import told
    from gapwise.distributed.train import MODEL, PROGRESS, check_train, train_run
    from gapwise.evaluation.objective import settled
    from gapwise.tracking.client import connect
    from gapwise.tracking.train_run import TrainRun
    from gapwise.training.job import Diverged

    dataset = open_dataset(folder, verify=True)
    spec = settled(spec, dataset.manifest.shape(), dataset.valid.labels)
    started = time.perf_counter()
    check_train(spec, dataset, workers=most(crew), resume=home().runs / resume if resume else None)
    tracking = connect(home())
    with connected(address) as found, ExitStack() as held:
        _refuse(found, least(crew), folder)
        if resume:
            held.enter_context(DriverLock(home().runs / resume))
        # All that can be refused has been: from here on the run exists.
        run = held.enter_context(TrainRun.begin(tracking, home(), spec, dataset, resume=resume))
        place = home().runs / run.run_id
        if not resume:
            held.enter_context(DriverLock(place))
        say(f"run {run.run_id}; if it stops, continue it with --resume {run.run_id}")
        view = TrainView(f"{spec.model.name} on {dataset.manifest.name}", spec, told(place / PROGRESS))
        try:
            with view:
                model = train_run(spec, folder, place, workers=crew, each_epoch=_in_turn(run.log_epoch, view.note))
        except Diverged as error:
            say(f"the run diverged: {error}")
            raise typer.Exit(1) from error
        run.log_model(model, place / MODEL)
    body = {
        "run_id": run.run_id,
        "checkpoint": str(place / MODEL),
        "epochs": model.trained["epochs"],
        "protocol": spec.protocol.name,
        "metrics": {"valid": model.validation},
        "wall_seconds": time.perf_counter() - started,
        "samples_per_second": view.samples_per_second,
    }
    print_json(body) if as_json else _show(body)


def _in_turn(*listeners: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def each(epoch: dict[str, Any]) -> None:
        for listener in listeners:
            listener(epoch)

    return each


def _refuse(found: "Resources", workers: int, data: Path) -> None:
    """What this cluster cannot do."""
    from gapwise.distributed.shared import refuse_unshared

    if workers > max(found.cpus, found.gpus):
        raise SpecError(f"{workers} workers do not fit", where="--workers", allowed=f"at most {found.cpus} here")
    refuse_unshared(home().root, [data])


def _show(body: dict[str, Any]) -> None:
    curves = body["metrics"]["valid"]
    names = [name for name in ("mae", "acc2_non0", "corr", "accuracy", "macro_recall") if name in curves]
    conditions = list(curves[names[0]])
    rows = [[condition, *(figure(curves[name][condition]) for name in names)] for condition in conditions]
    print_table("validation, kept epoch, one mask seed", [heading(body["protocol"]), *names], rows)
    stdout.print(f"run {body['run_id']}, {body['epochs']} epochs, {body['wall_seconds']:.1f} s")
    stdout.print(f"next: gapwise evaluate {body['run_id']} --data DIR", soft_wrap=True)
