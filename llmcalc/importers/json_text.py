"""Strict JSON from strangers: limited in size, depth and count before it is parsed, with the place of what is wrong.

Looser than the standard (RFC 8259) in one thing: NaN, Infinity and -Infinity are numbers, since Python writes them
into ``config.json``.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

from llmcalc.errors import SpecError
from llmcalc.importers.tensors import shown

MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_DIGITS = 16 * 1024 * 1024, 100, 400_000, 40

# Possessive, so that a quote that nothing closes is read once and not once from each quote after it.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
# As the parser sees one: what is no fraction or exponent ends it, "1.x" too.
INTEGER = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{%d,}+(?!\.[0-9]|[eE][-+]?[0-9])" % (MAX_DIGITS + 1))


class _Refused(Exception):
    """Found while parsing, where the place is not known: a key that stands twice (given), or an integer of too many digits."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        last = {key: place for place, (key, _) in enumerate(pairs)}
        raise _Refused(next(key for place, (key, _) in enumerate(pairs) if last[key] != place))
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused
    return int(digits)


def _error(message: str, source: str, before: str) -> SpecError:
    """An error right after the text ``before``."""
    return SpecError(message, source, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _twice(key: str, text: str, source: str) -> SpecError:
    """The error at the key that stands twice in some object; without its place if the key is long or spelt in two ways."""
    unplaced = SpecError(f"the key {shown(key)} stands twice", source)
    if len(key) > 1000:
        return unplaced
    wanted = rf"{re.escape(json.dumps(key, ensure_ascii=False))}\s*+:"
    string = r'"(?:[^"\\]++|\\.)*+"'
    # Strings that are not it are passed over in runs, or a million of them would take a second.
    tokens = re.compile(rf'(?:(?!{wanted}){string}[^"\[\]{{}}]*+)++|{wanted}|[\[\]{{}}]', re.DOTALL)
    # The object may be followed by anything at all.
    places: list[int] = []
    for token in tokens.finditer(text):
        if token[0] in "[{":
            places.append(-1)
        elif token[0] in "]}":
            places = places[:-1]
        elif places and re.fullmatch(wanted, token[0]):
            if places[-1] >= 0:
                first = text.count("\n", 0, places[-1]) + 1
                return _error(f"the key {shown(key)} stands twice, first on line {first}", source, text[: token.start()])
            places[-1] = token.start()
    return unplaced


def _deepest(bare: bytes) -> int:
    """How deep the brackets of text without strings are nested; without recursion."""
    return max(accumulate(map(STEP.__getitem__, bare.translate(None, NOT_BRACKETS))), default=0)


def _check(raw: bytes, source: str) -> None:
    """Refuse what would cost a parser its stack, its memory or its time. Raises SpecError."""
    many = f"more than {MAX_VALUES:,} values"
    if raw.count(b'"') > 4 * MAX_VALUES:
        raise SpecError(many, source)
    bare = STRING.sub(b" ", raw)
    # Each value but the first stands after a comma or an opening bracket.
    if sum(map(bare.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise SpecError(many, source)
    if _deepest(bare) > MAX_DEPTH:
        depths = accumulate(STEP.get(byte, 0) for byte in _blank(raw))
        place = next(place for place, depth in enumerate(depths) if depth > MAX_DEPTH)
        raise _error(f"nested more than {MAX_DEPTH} deep", source, raw[:place].decode("utf-8-sig", "replace"))


def _blank(raw: bytes) -> bytes:
    """The same text with its strings blanked: places in it are places in the file."""
    return STRING.sub(lambda string: b" " * len(string[0]), raw)


def _endless(raw: bytes, source: str) -> SpecError:
    """The error at the first whole number of too many digits."""
    found = INTEGER.search(_blank(raw))
    if found is None:
        return SpecError(f"a whole number of more than {MAX_DIGITS} digits", source)
    digits = len(found[0].lstrip(b"-"))
    before = raw[: found.start()].decode("utf-8-sig", "replace")
    return _error(f"a whole number of {digits:,} digits, allowed: {MAX_DIGITS}", source, before)


def loads(raw: bytes, source: str, limit: int = MAX_BYTES) -> Any:
    """The value that JSON text holds; ``limit`` in bytes. Raises SpecError with the place of what is wrong."""
    # A character beyond ASCII can make Python keep four bytes for each of all the others.
    limit = limit if raw.isascii() else min(limit, MAX_BYTES)
    if len(raw) > limit:
        raise SpecError(f"{len(raw):,} bytes of JSON, allowed: {limit:,}", source)
    _check(raw, source)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _error("not UTF-8 text", source, raw[: error.start].decode("utf-8-sig", "replace")) from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise SpecError(f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}", source, error.lineno, error.colno) from None
    except _Refused as refused:
        raise (_twice(refused.args[0], text, source) if refused.args else _endless(raw, source)) from None
    if b"\\u" in raw:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise SpecError("half a surrogate pair (\\ud800 to \\udfff) stands for no character", source) from None
    return value
