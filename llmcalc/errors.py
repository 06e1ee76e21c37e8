"""Every error a user can cause, in one tree.

    LlmcalcError                 exit 2, one message, no traceback
    ├── UsageError               an option or a combination of options that makes no sense
    ├── UnitError                text that is not a number with a unit
    ├── UnknownName              no model, GPU or quantisation of that name; suggests
    ├── Unpublished              the model exists, its architecture was never published
    ├── UnknownArchitecture      a config or checkpoint of a kind that is not known here
    ├── SpecError                a file that is not valid: file, line, column, field
    ├── SourceError              a repository that cannot be read: no access, no network, not there
    └── NoAnswer             the question is fine, the model has nothing to answer it with

A negative answer (it does not fit) is not an error: commands return it and exit 1.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Text in one line that cannot speak to a terminal: whatever does not print is written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class LlmcalcError(Exception):
    """Base of all errors with a message fit for the user."""


class UsageError(LlmcalcError):
    """Options that contradict each other or leave the question open."""


class UnitError(LlmcalcError):
    """Text that cannot be read as a quantity."""


class UnknownName(LlmcalcError):
    """A name that is in no catalogue; carries the nearest ones."""

    def __init__(self, what: str, name: str, nearest: list[str], hint: str = "") -> None:
        self.nearest = nearest
        message = f"unknown {what} {name!r}"
        if nearest:
            message += "; did you mean " + " or ".join(nearest) + "?"
        if hint:
            message += f" ({hint})"
        super().__init__(message)


class Unpublished(LlmcalcError):
    """A model whose architecture its makers have not published."""


class UnknownArchitecture(LlmcalcError):
    """An architecture that nobody here knows how to count; refused by name, with what is nearest."""


class SpecError(LlmcalcError):
    """A file with a mistake in it, at a place; binary files have none (line 0)."""

    def __init__(self, message: str, file: str, line: int = 1, column: int = 1, field: str = "") -> None:
        field = printable(field if len(field) <= 100 else f"{field[:100]}...")
        message = message if len(message) <= 1000 else f"{message[:1000]}..."
        self.file, self.line, self.column, self.field = file, line, column, field
        where = f"{file}:{line}:{column}: " if line else f"{file}: "
        super().__init__(where + (f"{field}: " if field else "") + message)


class SourceError(LlmcalcError):
    """A repository of models that cannot be read, with what to do about it."""


class NoAnswer(LlmcalcError):
    """Asked of a model that has nothing to compute with."""
