"""What a command hands over for printing: its results as data, and the tables and figures that show them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmcalc.errors import printable
from llmcalc.quantity import Quantity

SCHEMA = "llmcalc/1"


class Table(NamedTuple):
    """Rows of text under columns.

    A column whose title begins with ``>`` holds numbers and stands to the right. One with ``?`` (after it) gives way,
    the last first, where a terminal is too narrow for all; pipes and files get every column.

    ``strong`` are the rows (totals, the verdict) that are set off; ``marks`` colour a cell's text on a
    terminal: good or bad.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    strong: frozenset[int] = frozenset()
    marks: dict[str, str] = {}

    def lines(self) -> list[tuple[str, ...]]:
        """The rows, with nothing in a cell that could break a line or speak to the terminal."""
        return [tuple(map(printable, row)) for row in self.rows]

    def heads(self) -> list[str]:
        """Column titles without the markers."""
        return [column.lstrip(">?") for column in self.columns]

    def right(self, index: int) -> bool:
        """Whether a column holds numbers."""
        return self.columns[index].startswith(">")

    def gives_way(self, index: int) -> bool:
        """Whether a narrow terminal may do without a column."""
        return "?" in self.columns[index][:2]

    def widths(self) -> list[int]:
        """Columns' widths with nothing cut."""
        return [max(map(len, column)) for column in zip(self.heads(), *self.lines(), strict=True)]


class Document(NamedTuple):
    """The answer of one command. ``results`` has one entry per question, in the order they were put."""

    command: str
    inputs: dict[str, Any]
    results: list[dict[str, Any]]
    tables: list[Table]
    notes: list[str]
    figures: list[tuple[str, Quantity]]

    def as_dict(self, explain: bool) -> dict[str, Any]:
        """The JSON document; the same keys whatever was asked, ``explain`` empty unless wanted."""
        figures = [{"of": of, **figure.as_dict()} for of, figure in self.figures] if explain else []
        return {
            "schema": SCHEMA, "command": self.command, "inputs": self.inputs, "results": self.results,
            "notes": self.notes, "explain": figures,
        }  # fmt: skip
