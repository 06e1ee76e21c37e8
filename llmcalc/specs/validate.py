"""Documents -> records, by pydantic: the only module that imports it.

A message names file, line, column and field, what was found, what is allowed, and the nearest allowed word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmcalc.errors import SpecError
from llmcalc.specs import blocks, gpu, model, quant, runtime
from llmcalc.specs.gpu import GpuSpec
from llmcalc.specs.model import ModelSpec
from llmcalc.specs.quant import QuantSpec
from llmcalc.specs.read import Document, Path
from llmcalc.specs.record import Record
from llmcalc.specs.rules import check_gpu, check_model, check_quant
from llmcalc.specs.runtime import RuntimeSpec

TYPES: dict[str, type[Record]] = {"models": ModelSpec, "gpus": GpuSpec, "quants": QuantSpec, "runtimes": RuntimeSpec}
CHECKS: dict[str, Callable[[Any], Iterator[tuple[Path, str]]]] = {
    "models": check_model,
    "gpus": check_gpu,
    "quants": check_quant,
}
NUMBER_AS_TEXT = "is text in YAML: write the digits, 1000000 or 1_000_000"


def _records(module: ModuleType) -> list[type[Record]]:
    """The record classes that a module defines, in order."""
    return [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Record) and c.__module__ == module.__name__]


# pydantic takes a class's fields from dataclass; a subclass's after its base's.
for _class in (*_records(blocks), *_records(model), *_records(gpu), *_records(quant), *_records(runtime)):
    dataclass(kw_only=True, init=False, eq=False, repr=False)(_class)


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[kind])


def _shown(value: Any) -> str:
    """A value as YAML writes it, not as Python does."""
    words = {"None": "null", "True": "true", "False": "false"}
    text = words.get(repr(value), repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest(word: Any, allowed: list[str]) -> str:
    close = get_close_matches(str(word), allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _fields(kind: str, path: Path) -> list[str]:
    """The keys allowed in the mapping at this path, from the schema."""
    schema = json_schema(kind)
    node: Any = schema
    for step in path:
        node = _resolve(schema, node)
        if isinstance(step, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(step) or node.get("additionalProperties") or {}
    return sorted(_resolve(schema, node).get("properties", {}))


def _resolve(schema: Any, node: Any) -> Any:
    """Follow a reference, and look through `X or null`."""
    if not isinstance(node, dict):
        return {}
    for option in node.get("anyOf", ()):
        if option.get("type") != "null":
            node = option
            break
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _path(data: Any, location: tuple[Any, ...], fault: str) -> Path:
    """The path of the field that pydantic means: its location goes on past the data, into the branches of a union."""
    for number, step in enumerate(location):
        if not (isinstance(data, dict) and step in data) and not (isinstance(data, list) and isinstance(step, int)):
            # A missing key is not in the data, and still is the field that is meant.
            return location[: number + (fault == "missing")]
        if location[number + 1 :] == ("[key]",):
            return location[:number]  # a key that cannot be: its mapping is named
        data = data[step]
    return location


def _joined(findings: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """One finding for each field: the branches of a union each say what they would have allowed."""
    by_field: dict[Path, list[str]] = {}
    for path, message in findings:
        by_field.setdefault(path, []).append(message)
    joined = []
    for path, messages in by_field.items():
        first, mark, _ = messages[0].partition("allowed: ")
        others = [message.removeprefix(first + mark) for message in messages[1:] if message.startswith(first + mark)]
        joined.append((path, " or ".join([messages[0], *others])))
    return joined


def _message(kind: str, data: Any, error: Any) -> tuple[Path, str]:
    """One of pydantic's findings as a field and a sentence."""
    path: Path = _path(data, error["loc"], error["type"])
    found, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "unexpected_keyword_argument":
            allowed = _fields(kind, path[:-1])
            message = f"unknown key{_nearest(path[-1], allowed)}"
            return path, message if "did you mean" in message else f"{message}; allowed: {', '.join(allowed)}"
        case "missing":
            return path, "missing"
        case "int_type" | "int_from_float" | "float_type" if isinstance(found, str):
            import re

            numeric = re.fullmatch(r"[-+0-9][0-9_.,eE+-]*\s*[kKmMgGbBtT]?", found)
            return path, f"found {_shown(found)}, " + (NUMBER_AS_TEXT if numeric else "allowed: a number")
        case "int_type" | "int_from_float":
            return path, f"found {_shown(found)}, allowed: a whole number"
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            sign = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}
            limits = " and ".join(f"{sign[name]} {value}" for name, value in context.items() if name in sign)
            return path, f"found {_shown(found)}, allowed: {limits}"
        case "literal_error":
            allowed = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
            allowed = [{"True": "true", "False": "false"}.get(word, word) for word in allowed]
            return path, f"found {_shown(found)}, allowed: {', '.join(allowed)}{_nearest(found, allowed)}"
        case "bool_type":
            return path, f"found {_shown(found)}, allowed: true, false"
        case "string_type":
            return path, f"found {_shown(found)}, allowed: text (put it in quotes)"
        case "list_type":
            return path, f"found {_shown(found)}, allowed: a list, [a, b]"
        case "dataclass_type" | "dict_type":
            return path, f"found {_shown(found)}, allowed: a mapping of {', '.join(_fields(kind, path)) or 'keys to values'}"
        case "too_short" | "string_too_short":
            return path, "empty"
        case _:
            return path, f"found {_shown(found)}: {error['msg'].lower()}"


def validate(document: Document, kind: str) -> Any:
    """The record that a document says. ``kind`` is models, gpus, quants or runtimes.

    Raises SpecError at the first mistake in the file's order.
    """
    try:
        # JSON mode is strict about scalars and still builds nested records from mappings.
        text = json.dumps(document.data)
        record = _adapter(kind).validate_json(text)
    except ValidationError as error:
        findings = [_message(kind, document.data, found) for found in error.errors(include_url=False)]
        raise _first(document, _joined(findings)) from None
    except ValueError as error:
        raise SpecError(f"cannot be read: {error}", document.file) from None
    findings = list(CHECKS[kind](record)) if kind in CHECKS else []
    if findings:
        raise _first(document, findings)
    return record


def _first(document: Document, findings: list[tuple[Path, str]]) -> SpecError:
    """The finding that stands first in the file, and how many more there are."""
    errors = sorted((document.error(path, message) for path, message in findings), key=lambda e: (e.line, e.column))
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    path, message = next(f for f in findings if str(document.error(*f)) == str(first))
    return document.error(path, message + more)


@cache
def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of spec file."""
    schema: dict[str, Any] = _adapter(kind).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
