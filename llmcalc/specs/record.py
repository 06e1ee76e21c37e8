"""What all spec records are made of: the record itself, bounded numbers, texts that are not empty.

The records are plain classes, so that running a command on a catalogue model does not have to import pydantic;
``specs.validate`` hands them to pydantic when a file is read.
"""

from __future__ import annotations

from typing import Annotated, Any


class Record:
    """A spec's record: annotated fields with their defaults, filled by name.

    ``specs.validate`` makes dataclasses of these classes for pydantic; a run that validates nothing is spared the cost.
    """

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Within:
    """A bound on a number, in a form that pydantic understands without being imported here."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "ge": self.least, "le": self.most}


class NotEmpty:
    """A text or list that holds something, and not more than a spec ever needs."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "min_length": 1, "max_length": 10_000}


# Larger than any model's by orders of magnitude, small enough that products of a few stay cheap.
Count = Annotated[int, Within(1, 10**8)]
CountOrZero = Annotated[int, Within(0, 10**8)]
Layers = Annotated[int, Within(1, 10_000)]
Published = Annotated[int, Within(1, 10**18)]
Text = Annotated[str, NotEmpty()]
Strings = Annotated[list[Text], NotEmpty()]

# Read by pydantic when a file is validated; a class's NESTED names its fields that are records themselves.
STRICT = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}
