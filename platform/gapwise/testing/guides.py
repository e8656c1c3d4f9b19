"""The repository's guides as programs: every code block says whether it runs, and those that do run as written.

A block's info string is a language and a tag: `show`, or `run`, `run-team`, `run-recipe`. Blocks of one tag in one file
are one walk: in order, in one shell, in a fresh folder. Python goes to `.venv/bin/python`; a block with `file=PATH` is
that file; a `diff` is applied with `patch`.

Faked: the set-up. The folder has links to this checkout's files (copies, for a walk that edits them) and to the
environment that runs the tests, in place of a clone and `make setup`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from gapwise.testing.mlflow_server import environment

ROOT = Path(__file__).parents[3]
SHIPPED = ("Makefile", "pyproject.toml", "constraints.txt", "platform", "cluster", "search_spaces", "tests")


class Block(NamedTuple):
    """A fenced block of a guide; `line` is the fence's."""

    guide: str
    line: int
    language: str
    tag: str
    file: str
    text: str

    def command(self) -> str:
        """What the shell does with it."""
        here = f"echo '--- {self.guide}:{self.line}' >&2"
        document = f" <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK"
        if self.file:
            return f"{here}\nmkdir -p {Path(self.file).parent}\ncat > {self.file}{document}"
        if self.language == "diff":
            return f"{here}\npatch -p1 --no-backup-if-mismatch{document}"
        return f"{here}\n.venv/bin/python{document}" if self.language == "python" else f"{here}\n{self.text}"


def blocks_of(guide: str, text: str) -> list[Block]:
    found = []
    for match in re.finditer(r"^```([^\n`]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        language, tag, *rest = [*match[1].split(), "", ""][:3]
        file = rest[0].removeprefix("file=")
        found.append(Block(guide, text.count("\n", 0, match.start()) + 1, language, tag, file, match[2]))
    return found


def blocks(guide: str, tag: str) -> list[Block]:
    return [one for one in blocks_of(guide, (ROOT / guide).read_text(encoding="utf-8")) if one.tag == tag]


def walk(blocks: list[Block], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run blocks in one shell; on failure the last line `--- GUIDE:LINE` on stderr is the block that broke."""
    script = "\n".join(["set -euo pipefail", *(one.command() for one in blocks)])
    told = environment(OMP_NUM_THREADS="1", PATH=os.environ["PATH"], **more)
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=told, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done


def lay_out(folder: Path, *, copied: bool = False) -> Path:
    """As after a clone and `make setup`."""
    folder.mkdir(exist_ok=True)
    for name in SHIPPED:
        if copied and (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        elif copied:
            shutil.copy(ROOT / name, folder / name)
        else:
            (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (folder / ".venv" / ".ready").touch()
    return folder
