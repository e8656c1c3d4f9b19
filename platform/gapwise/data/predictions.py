"""Rows that are to be answered, from a Parquet file, and answers as they are written: both as streams.

Shape legend: B rows of a block.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from gapwise.data.shape import DataShape
from gapwise.errors import DataError, nearest

IDS, RATES = "id", "missing_rate"
"""Columns of a file of rows that are no modalities: what a row is called, and its missing rate where it is told."""
BLOCK = 256
"""Rows that are answered together."""
SCHEMA = pa.schema([(IDS, pa.string()), ("prediction", pa.float64()), (RATES, pa.float64()), ("version", pa.string())])
ENDINGS = (".parquet", ".csv", ".jsonl")
Write = Callable[[dict[str, Any]], None]
"""Takes columns, by the names of SCHEMA."""


class Rows(NamedTuple):
    """A block of rows."""

    first: int
    """Number of its first row in the file."""
    ids: list[str]
    columns: dict[str, list[Any]]
    """Cells by modality, as `data.rows` describes them."""
    told: list[float | None] | None
    """Missing rates; None where the file has no such column."""


def read_rows(file: Path, shape: DataShape) -> Iterator[Rows]:
    """Blocks of a Parquet file with one column a modality. Raises DataError for no such file and unknown columns."""
    try:
        opened = pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError("cannot be read as Parquet", where=str(file)) from error
    allowed = [*sorted(shape.modalities), IDS, RATES]
    unknown = [name for name in opened.schema_arrow.names if name not in allowed]
    if unknown:
        raise DataError(
            f"unknown column {unknown[0]!r}{nearest(unknown[0], allowed)}", where=str(file), allowed=allowed
        )
    first = 0
    for block in opened.iter_batches(batch_size=BLOCK):
        columns = {name: block.column(name).to_pylist() for name in block.schema.names}
        ids = [str(one) for one in columns.pop(IDS, range(first, first + len(block)))]
        told = columns.pop(RATES, None)
        yield Rows(first, ids, columns, told)
        first += len(block)


@contextmanager
def writing(file: Path) -> Iterator[Write]:
    """Parquet, CSV or JSON lines, by the file's ending; it has its name once everything is written.

    Raises DataError for another ending, and for a folder that is not there.
    """
    if file.suffix not in ENDINGS:
        raise DataError(f"a file that ends in {file.suffix or 'nothing'}", where=str(file), allowed=ENDINGS)
    if not file.absolute().parent.is_dir():
        raise DataError("no such folder", where=str(file.absolute().parent))
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with ExitStack() as stack:
            yield _writer(file.suffix, temporary, stack)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _writer(ending: str, file: Path, stack: ExitStack) -> Write:
    if ending == ".jsonl":
        lines = stack.enter_context(file.open("w"))

        def write_lines(columns: dict[str, Any]) -> None:
            for row in pa.table(columns, SCHEMA).to_pylist():
                lines.write(json.dumps(row) + "\n")

        return write_lines
    opened = pq.ParquetWriter(file, SCHEMA) if ending == ".parquet" else pyarrow.csv.CSVWriter(file, SCHEMA)
    table = stack.enter_context(opened)
    return lambda columns: table.write_table(pa.table(columns, SCHEMA))
