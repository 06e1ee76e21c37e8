"""Where a model comes from when it is no catalogue entry and no spec file: a config, files with tensors, a repository.

folder           its config.json, and the headers of its safetensors files
config.json      alone (any .json file)
*.safetensors    the file or the whole set it belongs to, and the config.json beside it
*.gguf           the file or the whole split set: metadata and tensor table
org/name[@rev]   the same two from the hub
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmcalc.errors import SpecError, UnknownArchitecture
from llmcalc.importers import json_text
from llmcalc.importers.config import Source
from llmcalc.importers.config_json import Imported, from_config
from llmcalc.importers.tensors import NUMBERED, Checkpoint, fault, opened

CONFIG = "config.json"
SUFFIXES = (".json", ".safetensors", ".gguf")


class Found(NamedTuple):
    """A model's spec data (None where only tensors are known), the tensors its files hold, and what to know of both."""

    name: str
    spec: dict[str, Any] | None
    checkpoint: Checkpoint | None
    notes: tuple[str, ...]


def is_source(text: str) -> bool:
    """Whether MODEL means files: a folder, or a name that ends like a config's or a checkpoint's."""
    path = Path(text)
    if path.suffix.lower() in SUFFIXES or text.startswith(("./", "../", "/", "~")):
        return True
    # A folder that holds no model may have the name of one.
    return bool(text) and path.is_dir() and ("/" in text or any(_readable(path)))


def _readable(folder: Path) -> Iterator[Path]:
    """The files of a folder that a model could be read from."""
    return (file for file in folder.iterdir() if file.name == CONFIG or file.suffix in (".safetensors", ".gguf"))


def _json(path: Path) -> Imported:
    """The spec that a config file lowers to."""
    with opened(path) as (stream, size):
        if size > json_text.MAX_BYTES:
            raise fault(f"{size:,} bytes; a config has at most {json_text.MAX_BYTES:,}", str(path))
        raw = stream.read(json_text.MAX_BYTES + 1)
    data = json_text.loads(raw, str(path))
    if isinstance(data, dict) and "weight_map" in data:
        raise SpecError("is the index of a checkpoint; give its folder", str(path))
    return from_config(data, Source(str(path), raw.decode("utf-8", "replace")))


def local(text: str) -> Found:
    """A model from files on disk. Raises SpecError, UnknownArchitecture."""
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix == ".gguf":
        return _gguf(path)
    if suffix == ".safetensors":
        return _safetensors(path)
    imported = _json(path)
    name = path.resolve().parent.name if path.name == CONFIG else path.stem
    return Found(name or path.stem, imported.spec, None, imported.notes)


def _folder(path: Path) -> Found:
    """A folder as people download it."""
    from llmcalc.importers import safetensors

    config = path / CONFIG
    tensors = any(path.glob("*.safetensors")) or (path / safetensors.INDEX).is_file()
    if not config.is_file():
        ggufs = sorted(path.glob("*.gguf"))
        whole = [file for file in ggufs if NUMBERED.fullmatch(file.name) is None or "-00001-of-" in file.name]
        if len(whole) == 1:
            return _gguf(whole[0])
        if whole:
            raise fault(f"holds several GGUF files; name one: {', '.join(file.name for file in whole[:8])}", str(path))
        if not tensors:
            raise fault(f"holds no {CONFIG}, no safetensors and no GGUF file", str(path))
    checkpoint = safetensors.read_folder(path) if tensors else None
    return _beside(path.resolve().name, config, checkpoint)


def _found(name: str, read: Callable[[], Imported], checkpoint: Checkpoint | None, notes: tuple[str, ...] = ()) -> Found:
    """What is read, with the tensors; those of an architecture that is not known can still be counted."""
    try:
        imported = read()
    except UnknownArchitecture as error:
        if checkpoint is None:
            raise
        return Found(name, None, checkpoint, (*notes, f"{error}; counted from the tensors alone"))
    return Found(name, imported.spec, checkpoint, (*notes, *imported.notes))


def _beside(name: str, config: Path, checkpoint: Checkpoint | None) -> Found:
    """Tensors and the config beside them, if there is one."""
    return _found(name, lambda: _json(config), checkpoint) if config.is_file() else Found(name, None, checkpoint, ())


def _safetensors(path: Path) -> Found:
    """One file, or the set that its name says it is a part of."""
    from llmcalc.importers import safetensors

    whole = NUMBERED.fullmatch(path.name) is not None
    checkpoint = safetensors.read_folder(path.parent) if whole else safetensors.read(path)
    name = path.resolve().parent.name if whole or path.name == safetensors.SINGLE else path.stem
    return _beside(name, path.with_name(CONFIG), checkpoint)


def _gguf(path: Path) -> Found:
    """A GGUF file. One of an architecture that is not known still has tensors to count."""
    from llmcalc.importers import gguf
    from llmcalc.importers.gguf_spec import from_gguf

    checkpoint = gguf.read(path)
    parts = NUMBERED.fullmatch(path.name)
    name = parts["stem"] if parts else path.stem
    return _found(name, lambda: from_gguf(checkpoint), checkpoint)


def from_hub(text: str) -> Found:
    """A model on the hub. Raises SourceError, SpecError, UnknownArchitecture."""
    from llmcalc.importers import hub

    remote = hub.fetch(text, tensors=True)
    source = Source(f"hf.co/{remote.id}/{CONFIG}@{remote.revision[:12]}")
    name = remote.id.rsplit("/", 1)[-1]
    return _found(name, lambda: from_config(remote.config, source, hub=remote.id), remote.checkpoint, remote.notes)
