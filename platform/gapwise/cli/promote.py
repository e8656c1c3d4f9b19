"""`gapwise promote`: the winners of studies become champions of their missing rates, if the gate lets them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gapwise.cli import completion
from gapwise.cli.output import JsonOption, figure, print_json, print_table, stdout
from gapwise.cli.work_view import WorkView

if TYPE_CHECKING:
    from gapwise.promotion.promote import Decided

EXAMPLES = """
Examples:

    gapwise promote prlf-mosi --name mosi --dry-run

    gapwise promote prlf-mosi promise-mosi --name mosi --gate gate.yaml
"""
HELD = 3
"""Exit code: the work is done, and every rate was held."""


def promote(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY...", autocompletion=completion.studies, help="Finished studies of one dataset."),
    ],
    name: Annotated[
        str,
        typer.Option(
            autocompletion=completion.registered, help="The registered model: one for a dataset, task and protocol."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Dataset whose test split decides; by default the first study's.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML: margins, confidence, further metrics, yearly alpha.")
    ] = None,
    approval: Annotated[
        bool, typer.Option("--require-approval", help="Move nothing until `gapwise registry approve`.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide on validation and print; register nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put the best model of every missing rate before the gate, and make those that pass champions."""
    from gapwise.evaluation.hearing import heard_by
    from gapwise.spec.gate import GateSpec
    from gapwise.spec.loader import load_spec
    from gapwise.verbs.promote import PromoteWish
    from gapwise.verbs.promote import promote as decide

    spec = load_spec(GateSpec, gate) if gate is not None else GateSpec()
    wish = PromoteWish(studies=tuple(studies), name=name, data=data, gate=spec, approval=approval, dry_run=dry_run)
    with WorkView(f"gate of {name}") as view, heard_by(view):
        decided = decide(wish)
    if as_json:
        entry = decided.entry
        said = {
            "dry_run": dry_run,
            "entry": None if entry is None else {"sequence": entry.sequence, "digest": entry.digest},
        }
        print_json({**decided.report, **said})
    else:
        _show(decided, dry_run)
    if decided.held:
        raise typer.Exit(HELD)


def _show(decided: "Decided", dry_run: bool) -> None:
    report, rows = decided.report, decided.report["decisions"]
    name = report["name"]
    listed = [
        [
            row["rate"],
            row["decision"],
            row["trial"],
            f"v{row['version']}" if row["version"] else "-",
            row["rival"] or "-",
            figure(row["effect"]) if row["effect"] is not None else "-",
            " to ".join(f"{end:+.3f}" for end in row["interval"]) if row["interval"] else "-",
            f"{row['p']:.4f}" if row["p"] is not None else "-",
        ]
        for row in rows
    ]
    title = f"{name}: champions by missing rate{' (dry run: nothing was registered)' if dry_run else ''}"
    columns = ["missing", "decision", "model", "version", "against", f"{report['metric']} better by", "interval", "p"]
    said = (
        f"{report['split']} split, {report['samples']} samples in {report['groups']} groups,"
        f" {report['gate']['mask_seeds']} mask seeds; alpha {report['alpha']:.4g} over all rates (Holm);"
        f" {report['decisions_before_within_a_year']} decisions on the test split before, within a year;"
        f" {report['reads_of_test']} reads of it in all"
    )
    print_table(title, columns, listed, caption=said)
    for row in rows:
        if row["decision"] == "hold" or row["arm"] == "late_fusion":
            stdout.print(f"{row['rate']}: {'; '.join(row['reasons'])}", soft_wrap=True)
    if decided.again:
        stdout.print("the very same was asked and held before: this is that answer, and the test split was not read")
    if decided.entry is not None:
        stdout.print(f"ledger: entry {decided.entry.sequence}, {decided.entry.digest}", soft_wrap=True)
    if not dry_run:
        stdout.print(
            f"next: gapwise evaluate models:/{name}@champion-mr{round(float(rows[0]['rate']) * 100):02d} --data DIR"
        )
