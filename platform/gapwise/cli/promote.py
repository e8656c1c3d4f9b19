"""`gapwise promote`: the winners of a study become champions of their missing rates."""

from typing import Annotated, Any

import typer

from gapwise.cli.output import JsonOption, figure, print_json, print_table, stdout
from gapwise.spec.home import home

EXAMPLES = """
Examples:

    gapwise promote prlf-mosi --name mosi --dry-run

    gapwise promote prlf-mosi --name mosi
"""
HELD = 3
"""Exit code: the work is done, and every rate was held."""


def promote(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A finished study.")],
    name: Annotated[str, typer.Option(help="The registered model: one for a dataset, task and protocol.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and print; register nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Register the winner of every missing rate that beats the floor and late_fusion on validation."""
    from gapwise.promotion.promote import promote as act
    from gapwise.tracking.client import connect
    from gapwise.tuning.result import load_result

    result = load_result(home().studies, study)
    promotions = act(connect(home()), result, home().studies / study, name, dry_run=dry_run)
    rows = [_row(one) for one in promotions]
    if as_json:
        print_json({"name": name, "dry_run": dry_run, "decisions": rows})
    else:
        _show(name, rows, result.floor[result.objective.metric], dry_run)
    if all(one.decision.decision == "hold" for one in promotions):
        raise typer.Exit(HELD)


def _row(promotion: Any) -> dict[str, Any]:
    decision = promotion.decision
    return {
        "rate": decision.rate,
        "decision": decision.decision,
        "version": promotion.version,
        "from": promotion.replaced,
        "trial": decision.trial,
        "metric": decision.metric,
        "value": decision.value,
        "sd": decision.sd,
        "late_fusion": decision.against,
        "effect": decision.effect,
        "interval": None,
        "p": None,
        "reasons": decision.reasons,
    }


def _show(name: str, rows: list[dict[str, Any]], floor: float, dry_run: bool) -> None:
    metric = rows[0]["metric"]
    listed = [
        [
            row["rate"],
            row["decision"],
            row["trial"],
            f"v{row['version']}" if row["version"] else "-",
            figure(row["value"], row["sd"]),
            figure(row["late_fusion"]) if row["late_fusion"] is not None else "-",
            figure(floor),
        ]
        for row in rows
    ]
    title = f"{name}: champions by missing rate{' (dry run: nothing was registered)' if dry_run else ''}"
    columns = ["missing", "decision", "model", "version", f"valid {metric}", "late_fusion", "floor"]
    print_table(title, columns, listed, caption=rows[0]["reasons"][-1])
    for row in rows:
        if row["decision"] == "hold" or row["trial"].startswith("late_fusion"):
            stdout.print(f"{row['rate']}: {'; '.join(row['reasons'][:-1])}", soft_wrap=True)
    if not dry_run:
        stdout.print(
            f"next: gapwise evaluate models:/{name}@champion-mr{round(float(rows[0]['rate']) * 100):02d} --data DIR"
        )
