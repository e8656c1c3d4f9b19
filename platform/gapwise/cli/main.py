"""`gapwise`: the verbs, and the one place where an error becomes an exit code.

0 done; 2 the input is wrong (one line, no traceback); 3 the work finished but every rate was held; 1 anything else.
"""

import sys

import click
import typer

from gapwise import __version__
from gapwise.cli import data, evaluate, plan, promote, registry, train, tune
from gapwise.errors import GapwiseError

app = typer.Typer(
    name="gapwise",
    help="Experiments with multimodal models that must keep working when modalities go missing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(data.app, name="data")
app.add_typer(registry.app, name="registry")
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("tune", epilog=tune.EXAMPLES)(tune.tune)
app.command("plan", epilog=plan.EXAMPLES)(plan.plan)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("promote", epilog=promote.EXAMPLES)(promote.promote)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gapwise {__version__}")
        raise typer.Exit


@app.callback()
def gapwise(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Experiments with multimodal models that must keep working when modalities go missing."""


def main() -> None:
    """Run a command; a user's error is one line and exit code 2."""
    try:
        app(standalone_mode=False)
    except GapwiseError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        typer.echo("stopped", err=True)
        sys.exit(1)
