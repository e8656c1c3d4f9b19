"""`gapwise`: the verbs, and the one place where an error becomes an exit code.

0 done; 2 the input is wrong (one line, no traceback); 3 the work finished but every rate was held; 1 anything else.
"""

import sys
from contextlib import nullcontext
from itertools import takewhile
from typing import Any

import typer

from gapwise import __version__
from gapwise.cli import (
    ablate,
    compare,
    data,
    doctor,
    evaluate,
    gc,
    plan,
    predict,
    promote,
    registry,
    report,
    reproduce,
    retrain,
    study,
    submit,
    train,
    tune,
)
from gapwise.cli.encoding import never_fail
from gapwise.cli.output import answer_alone, roomy, stdout
from gapwise.errors import GapwiseError, no_room, raised

app = typer.Typer(
    name="gapwise",
    help="Experiments with multimodal models that must keep working when modalities go missing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(data.app, name="data")
app.add_typer(registry.app, name="registry")
app.add_typer(study.app, name="study")
app.add_typer(retrain.app, name="retrain")
app.add_typer(submit.app, name="submit")
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("tune", epilog=tune.EXAMPLES)(tune.tune)
app.command("plan", epilog=plan.EXAMPLES)(plan.plan)
app.command("ablate", epilog=ablate.EXAMPLES)(ablate.ablate)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("promote", epilog=promote.EXAMPLES)(promote.promote)
app.command("predict", epilog=predict.EXAMPLES)(predict.predict)
app.command("reproduce", epilog=reproduce.EXAMPLES)(reproduce.reproduce)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("gc", epilog=gc.EXAMPLES)(gc.gc)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gapwise {__version__}", file=sys.stdout)
        raise typer.Exit


@app.callback()
def gapwise(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Experiments with multimodal models that must keep working when modalities go missing."""


_UsageError: Any = typer.BadParameter.__bases__[0]
"""Typer carries its own copy of click, whose errors are not those of the package `click`."""
_INTERRUPTED = 130
_EXTRAS = {"ray": "train", "optuna": "train", "threadpoolctl": "train", "cronsim": "train", "aiohttp": "cluster"}
"""The extra that brings a package."""


def main() -> None:
    """Run a command; a user's error is one line and exit code 2."""
    sys.exit(_run())


def _run() -> int:
    never_fail()
    if not roomy():
        app.rich_markup_mode, app.info.context_settings = None, {"terminal_width": stdout.width - 2}
    try:
        ours = takewhile(lambda word: word != "--", sys.argv)  # behind it stands another command, for a cluster
        with answer_alone() if "--json" in ours else nullcontext():
            code = app(standalone_mode=False)  # the exit code of a `typer.Exit` comes back as a value
    except GapwiseError as error:
        return _refused(str(raised(error)))
    except _UsageError as error:
        where = f"{error.ctx.command_path}: " if error.ctx is not None else ""
        words = " ".join(error.format_message().split())
        return _refused(f"{where}{words}") if words else 2  # no words: the help was shown instead
    except (typer.Abort, KeyboardInterrupt):
        return _stopped()
    except Exception as error:
        line = _lacks(error) or no_room(error)
        if not line:
            raise
        return _refused(line)
    return _stopped() if code == _INTERRUPTED else int(code or 0)


def _lacks(error: Exception) -> str:
    """What a command needs that an installation for answering alone does not have; empty for any other error."""
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return f"this command needs {error.name}, which gapwise's extra `{_EXTRAS[error.name]}` brings"
    return ""


def _refused(line: str) -> int:
    typer.echo(f"error: {line}", file=sys.stderr)
    return 2


def _stopped() -> int:
    typer.echo("stopped", file=sys.stderr)
    return 1
