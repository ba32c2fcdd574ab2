"""Print a table: one line for each row, or folded to the width of a terminal."""

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str], fold: bool = True,
) -> None:
    """Print rows below their headings, if there are any; columns but those of `left` are aligned on the right.

    With `fold`, cells are folded to fit a terminal; else, and where there is none, a row is one line, with two spaces
    or more between columns.
    """
    console = Console()
    if fold and console.is_terminal:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in headings:
            table.add_column(heading, justify="left" if heading in left else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table, highlight=False)
    elif rows:
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            print("  ".join(cell.ljust(width) if heading in left else cell.rjust(width)
                            for cell, width, heading in zip(row, widths, headings, strict=True)).rstrip())
