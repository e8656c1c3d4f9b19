"""`gapwise predict`: the champions' answers for a dataset or a file of rows."""

from pathlib import Path
from typing import Annotated

import typer

from gapwise.cli import completion
from gapwise.cli.options import needed, rate_or
from gapwise.cli.output import JsonOption, figure, print_json, stdout
from gapwise.cli.work_view import WorkView
from gapwise.spec.home import home

EXAMPLES = """
Examples:

    gapwise predict mosi --data data/mosi --split valid --out answers.parquet

    gapwise predict mosi --data rows.parquet --rate 0.5 --out answers.csv
"""


def predict(
    name: Annotated[str, typer.Argument(autocompletion=completion.registered, help="A registered model.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .parquet, .csv or .jsonl.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            envvar="GAPWISE_DATA",
            help="A dataset folder, or a Parquet file with one column a modality (id and missing_rate if you like).",
        ),
    ] = None,
    rate: Annotated[
        str,
        typer.Option(
            metavar="RATE",
            autocompletion=completion.rate_or("auto"),
            help="auto: estimated for each row; or a missing rate for all of them.",
        ),
    ] = "auto",
    split: Annotated[
        str,
        typer.Option(
            autocompletion=completion.one_of(completion.SPLITS),
            help="Of a dataset folder: valid, train or test; reading test is logged with the dataset.",
        ),
    ] = "valid",
    as_json: JsonOption = False,
) -> None:
    """Answer every row with the champion of the missing rate nearest to its own."""
    told, source = rate_or("auto", rate), needed(data)

    from gapwise.data.store import open_dataset
    from gapwise.promotion.predict import of_rows, of_split, write_predictions
    from gapwise.tracking.client import connect
    from gapwise.tracking.router import Router

    router = Router(connect(home()), name)
    router.champions()
    if source.is_dir():
        chosen = open_dataset(source).split(split, reason=f"predict {name}")
        blocks, total = of_split(router, chosen, told), len(chosen)
    else:
        blocks, total = of_rows(router, source, told), 0
    with WorkView(f"champions of {name} answer {source}") as view:
        view.stage("rows", total)
        found = write_predictions(blocks, out, view.step)
    if as_json:
        print_json({"name": name, "out": str(out), **found._asdict()})
        return
    by = ", ".join(f"v{version} {rows}" for version, rows in found.versions.items())
    stdout.print(f"{found.rows} rows, missing rate {figure(found.missing_rate)} on average; answered by {by}")
    stdout.print(f"wrote {out}", soft_wrap=True)
