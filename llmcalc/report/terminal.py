"""Tables on a terminal, by rich: boxes, colour that follows NO_COLOR, the terminal's width respected."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from llmcalc.report.document import Table

STYLES = {"good": "green", "bad": "red", "faint": "dim"}


def console() -> Console:
    """A console on stdout, with nothing guessed from the text (no markup, no highlighting)."""
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def show(table: Table, on: Console) -> None:
    """Print one table. Columns give way from the left, so that figures stay whole."""
    drawn = RichTable(
        title=Text(table.title, style="bold") if table.title else None, title_justify="left",
        box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False,
    )  # fmt: skip
    for index, head in enumerate(table.heads()):
        right = table.right(index)
        # Numbers never wrap; text may.
        drawn.add_column(head, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for index, row in enumerate(table.rows):
        style = "bold" if index in table.strong else ""
        cells = [Text(cell, style=STYLES.get(table.marks.get(cell, ""), "")) for cell in row]
        drawn.add_row(*cells, style=style)
    on.print(drawn)
