"""Print a document in the format asked for. Results go to stdout, and only they do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from llmcalc.errors import UsageError, printable
from llmcalc.report import plain
from llmcalc.report.document import Document


def _explained(document: Document, unit: str) -> Iterator[str]:
    from llmcalc.report.explain import lines

    last = ""
    for of, figure in document.figures:
        if of != last:
            yield f"{of}:"
        last = of
        yield from lines(figure, unit, 1)


def _text(document: Document, explain: bool, unit: str) -> Iterator[str]:
    for number, table in enumerate(document.tables):
        if number:
            yield ""
        yield from plain.aligned(table)
    for note in document.notes:
        yield f"note: {printable(note)}"
    if explain:
        yield ""
        yield from _explained(document, unit)


def _markdown(document: Document, explain: bool, unit: str) -> Iterator[str]:
    for number, table in enumerate(document.tables):
        if number:
            yield ""
        yield from plain.markdown(table)
    if document.notes:
        yield ""
    for note in document.notes:
        yield f"- {printable(note)}"
    if explain:
        yield from ("", "```")
        yield from _explained(document, unit)
        yield "```"


def _on_terminal(document: Document, explain: bool, unit: str) -> None:
    from llmcalc.report import terminal

    console = terminal.console()
    left_out = sum(terminal.show(table, console) for table in document.tables)
    if left_out:
        console.print(
            f"note: {left_out} more column{'s' if left_out > 1 else ''} on a wider terminal, or with --format markdown", style="dim"
        )
    for note in document.notes:
        console.print(f"note: {printable(note)}", style="dim")
    if explain:
        console.print()
        for line in _explained(document, unit):
            console.print(line, soft_wrap=True, style="dim" if line.lstrip().startswith(("= ", "source:")) else "")


def render(document: Document, form: str = "table", *, explain: bool = False, unit: str = "GiB") -> None:
    """Write the document to stdout as table, json, csv or markdown."""
    if form == "table" and sys.stdout is not None and sys.stdout.isatty():
        _on_terminal(document, explain, unit)
        return
    if form == "json":
        import json

        text = json.dumps(document.as_dict(explain), indent=2, allow_nan=False) + "\n"
    elif form == "csv":
        if explain:
            raise UsageError("--explain is a tree, which CSV cannot hold; use --json, --format markdown or a table")
        text = plain.comma_separated(document)
    else:
        text = "\n".join((_markdown if form == "markdown" else _text)(document, explain, unit)) + "\n"
    emit(text)


def emit(text: str) -> None:
    """Write to stdout. A letter that its encoding lacks becomes ``?``; a reader who has gone is no error."""
    if sys.stdout is None:  # closed by whoever started us: the exit code is all that is wanted
        return
    encoding = sys.stdout.encoding or "ascii"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()


def complain(text: str) -> None:
    """Write a line to stderr, which is for people; a result goes to stdout."""
    if sys.stderr is not None:
        encoding = sys.stderr.encoding or "ascii"
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{printable(text)}\n".encode(encoding, "backslashreplace").decode(encoding))
            sys.stderr.flush()


def forget_stdout() -> None:
    """Keep Python from trying, and failing, to flush at exit what cannot be written."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
