"""`gapwise ablate`: what each idea of a model is worth, over seeds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gapwise.cli.options import AddressOption, DataOption, SetOption, needed
from gapwise.cli.output import JsonOption, figure, print_json, print_table, say
from gapwise.cli.work_view import WorkView
from gapwise.spec.home import home, refuse_unusable_name
from gapwise.spec.loader import load_spec
from gapwise.spec.train import TrainSpec

EXAMPLES = """
Example:

    gapwise ablate search_spaces/train_prlf.yaml --data data/mosi --seeds 5
"""


def ablate(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A training spec of PROMISE or PRLF.")],
    data: DataOption = None,
    seeds: Annotated[int, typer.Option(help="Training seeds of every row.", min=1)] = 5,
    mask_seeds: Annotated[int, typer.Option(help="Masks behind every figure.", min=1)] = 20,
    name: Annotated[str | None, typer.Option(help="Name of the table; by default MODEL-DATASET.")] = None,
    settings: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the model, late_fusion, and the model with each idea taken out; runs that are done are not repeated."""
    spec = load_spec(TrainSpec, spec_file, tuple(settings))
    folder = needed(data)

    from gapwise.data.store import open_dataset
    from gapwise.distributed.ablation import Ablation, check_ablation, run_ablation
    from gapwise.distributed.cluster import connected
    from gapwise.distributed.lock import DriverLock
    from gapwise.distributed.shared import refuse_unshared
    from gapwise.distributed.side_by_side import Batch, pending

    dataset = open_dataset(folder, verify=True)
    table = f"{spec.model.name}-{dataset.manifest.name}" if name is None else name
    refuse_unusable_name(table, where="--name")
    place = home().root / "ablations" / table
    chosen = [spec.seed + index for index in range(seeds)]
    spec = check_ablation(place, spec, chosen, dataset)
    ablation = Ablation(spec, chosen, Batch(str(folder), str(place), mask_seeds))
    left = len(pending(ablation.batch, [run for runs in ablation.runs().values() for run in runs]))
    with DriverLock(place), connected(address) as found:
        refuse_unshared(home().root, [folder])
        say(f"{left} runs to train")
        with WorkView(f"ablations of {spec.model.name}") as view:
            view.stage("runs", left)
            body = run_ablation(ablation, dataset, found.gpus or found.cpus, view.ended)
    print_json(body) if as_json else _show(body)


def _show(body: dict[str, Any]) -> None:
    metric = body["metric"]
    rows = [
        [name, _figure(row["mean"]), _figure(row["difference"]) if name != "whole" else "", str(row["failed"] or "")]
        for name, row in body["rows"].items()
    ]
    rows.append(["floor", figure(body["floor"]), "", ""])
    caption = (
        f"validation {metric}, mean over the conditions, ± sd over {len(body['seeds'])} seeds; "
        "difference from the whole model paired by seed"
    )
    print_table(f"ablations of {body['model']}", ["row", metric, "difference", "diverged"], rows, caption=caption)


def _figure(spread: dict[str, float] | None) -> str:
    return "-" if spread is None else figure(spread["mean"], spread["sd"])
