"""Files of a study's folder: never seen half-written, whoever reads and whenever the writer dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Put a file's new content in place of the old at once."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


@contextmanager
def whole_or_nothing(file: Path) -> Iterator[None]:
    """What is appended to a file inside is taken back where that fails half-way; the next line would be glued to it."""
    before = file.stat().st_size if file.exists() else 0
    try:
        yield
    except OSError:
        if file.exists():
            os.truncate(file, before)
        raise
