"""Tables for people, on standard error or as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from blurkit.errors import printable


@dataclass(frozen=True)
class Best:
    """A cell with the best value of its column, which is shown in bold."""

    value: object


def print_table(
    title: str, columns: Sequence[str], rows: Collection[Sequence[object]], note: str = ""
) -> None:
    """Print a table on standard error, its first column left-aligned and the others right-aligned.

    Cells are formatted by `shown`; `note` is printed below the table. If it is too wide for the
    terminal and has fewer rows than columns, they are exchanged.
    """
    from rich.console import Console  # imported when used, so that wrong usage is refused at once
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True, markup=False)
    turned: list[tuple[object, ...]] = list(zip(columns, *rows, strict=True))
    if _width(turned) > console.width and len(turned[0]) <= len(columns):
        columns, rows = [shown(cell) for cell in turned[0]], turned[1:]
    table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(c), "bold") if isinstance(c, Best) else shown(c) for c in row))
    console.print(table)


def _width(columns: Iterable[Sequence[object]]) -> int:
    """Return how many characters a table with these columns takes, borders included."""
    return 1 + sum(3 + max(len(shown(cell)) for cell in column) for column in columns)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as Markdown; cells are formatted by `shown`, the best of a column in bold."""
    texts = ([f"**{shown(c)}**" if isinstance(c, Best) else shown(c) for c in r] for r in rows)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *texts]
    return "".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |\n" for r in lines)


def shown(value: object) -> str:
    """Return a cell's text: None as a dash, floats with two or four decimals."""
    if isinstance(value, Best):
        return shown(value.value)
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"
    return printable(str(value))
