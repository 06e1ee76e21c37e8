"""What a checkpoint file holds, by its header: names, shapes, dtypes and bytes of tensors; never their data.

Beside the records, what the readers of both formats share: opening a stranger's file, and sets of numbered files.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llmcalc.errors import SpecError, printable

# model-00002-of-00005.safetensors: both formats number their parts like this, from 1.
NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.\w+)")


class Tensor(NamedTuple):
    """A tensor of a file: ``shape`` with the outermost dimension first, ``dtype`` as the format names it, ``bytes`` in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds, however they are packed."""
        return math.prod(self.shape)


class Checkpoint(NamedTuple):
    """All tensors of a file or of a set of files."""

    source: str  # the file or folder, for messages
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, Any]  # GGUF's key-value pairs, safetensors' __metadata__
    file_bytes: int  # whole files, headers and padding too
    files: tuple[str, ...]

    @property
    def elements(self) -> int:
        """How many numbers all tensors hold."""
        return sum(tensor.elements for tensor in self.tensors)


def shown(text: str) -> str:
    """A stranger's text for a message: quoted, in one line, not without end."""
    return f"'{printable(text if len(text) <= 100 else f'{text[:100]}...')}'"


def fault(message: str, file: str, field: str = "") -> SpecError:
    """An error in a binary file, which has no lines: the field is the name of a tensor or a key."""
    return SpecError(message, file, 0, 0, field)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size. Raises SpecError for what cannot be read, and for pipes and devices, which never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise fault("is no regular file", str(path))
        with path.open("rb") as stream:
            yield stream, os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror or error}", str(path)) from None


def whole_set(path: Path) -> list[Path]:
    """The files that a numbered one belongs to, in order. Raises SpecError that names the missing."""
    parts = NUMBERED.fullmatch(path.name)
    if parts is None:
        raise fault("is not named like a part, NAME-00001-of-00002", str(path))
    count, number = int(parts["count"]), int(parts["number"])
    if not 1 <= number <= count:
        raise fault(f"is part {number} of {count} by its name", str(path))
    names = (f"{parts['stem']}-{i:05}-of-{count:05}{parts['suffix']}" for i in range(1, count + 1))
    files = [path.with_name(name) for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise fault(f"{len(missing)} of {count} files missing: {', '.join(missing[:3])}{more}", str(path.parent))
    return files


def joined(source: str, parts: Sequence[Checkpoint]) -> Checkpoint:
    """Several files as one; where they say different things about themselves, the first is believed.

    Raises SpecError for a tensor that is in two of them.
    """
    owner: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in owner:
                raise fault(f"is in {Path(owner[tensor.name]).name} too", part.source, tensor.name)
            owner[tensor.name] = part.source
        metadata = {**part.metadata, **metadata}
    return Checkpoint(
        source,
        tuple(tensor for part in parts for tensor in part.tensors),
        metadata,
        sum(part.file_bytes for part in parts),
        tuple(file for part in parts for file in part.files),
    )
