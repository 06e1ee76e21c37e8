"""Headers of GGUF files, versions 2 and 3, either byte order, alone or in split sets; the data is never read.

The layout is that of the specification (ggml/docs/gguf.md); what is refused is what llmcalc's limits exclude and what
the reference loader (ggml/src/gguf.cpp) refuses too. A header is a stranger's: every length in it is held against the bytes
that are left in the file before anything of that length is read or built.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llmcalc.importers.tensors import NUMBERED, Checkpoint, Tensor, fault, joined, opened, shown, whole_set

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), "general.alignment"
SPLIT_COUNT, SPLIT_NUMBER, SPLIT_TENSORS = "split.count", "split.no", "split.tensors.count"

MAX_HEADER = 512 * 1024 * 1024  # the largest known are 20 MB, nearly all of it vocabulary
MAX_KEYS = MAX_TENSORS = 65_536
MAX_WALKED = 3_000_000  # strings that are skipped one by one; a vocabulary of 262,144 and its merges are 777,000
MAX_KEPT = 250_000  # array elements and scalars
MAX_TEXT = 16 * 1024 * 1024
MAX_NAME, MAX_DIMENSIONS, MAX_NESTED = 65_535, 4, 4
LONG_ARRAY, LONG_STRING = 4_096, 1024 * 1024  # elements, bytes; longer ones are counted and skipped

# ggml type number -> name, elements and bytes of a block (ggml.c, type_traits).
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
           36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}  # fmt: skip

# Metadata value types: number -> name and struct code; strings and arrays are read by hand.
VALUES = {
    0: ("UINT8", "B"), 1: ("INT8", "b"), 2: ("UINT16", "H"), 3: ("INT16", "h"), 4: ("UINT32", "I"), 5: ("INT32", "i"),
    6: ("FLOAT32", "f"), 7: ("BOOL", "B"), 8: ("STRING", ""), 9: ("ARRAY", ""), 10: ("UINT64", "Q"), 11: ("INT64", "q"),
    12: ("FLOAT64", "d"),
}  # fmt: skip
BOOL, STRING, ARRAY = 7, 8, 9


class LongArray(NamedTuple):
    """A value too long to keep: the type and number of an array's elements, or ``BYTE`` and the length of a string."""

    type: str
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody asks of a pair


class _Header:
    """Reads a header forwards, within the file and within the limits."""

    def __init__(self, stream: BinaryIO, size: int, source: str) -> None:
        self.stream, self.size, self.source = stream, size, source
        self.at = 0
        self.order = "<"
        self.walked = self.kept = self.text = 0

    def claim(self, count: int, what: str) -> None:
        """Refuse to read what the file does not have. Raises SpecError."""
        left = self.size - self.at
        if count > left:
            needs = f"{count:,} bytes at byte {self.at:,}, where the file has {left:,} left"
            raise fault(f"truncated or damaged: needs {needs}; {count - left:,} bytes are missing", self.source, what)
        if self.at + count > MAX_HEADER:
            raise fault(f"a header of more than {MAX_HEADER:,} bytes", self.source, what)

    def take(self, count: int, what: str) -> bytes:
        """The next bytes."""
        self.claim(count, what)
        data = self.stream.read(count)
        if len(data) != count:
            raise fault("the file shrinks while it is read", self.source, what)
        self.at += count
        return data

    def skip(self, count: int, what: str) -> None:
        self.claim(count, what)
        self.at += count
        self.stream.seek(self.at)

    def numbers(self, codes: str, what: str) -> tuple[Any, ...]:
        """Numbers in the file's byte order, by struct's codes."""
        form = self.order + codes
        return struct.unpack(form, self.take(struct.calcsize(form), what))

    def number(self, code: str, what: str) -> Any:
        return self.numbers(code, what)[0]

    def keep(self, count: int, what: str) -> None:
        self.kept += count
        if self.kept > MAX_KEPT:
            raise fault(f"more than {MAX_KEPT:,} values in the metadata", self.source, what)

    def words(self, length: int, what: str) -> bytes:
        """Bytes that are kept as text."""
        self.text += length
        if self.text > MAX_TEXT:
            raise fault(f"more than {MAX_TEXT:,} bytes of names and text", self.source, what)
        return self.take(length, what)

    def string(self, what: str) -> str | LongArray:
        """A string; bytes that are not UTF-8 are replaced, since single tokens are not."""
        length = self.number("Q", what)
        if length > LONG_STRING:
            self.skip(length, what)
            return LongArray("BYTE", length)
        return self.words(length, what).decode("utf-8", "replace")

    def name(self, what: str) -> str:
        """A key or the name of a tensor."""
        length = self.number("Q", what)
        if length > MAX_NAME:
            raise fault(f"a name of {length:,} bytes, allowed: {MAX_NAME:,}", self.source, what)
        try:
            return self.words(length, what).decode()
        except UnicodeDecodeError:
            raise fault("the name is not UTF-8 text", self.source, what) from None

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        """A metadata value of this type: a scalar, text, a tuple, or LongArray for what is too long to keep."""
        if kind not in VALUES:
            raise fault(f"value type {kind}, allowed: 0 to {max(VALUES)}", self.source, key)
        self.keep(1, key)
        if kind == STRING:
            return self.string(key)
        if kind == ARRAY:
            return self.array(key, depth + 1)
        return self.truth(self.numbers(VALUES[kind][1], key), key)[0] if kind == BOOL else self.number(VALUES[kind][1], key)

    def truth(self, numbers: tuple[int, ...], key: str) -> tuple[bool, ...]:
        if any(number > 1 for number in numbers):
            raise fault(f"a truth value of {max(numbers)}, allowed: 0, 1", self.source, key)
        return tuple(map(bool, numbers))

    def array(self, key: str, depth: int) -> Any:
        """A tuple of the elements, or how many there are."""
        if depth > MAX_NESTED:
            raise fault(f"arrays nested more than {MAX_NESTED} deep", self.source, key)
        kind, count = self.numbers("IQ", key)
        if kind not in VALUES:
            raise fault(f"an array of value type {kind}, allowed: 0 to {max(VALUES)}", self.source, key)
        name, code = VALUES[kind]
        # A string is at least its length, an array its type and length.
        least = struct.calcsize("<" + code) if code else 8 if kind == STRING else 12
        self.claim(count * least, key)
        if count > LONG_ARRAY:
            if code:
                self.skip(count * least, key)
            elif kind == STRING:
                self.skip_strings(count, key)
            else:
                raise fault(f"an array of {count:,} arrays, allowed: {LONG_ARRAY:,}", self.source, key)
            return LongArray(name, count)
        if code:
            self.keep(count, key)
            numbers = self.numbers(f"{count}{code}", key)
            return self.truth(numbers, key) if kind == BOOL else numbers
        return tuple(self.value(kind, key, depth) for _ in range(count))

    def skip_strings(self, count: int, key: str) -> None:
        """Step over strings in blocks: a vocabulary has hundreds of thousands."""
        self.walked += count
        if self.walked > MAX_WALKED:
            raise fault(f"{self.walked:,} strings in long arrays, allowed: {MAX_WALKED:,}", self.source, key)
        unpack = struct.Struct(self.order + "Q").unpack_from
        while count:
            self.claim(8, key)
            block = self.stream.read(min(1024 * 1024, self.size - self.at))
            if len(block) < 8:
                raise fault("the file shrinks while it is read", self.source, key)
            step, last = 0, len(block) - 8
            while count and step <= last:
                step += 8 + unpack(block, step)[0]
                count -= 1
            self.skip(step, key)


def read(path: Path) -> Checkpoint:
    """A GGUF file, or the whole set if the file is a part of one.

    Shapes have the outermost dimension first, as PyTorch's, which is the reverse of GGUF's ``ne``. Metadata values are ints,
    floats, bools, text, tuples, and LongArray for arrays of more than 4,096 elements. Raises SpecError.
    """
    part = _read(path)
    count = _whole(part, SPLIT_COUNT, 1)
    if count <= 1:
        return part
    named = NUMBERED.fullmatch(path.name)
    if not named or int(named["count"]) != count:
        raise fault(
            f"found {count}, but the file is not named like a part of {count}, NAME-00001-of-{count:05}.gguf",
            str(path),
            SPLIT_COUNT,
        )
    parts = [part if file == path else _read(file) for file in whole_set(path)]
    for number, each in enumerate(parts):
        if _whole(each, SPLIT_COUNT, 1) != count:
            raise fault(
                f"found {_whole(each, SPLIT_COUNT, 1)}, allowed: {count}, as {shown(path.name)} says", each.source, SPLIT_COUNT
            )
        if _whole(each, SPLIT_NUMBER, -1) != number:
            raise fault(f"found {_whole(each, SPLIT_NUMBER, -1)}, allowed: {number}, by its name", each.source, SPLIT_NUMBER)
    whole = joined(parts[0].source, parts)
    said = _whole(parts[0], SPLIT_TENSORS, len(whole.tensors))
    if said != len(whole.tensors):
        raise fault(f"found {said}, but the {count} files hold {len(whole.tensors)} tensors", whole.source, SPLIT_TENSORS)
    return whole


def _whole(part: Checkpoint, key: str, default: int) -> int:
    """A whole number of the metadata."""
    value = part.metadata.get(key, default)
    if type(value) is not int:
        raise fault("is no whole number", part.source, key)
    return value


def _read(path: Path) -> Checkpoint:
    """One file, be it a part or not."""
    source = str(path)
    with opened(path) as (stream, size):
        header = _Header(stream, size, source)
        tensor_count, key_count = _start(header)
        metadata: dict[str, Any] = {}
        for number in range(key_count):
            key = header.name(f"key {number + 1} of {key_count}")
            if not key or key in metadata:
                raise fault("stands twice" if key else f"key {number + 1} of {key_count} is empty", source, key)
            metadata[key] = header.value(header.number("I", key), key)
        alignment = metadata.get(ALIGNMENT, 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise fault(f"found {shown(str(alignment))}, allowed: a power of 2", source, ALIGNMENT)
        tensors = _tensors(header, tensor_count, alignment)
    return Checkpoint(source, tensors, metadata, size, (source,))


def _start(header: _Header) -> tuple[int, int]:
    """Magic, version and byte order; how many tensors and keys follow."""
    magic = header.take(min(4, header.size), "magic")
    if magic != MAGIC:
        raise fault(f"no GGUF file: starts with {magic!r}, allowed: {MAGIC!r}", header.source)
    raw = header.take(4, "version")
    little, big = int.from_bytes(raw, "little"), int.from_bytes(raw, "big")
    # Only version 3 knows big-endian files; nothing else tells the two apart.
    header.order, version = (">", big) if big == 3 else ("<", little)
    if version not in VERSIONS:
        hint = "; convert the model again, no current loader reads version 1" if 1 in (little, big) else ""
        raise fault(f"found {min(little, big)}, allowed: 2, 3{hint}", header.source, "version")
    tensors, keys = header.numbers("QQ", "tensor and key counts")
    for count, limit, what, least in ((tensors, MAX_TENSORS, "tensors", 24), (keys, MAX_KEYS, "keys", 13)):
        if count > limit:
            raise fault(f"{count:,} {what}, allowed: {limit:,}", header.source)
        header.claim(count * least, what)
    return tensors, keys


def _tensors(header: _Header, count: int, alignment: int) -> tuple[Tensor, ...]:
    """The tensors; their data must stand one after another, each aligned, inside the file."""
    source = header.source
    found: dict[str, Tensor] = {}
    end = data = 0
    for number in range(count):
        name = header.name(f"tensor {number + 1} of {count}")
        if name in found:
            raise fault("stands twice", source, name)
        dimensions = header.number("I", name)
        if dimensions > MAX_DIMENSIONS:
            raise fault(f"{dimensions:,} dimensions, allowed: {MAX_DIMENSIONS}", source, name)
        *sizes, kind, offset = header.numbers(f"{dimensions}QIQ", name)
        found[name] = tensor = _tensor(name, tuple(sizes), kind, source)
        if offset != data:
            raise fault(f"offset: found {offset:,}, allowed: {data:,}, where the tensor before it ends", source, name)
        end = offset + tensor.bytes
        data = -(-end // alignment) * alignment
    start = -(-header.at // alignment) * alignment
    if count and start + end > header.size:
        raise fault(f"truncated: {start + end - header.size:,} bytes of {end:,} bytes of tensors are missing", source)
    return tuple(found.values())


def _tensor(name: str, sizes: tuple[int, ...], kind: int, source: str) -> Tensor:
    """A tensor by its ``ne``, innermost dimension first, and the number of its ggml type."""
    if kind not in TYPES:
        was = f", which was {REMOVED[kind]} and is no longer part of the format" if kind in REMOVED else ""
        raise fault(f"ggml type {kind}{was}; allowed: 0 to {max(TYPES)}", source, name)
    dtype, block, block_bytes = TYPES[kind]
    if max(sizes, default=1) >= 2**63 or math.prod(sizes) >= 2**60:
        raise fault(f"shape {sizes[::-1]} is 2^60 elements or more; no file holds as much", source, name)
    row = sizes[0] if sizes else 1
    if row % block:
        raise fault(f"rows of {row:,} elements, allowed for {dtype}: multiples of its block, {block}", source, name)
    return Tensor(name, sizes[::-1], dtype, math.prod(sizes) // block * block_bytes)
