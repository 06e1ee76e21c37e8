"""Headers of safetensors files, one or a folder of shards; the data is never read.

A file is 8 bytes of length (little-endian), that much JSON, and the tensors' bytes without gaps. Checked as strictly as by the
reference implementation (safetensors 0.8, ``Metadata::validate``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcalc.errors import SpecError
from llmcalc.importers import json_text
from llmcalc.importers.tensors import NUMBERED, Checkpoint, Tensor, fault, joined, opened, shown, whole_set

# Bits of one element: every dtype of safetensors 0.8.
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
MAX_HEADER = 100_000_000  # the format's own limit
MAX_READ = 32 * 1024 * 1024  # our own: the index of 200,000 tensors is 22 MB, and Python's objects take many times the text
MAX_DIMENSIONS = 64  # PyTorch's limit
METADATA, SINGLE, INDEX = "__metadata__", "model.safetensors", "model.safetensors.index.json"


def header_length(first8: bytes, source: str, file_size: int | None) -> int:
    """The length of the JSON header, from the file's first 8 bytes; the size of the file is checked if known. Raises SpecError."""
    if len(first8) < 8:
        raise fault(f"{len(first8)} bytes; a safetensors file has at least 8", source)
    if first8[:8] == b"version ":
        raise fault("is a pointer of Git LFS and not the file itself; git lfs pull fetches it", source)
    length = int.from_bytes(first8[:8], "little")
    if length > MAX_HEADER:
        raise fault(f"no safetensors file: a header of {length:,} bytes, allowed: {MAX_HEADER:,}", source)
    if file_size is not None and length + 8 > file_size:
        missing = length + 8 - file_size
        raise fault(f"truncated: {missing:,} bytes of the header are missing ({length:,} bytes, after 8)", source)
    return length


def parse(header: bytes, source: str) -> tuple[tuple[Tensor, ...], Mapping[str, str]]:
    """The tensors, in the order of their data, and the free metadata of a JSON header. Raises SpecError."""
    if not header.startswith(b"{"):
        raise fault(f"no safetensors file: the header starts with {bytes(header[:1])!r}, allowed: b'{{'", source)
    entries = json_text.loads(header, source, MAX_READ)
    metadata = entries.pop(METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise fault("allowed: a mapping of text to text", source, METADATA)
    placed = sorted((_tensor(name, entry, source) for name, entry in entries.items()), key=lambda found: found[:2])
    at, last = 0, ""
    for start, end, tensor in placed:
        if start != at:
            what = "overlaps" if start < at else "leaves a hole after"
            neighbour = shown(last) if last else "the header"
            raise fault(f"data_offsets [{start}, {end}] {what} {neighbour}, which ends at {at}", source, tensor.name)
        at, last = end, tensor.name
    return tuple(tensor for _, _, tensor in placed), metadata


def _tensor(name: str, entry: Any, source: str) -> tuple[int, int, Tensor]:
    """One tensor with the start and end of its data."""
    if not isinstance(entry, dict):
        raise fault(f"found {_brief(entry)}, allowed: a mapping of dtype, shape, data_offsets", source, name)
    for key in ("dtype", "shape", "data_offsets"):
        if key not in entry:
            raise fault(f"{key} missing", source, name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        from difflib import get_close_matches

        close = get_close_matches(str(dtype)[:20].upper(), BITS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise fault(f"dtype: found {_brief(dtype)}, allowed: {', '.join(BITS)}{hint}", source, name)
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise fault(f"shape: found {_brief(shape)}, allowed: up to {MAX_DIMENSIONS} whole numbers from 0 to 2^63 - 1", source, name)
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fault(f"data_offsets: found {_brief(offsets)}, allowed: [start, end] in bytes, start <= end", source, name)
    total = math.prod(shape) * bits
    if total >= 2**63:
        raise fault(f"shape {_brief(shape)} of {dtype} is 2^60 bytes or more; no file holds as much", source, name)
    start, end = offsets
    if total % 8:
        raise fault(f"shape {_brief(shape)} of {dtype} is {total} bits, not whole bytes", source, name)
    if end - start != total // 8:
        raise fault(
            f"data_offsets {offsets} span {end - start} bytes, shape {_brief(shape)} of {dtype} takes {total // 8}", source, name
        )
    return start, end, Tensor(name, tuple(shape), dtype, total // 8)


def _sizes(value: Any) -> bool:
    """Whether this is a list of whole numbers that fit a signed 64-bit integer; True and 1.0 are none."""
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _brief(value: Any) -> str:
    """A JSON value for a message."""
    words = {"None": "null", "True": "true", "False": "false"}
    text = repr(value[:8]) if isinstance(value, list) else "a mapping" if isinstance(value, dict) else repr(value)
    return words.get(text, shown(value) if isinstance(value, str) else text if len(text) <= 100 else f"{text[:100]}...")


def checkpoint(header: bytes, size: int | None, source: str) -> Checkpoint:
    """One file by its JSON header and its size, if known. Raises SpecError, also for data that is truncated or goes on."""
    tensors, metadata = parse(header, source)
    data = sum(tensor.bytes for tensor in tensors)
    found = data if size is None else size - 8 - len(header)
    if found < data:
        raise fault(f"truncated: {data - found:,} bytes of {data:,} bytes of tensors are missing", source)
    if found > data:
        raise fault(f"{found - data:,} bytes after the last tensor, allowed: none", source)
    return Checkpoint(source, tensors, metadata, 8 + len(header) + data, (source,))


def read(path: Path) -> Checkpoint:
    """One file. Raises SpecError."""
    source = str(path)
    with opened(path) as (stream, size):
        length = header_length(stream.read(8), source, size)
        if length > MAX_READ:
            raise fault(f"a header of {length:,} bytes; llmcalc reads up to {MAX_READ:,}", source)
        return checkpoint(stream.read(length), size, source)


def read_folder(path: Path) -> Checkpoint:
    """A folder's model, found in the order in which transformers looks, or all its .safetensors files where neither name is there.

    Several files without an index are either one complete numbered set or have no numbers at all: a numbered set beside other files
    is most often the same weights twice. Raises SpecError.
    """
    if (path / SINGLE).is_file():
        return read(path / SINGLE)
    if (path / INDEX).is_file():
        return _indexed(path)
    files = sorted(file for file in path.glob("*.safetensors") if file.is_file())
    if not files:
        raise fault(f"no {SINGLE}, no {INDEX} and no other .safetensors file in this folder", str(path))
    numbered = [file for file in files if NUMBERED.fullmatch(file.name)]
    if numbered:
        files = whole_set(numbered[0])
        others = sorted({file.name for file in (*numbered, *path.glob("*.safetensors"))} - {file.name for file in files})
        if others:
            raise fault(
                f"{shown(others[0])} stands beside the set of {shown(files[0].name)} and no index says which is meant", str(path)
            )
    return joined(str(path), [read(file) for file in files])


def _indexed(path: Path) -> Checkpoint:
    """The shards that an index names, which must hold exactly the tensors that it says."""
    source = str(path / INDEX)
    with opened(path / INDEX) as (stream, _):
        owner = weight_map(stream.read(MAX_READ + 1), source)
    names = sorted(set(owner.values()))
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise fault(f"{len(missing)} of {len(names)} shards missing: {', '.join(map(shown, missing[:3]))}{more}", source)
    _no_strangers(path, names, source)
    shards = [read(path / name) for name in names]
    whole = joined(str(path), shards)
    agree(owner, dict(zip(names, shards, strict=True)), source)
    return whole


def weight_map(raw: bytes, source: str) -> dict[str, str]:
    """The file of each tensor, as an index says. Raises SpecError."""
    index = json_text.loads(raw, source, MAX_READ)
    owner = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(owner, dict) or not owner:
        raise SpecError("missing or empty, allowed: a mapping of tensors to files", source, field="weight_map")
    for tensor, name in owner.items():
        if not isinstance(name, str) or not _is_shard(name):
            raise SpecError(f"found {_brief(name)}, allowed: the name of a .safetensors file in the folder", source, field=tensor)
    return owner


def agree(owner: Mapping[str, str], shards: Mapping[str, Checkpoint], source: str) -> None:
    """Raises SpecError unless each shard, by its name, holds exactly the tensors that the index maps to it."""
    for name, shard in shards.items():
        for tensor in shard.tensors:
            if owner.get(tensor.name) != name:
                said = owner.get(tensor.name)
                says = "nothing" if said is None else shown(said)
                raise fault(f"is in {shown(name)}, the index says {says}", source, tensor.name)
    absent = owner.keys() - {tensor.name for shard in shards.values() for tensor in shard.tensors}
    if absent:
        first = min(absent)
        more = f" ({len(absent)} such tensors)" if len(absent) > 1 else ""
        raise fault(f"is not in {shown(owner[first])}, where the index has it{more}", source, first)


def _is_shard(name: str) -> bool:
    """Whether this can be the name of a shard in the index's own folder: no path out of it, no other kind of file."""
    return name.endswith(".safetensors") and not {"/", "\\", "\0"} & set(name) and len(name.encode()) <= 255


def _no_strangers(path: Path, names: list[str], source: str) -> None:
    """No part of the set that the index names may stand outside of it; files of other names (adapters, originals) may."""
    sets = {(parts["stem"], parts["count"]) for parts in map(NUMBERED.fullmatch, names) if parts}
    for file in sorted(path.glob("*.safetensors")):
        parts = NUMBERED.fullmatch(file.name)
        if parts and (parts["stem"], parts["count"]) in sets and file.name not in names:
            raise fault(f"{shown(file.name)} is a part of the set that the index does not name", source)
