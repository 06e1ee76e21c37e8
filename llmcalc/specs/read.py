"""YAML -> plain data with the place of every value, safely.

Built on the parser's events, so a file from a stranger cannot run code, expand aliases, nest without end or
repeat a key. Scalars follow YAML 1.2: ``yes``, ``on`` and ``1e6`` are text (and then refused where a number is
wanted, which catches the values that other readers silently take for text).
"""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import yaml

from llmcalc.errors import SpecError

Path = tuple[str | int, ...]
MAX_BYTES, MAX_DEPTH, MAX_NODES = 256 * 1024, 16, 20_000

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)", re.ASCII)
FLOAT = re.compile(r"[-+]?[0-9][0-9_]*\.[0-9]*([eE][-+]?[0-9]+)?", re.ASCII)
# YAML 1.2, section 5.1: what a stream may not hold.
NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TOO_LARGE = f"larger than {MAX_BYTES // 1024} KiB; a spec is a page"
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


class Place(NamedTuple):
    """Line and column, from 1."""

    line: int
    column: int


class Document(NamedTuple):
    """A file's data, and where each value stands (by the path of keys and indices that leads to it)."""

    file: str
    data: dict[str, Any]
    places: dict[Path, Place]

    def error(self, path: Path, message: str) -> SpecError:
        """An error at this field, or at the nearest field around it that the file has."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        place = self.places.get(known, Place(1, 1))
        return SpecError(message, self.file, place.line, place.column, ".".join(map(str, path)))


def _scalar(event: yaml.ScalarEvent) -> Any:
    text = event.value
    if not event.implicit[0]:  # quoted, or in block style: always text
        return text
    if text in WORDS:
        return WORDS[text]
    if len(text) <= 40 and INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if len(text) <= 40 and FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return text


class _Builder:
    """Builds nested data from events with a stack of its own, so depth costs no recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Path, Place] = {}
        self.root: Any = None
        self.open: list[tuple[Path, Any]] = []
        self.key: list[str | None] = []
        self.nodes = 0
        self.documents = 0

    def fail(self, message: str, place: Place, path: Path = ()) -> SpecError:
        return SpecError(message, self.file, place.line, place.column, ".".join(map(str, path)))

    def feed(self, event: Any) -> None:
        """Take the parser's next event."""
        place = Place(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise self.fail("anchors and aliases are not allowed in a spec", place)
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent, yaml.ScalarEvent)):
            self.node(event, place)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.open.pop()
            self.key.pop()
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self.fail("more than one document in the file; a spec is one", place)

    def node(self, event: Any, place: Place) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fail(f"more than {MAX_NODES:,} values", place)
        if event.tag is not None and event.tag != "!":
            raise self.fail(f"the tag {event.tag!r} is not allowed in a spec", place)
        if self.open and isinstance(self.open[-1][1], dict) and self.key[-1] is None:
            self.take_key(event, place)
            return
        path: Path = ()
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        if not self.open:
            self.root = value
        else:
            parent_path, parent = self.open[-1]
            if isinstance(parent, dict):
                key = self.key[-1]
                assert key is not None
                path = (*parent_path, key)
                parent[key] = value
                self.key[-1] = None
            else:
                path = (*parent_path, len(parent))
                parent.append(value)
        # A mapping's place is its key's; a list item's is its own.
        self.places.setdefault(path, place)
        if not isinstance(event, yaml.ScalarEvent):
            if len(self.open) >= MAX_DEPTH:
                raise self.fail(f"nested more than {MAX_DEPTH} deep", place, path[:4])
            self.open.append((path, value))
            self.key.append(None)

    def take_key(self, event: Any, place: Place) -> None:
        path, parent = self.open[-1]
        if not isinstance(event, yaml.ScalarEvent):
            raise self.fail("a key must be text", place, path)
        key = event.value
        if key in parent:
            first = self.places[(*path, key)]
            raise self.fail(f"the key stands twice, first on line {first.line}", place, (*path, key))
        self.places[(*path, key)] = place
        self.key[-1] = key


def parse(text: str, file: str) -> Document:
    """Read YAML text whose top level is a mapping. Raises SpecError."""
    if len(text) > MAX_BYTES:
        raise SpecError(TOO_LARGE, file)
    unprintable = NOT_YAML.search(text)
    if unprintable:
        line, column = _place(text[: unprintable.start()])
        raise SpecError(f"the character {unprintable[0]!r} is not allowed in YAML", file, line, column)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise SpecError(f"not valid YAML: {error.problem or error.context}", file, line, column) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise SpecError(f"not valid YAML: {str(error).splitlines()[0]}", file) from None
    if not isinstance(builder.root, dict):
        found = "nothing" if builder.root is None else f"a {type(builder.root).__name__}"
        raise SpecError(f"a spec is a list of 'key: value' lines, found {found}", file)
    return Document(file, builder.root, builder.places)


def _place(before: str) -> Place:
    """Where the text after ``before`` stands."""
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


def read(path: FilePath) -> Document:
    """Read a spec file. Raises SpecError, also for what cannot be opened or is not UTF-8."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", str(path)) from None
    return decode(raw, str(path))


def decode(raw: bytes, file: str) -> Document:
    """Parse a spec file's bytes. Raises SpecError."""
    if len(raw) > MAX_BYTES:
        raise SpecError(TOO_LARGE, file)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place(raw[: error.start].decode("utf-8-sig", "replace"))
        raise SpecError("not UTF-8 text", file, line, column) from None
    return parse(text, file)
