"""Tables that suit the width they get: a figure is never cut short, for half a number misleads.

Wide enough: one table, in which columns of words wrap. Narrower: a table of figures continues below with its first
column repeated; one with words becomes a list, a few lines a row, in which empty cells are left out.
"""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gapwise.cli.encoding import plain

_GAP = 2
_WORDS_WIDTH = 16
"""A column of words is not squeezed below this."""
_INDENT = 2
_EMPTY = ("", "-")


class Fitted:
    """Columns and rows, laid out when they are drawn; `words` names the columns that may wrap."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> None:
        self._columns, self._rows, self._words = list(columns), [list(row) for row in rows], set(words)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._in_ascii() if options.ascii_only else self
        yield from shown._laid_out(options.max_width)

    def _in_ascii(self) -> "Fitted":
        rows = [[plain(cell) for cell in row] for row in self._rows]
        return Fitted([plain(one) for one in self._columns], rows, [plain(one) for one in self._words])

    def _laid_out(self, width: int) -> Iterator[Table | Text | Padding]:
        least = [self._least(index) for index in range(len(self._columns))]
        if _with_gaps(least) <= width:
            yield self._table(list(range(len(least))), least, width)
        elif self._words & set(self._columns) or least[0] + _GAP + max(least[1:], default=0) > width:
            yield from self._list(width)
        else:
            for part in _parts(least, width):
                yield self._table(part, least, width)

    def _wraps(self, index: int) -> bool:
        return self._columns[index] in self._words

    def _cells(self, index: int) -> list[str]:
        return [row[index] for row in self._rows]

    def _widest(self, index: int) -> int:
        return max(cell_len(line) for cell in (self._columns[index], *self._cells(index)) for line in _lines(cell))

    def _least(self, index: int) -> int:
        """The narrowest that keeps figures whole; a heading may wrap between its words."""
        if self._wraps(index):
            return min(_WORDS_WIDTH, self._widest(index))
        heading = max((cell_len(word) for word in self._columns[index].split()), default=0)
        return max([heading, *(cell_len(line) for cell in self._cells(index) for line in _lines(cell))])

    def _table(self, indices: list[int], least: list[int], width: int) -> Table:
        widths = {index: least[index] for index in indices}
        left = width - _with_gaps(list(widths.values()))
        for index in sorted(indices, key=lambda one: (self._wraps(one), self._widest(one))):
            more = min(left, self._widest(index) - widths[index])
            widths[index] += more
            left -= more
        made = Table(box=None, pad_edge=False)
        for index in indices:
            justify = "left" if index == 0 or self._wraps(index) else "right"
            made.add_column(Text(self._columns[index]), justify=justify, width=widths[index], overflow="fold")  # type: ignore[arg-type]
        for row in self._rows:
            made.add_row(*(Text(row[index]) for index in indices))
        return made

    def _list(self, width: int) -> Iterator[Text | Padding]:
        """The first cell as a heading, the others below with their names; what is long has lines of its own."""
        names = max((cell_len(name) for name in self._columns[1:]), default=0)
        for row in self._rows:
            yield Text(row[0] or "-", style="bold", overflow="fold")
            for name, cell in zip(self._columns[1:], row[1:], strict=True):
                if cell in _EMPTY:
                    continue
                beside = names + _GAP + cell_len(cell) <= width - _INDENT and "\n" not in cell
                yield _indented(f"{set_cell_size(name, names + _GAP)}{cell}" if beside else name, _INDENT)
                if not beside:
                    yield _indented(cell, 2 * _INDENT)


def _indented(text: str, by: int) -> Padding:
    return Padding(Text(text, overflow="fold"), (0, 0, 0, by))


def _lines(cell: str) -> list[str]:
    return cell.splitlines() or [""]


def _with_gaps(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _parts(least: list[int], width: int) -> list[list[int]]:
    """Columns by table, the first in each of them."""
    parts = [[0]]
    for index in range(1, len(least)):
        if _with_gaps([least[one] for one in (*parts[-1], index)]) > width:
            parts.append([0])
        parts[-1].append(index)
    return parts
