"""`gapwise data`: make, import, grow and check datasets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gapwise.cli import completion
from gapwise.cli.output import JsonOption, print_json, print_table, stdout

TASKS = ("regression", "classification")
app = typer.Typer(help="Make, import, grow and check datasets.", no_args_is_help=True)


@app.command(epilog="Example:  `gapwise data synth data/16k --preset mosi-like-50 --size 16k`")
def synth(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; it must not exist yet.")],
    preset: Annotated[
        str, typer.Option(autocompletion=completion.presets, help="small, mosi-like-50, mosi-like or large.")
    ] = "small",
    size: Annotated[str, typer.Option(help="A larger training split: 5k or 16k, for mosi-like-50.")] = "",
    seed: Annotated[int, typer.Option(help="Same seed, same dataset.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a synthetic dataset whose best possible predictions are known."""
    from gapwise.data.synth import synthesise

    synthesise(preset, out, seed, size)
    _show(out, as_json)


@app.command(
    "import",
    epilog="Example:  `gapwise data import mosi.pkl --format mmsa --out data/mosi --name mosi`",
)
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to import; it is never executed.")],
    file_format: Annotated[
        str,
        typer.Option("--format", autocompletion=completion.one_of(completion.FORMATS), help="mmsa, parquet or npz."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; it must not hold another dataset.")],
    name: Annotated[str, typer.Option(help="What to call the dataset.")],
    task: Annotated[
        str, typer.Option(autocompletion=completion.one_of(TASKS), help="regression or classification.")
    ] = "regression",
    modalities: Annotated[list[str], typer.Option("--modality", help="Name of a modality; repeatable.")] = [],  # noqa: B006
    strict: Annotated[bool, typer.Option("--strict", help="Refuse non-finite values instead of zeroing them.")] = False,
    label_range: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="By default -1 1 or -3 3, whichever fits.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import a file into a dataset folder; nothing is written where it is not sound."""
    from gapwise.data.importers import ImportOptions, import_dataset

    known = _task(task)
    options = ImportOptions(name=name, task=known, modalities=tuple(modalities), strict=strict, label_range=label_range)
    import_dataset(file, out, file_format, options)
    _show(out, as_json)


_APPEND_EXAMPLES = (
    "Example:  `gapwise data append may.parquet --to data/calls --format parquet`\n\n"
    "One part of test in ten for unknown groups, fixed for ever by the first append:  "
    "`gapwise data append may.npz --to data/calls --format npz --split 8 1 1`"
)


@app.command(epilog=_APPEND_EXAMPLES)
def append(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to take in; it is never executed.")],
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Dataset folder that grows.")],
    file_format: Annotated[
        str,
        typer.Option("--format", autocompletion=completion.one_of(completion.FORMATS), help="mmsa, parquet or npz."),
    ],
    shares: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            "--split",
            metavar="TRAIN VALID TEST",
            help="Weights by which unknown groups are spread over the splits; by default the dataset's numbers of "
            "groups when it first grows. Fixed by the first append.",
        ),
    ] = None,
    modalities: Annotated[list[str], typer.Option("--modality", help="As for `data import`; repeatable.")] = [],  # noqa: B006
    strict: Annotated[bool, typer.Option("--strict", help="Refuse non-finite values instead of zeroing them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a dataset grow by a file; old samples keep their split.

    New samples of a known group (speaker, video) join its split. An unknown group is placed by a hash of its name. The
    split that FILE itself names is ignored, and counted where it is another.
    """
    from gapwise.data.growth import AppendOptions
    from gapwise.data.growth import append as take_in

    grown = take_in(
        file, folder, file_format, AppendOptions(modalities=tuple(modalities), strict=strict, shares=shares)
    )
    appended = {
        "step": len(grown.manifest.growth),
        "added": dict(grown.manifest.growth[-1].added),
        "new_groups": grown.new_groups,
        "placed_elsewhere": grown.placed_elsewhere,
    }
    _show(folder, as_json, appended)


@app.command(epilog="Example:  `gapwise data check data/mosi`")
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Dataset folder.")],
    as_json: JsonOption = False,
) -> None:
    """Read every byte, compare it with the fingerprint, and say what the dataset holds."""
    _show(folder, as_json)


def _task(text: str) -> Any:
    from gapwise.errors import SpecError, nearest

    if text not in TASKS:
        raise SpecError(f"unknown task {text!r}{nearest(text, TASKS)}", where="--task", allowed=TASKS)
    return text


def _show(folder: Path, as_json: bool, appended: dict[str, Any] | None = None) -> None:
    from gapwise.data.check import check as checked

    found: dict[str, Any] = checked(folder)
    if as_json:
        print_json(found if appended is None else found | {"appended": appended})
        return
    if appended is not None:
        stdout.print(
            f"appended {sum(appended['added'].values())} samples, {appended['new_groups']} groups were unknown; "
            f"the file named another split for {appended['placed_elsewhere']} of them",
            soft_wrap=True,
        )
    stdout.print(f"{found['name']}: {found['task']}, labels {found['label_range'][0]:g} to {found['label_range'][1]:g}")
    stdout.print(f"fingerprint {found['fingerprint']} (verified)", soft_wrap=True)
    rows = [[split, str(count), str(found["groups"][split])] for split, count in found["splits"].items()]
    print_table("splits", ["split", "samples", "groups"], rows)
    _show_growth(found["growth"])
    rows = [
        [name, str(one["dim"]), str(one["max_length"]), *map(str, found["present"][name].values())]
        for name, one in found["modalities"].items()
    ]
    print_table("modalities", ["name", "dim", "longest", *(f"samples in {split}" for split in found["splits"])], rows)
    for name, present in found["present"].items():
        absent = [split for split, count in present.items() if not count]
        if absent:
            stdout.print(
                f"{name} is wholly missing in {', '.join(absent)}: what is learned or measured there is without it"
            )
    repaired = ", ".join(f"{column}: {count}" for column, count in found["repaired"].items()) or "none"
    stdout.print(f"non-finite values set to zero: {repaired}")
    if found["groups_shared_between_splits"]:
        stdout.print(f"groups in more than one split: {found['groups_shared_between_splits']}")
    stdout.print(f"test split read so far: {found['exposures']} times")


def _show_growth(growth: list[dict[str, Any]]) -> None:
    if not growth:
        return
    splits = list(growth[0]["added"])
    rows = [
        [str(number), step["source"]["file"], *(str(step["added"][name]) for name in splits), step["parent"][:12]]
        for number, step in enumerate(growth, start=1)
    ]
    print_table("growth", ["step", "file", *(f"to {name}" for name in splits), "grew from"], rows, words=("file",))
