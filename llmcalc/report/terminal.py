"""Tables on a terminal, by rich: boxes, colour that follows NO_COLOR, the terminal's width respected."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from llmcalc.errors import printable
from llmcalc.report.document import Table

# Text columns stay readable down to this width.
FOLDED = 16
STYLES = {"good": "green", "bad": "red"}


def console() -> Console:
    """A console on stdout, with nothing guessed from the text (no markup, no highlighting)."""
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def _kept(table: Table, width: int) -> list[int]:
    """The columns that fit side by side; those that give way go from the right. Empty where even the rest does not fit."""
    widths, kept = table.widths(), list(range(len(table.columns)))

    def needed() -> int:
        return sum(widths[i] for i in kept) + 3 * (len(kept) - 1) + 2

    for index in reversed(range(len(table.columns))):
        if needed() > width and table.gives_way(index):
            kept.remove(index)
    # Text may be folded, numbers never.
    spare = sum(max(0, widths[i] - FOLDED) for i in kept if not table.right(i))
    return kept if needed() - spare <= width else []


def show(table: Table, on: Console) -> int:
    """Print one table, and give the number of columns that had no room."""
    kept = _kept(table, on.width)
    if not kept:
        _as_records(table, on)
        return 0
    if table.title:
        on.print(Text(printable(table.title), style="bold"))
    drawn = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_header=any(table.heads()))
    for index in kept:
        right = table.right(index)
        # Numbers never wrap; text may.
        drawn.add_column(table.heads()[index], justify="right" if right else "left", no_wrap=right, overflow="fold")
    for number, row in enumerate(table.lines()):
        cells = [Text(row[i], style=STYLES.get(table.marks.get(row[i], ""), "")) for i in kept]
        drawn.add_row(*cells, style="bold" if number in table.strong else "")
    on.print(drawn)
    return len(table.columns) - len(kept)


def _as_records(table: Table, on: Console) -> None:
    """A table too wide for the terminal, one row under the other."""
    heads, label = table.heads(), max(len(head) for head in table.heads())
    on.print(Text(printable(table.title), style="bold"))
    for row in table.lines():
        on.print()
        for head, cell in zip(heads, row, strict=True):
            on.print(Text.assemble((head.ljust(label) + "  ", "dim"), (cell, STYLES.get(table.marks.get(cell, ""), ""))))
    on.print()
