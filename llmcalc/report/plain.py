"""Text without decoration: aligned columns for pipes, Markdown, CSV. Nothing is cut, nothing is coloured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llmcalc.errors import printable
from llmcalc.report.document import Document, Table


def _padded(cells: Iterable[str], widths: list[int], table: Table) -> Iterator[str]:
    return (cell.rjust(widths[i]) if table.right(i) else cell.ljust(widths[i]) for i, cell in enumerate(cells))


def _line(cells: Iterable[str], widths: list[int], table: Table) -> str:
    return "  ".join(_padded(cells, widths, table)).rstrip()


def aligned(table: Table) -> Iterator[str]:
    """Columns aligned by spaces, two between them."""
    heads, rows, widths = table.heads(), table.lines(), table.widths()
    if table.title:
        yield printable(table.title)
    if any(heads):
        yield _line(heads, widths, table)
    for row in rows:
        yield _line(row, widths, table)


def markdown(table: Table) -> Iterator[str]:
    """A GitHub table."""
    heads, rows, widths = table.heads(), table.lines(), table.widths()
    if table.title:
        yield f"**{printable(table.title)}**"
        yield ""
    yield "| " + " | ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)) + " |"
    rules = ("-" * (width - 1) + ":" if table.right(i) else "-" * width for i, width in enumerate(widths))
    yield "| " + " | ".join(rules) + " |"
    for row in rows:
        escaped = [cell.replace("|", "\\|") for cell in row]
        yield "| " + " | ".join(_padded(escaped, widths, table)) + " |"


def _flat(result: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    import json

    for key, value in result.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield prefix + key, "; ".join(json.dumps(item) if isinstance(item, dict) else str(item) for item in value)
        else:
            yield prefix + key, value


def comma_separated(document: Document) -> str:
    """One line per result, every key a column; nested ones as ``parts.attention``."""
    import csv
    import io

    rows = [dict(_flat(result)) for result in document.results]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.get(column) for column in columns]
        # true and false as JSON has them.
        writer.writerow([str(v).lower() if isinstance(v, bool) else "" if v is None else v for v in values])
    return out.getvalue()
