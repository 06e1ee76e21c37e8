"""Models on the Hugging Face hub: ``config.json`` and the headers of the safetensors files, never their data.

What comes back is what local files give, read by the same readers; ``hub_files`` does the fetching.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from llmcalc.errors import SourceError
from llmcalc.importers import json_text, safetensors
from llmcalc.importers.hub_files import CONFIG, Repository, Unreachable
from llmcalc.importers.safetensors import INDEX, SINGLE
from llmcalc.importers.tensors import Checkpoint, fault, joined, shown

CONFIG_LIMIT, MAX_SHARDS, WORKERS = json_text.MAX_BYTES, 2000, 8

# As huggingface_hub.utils.validate_repo_id: 1 to 96 letters, digits, "_", "-" and ".", the last two not at an end.
PART = r"\w(?:[\w.-]{0,94}\w)?"
ID = re.compile(rf"(?P<id>{PART}/{PART})(?:@(?P<revision>\w[\w.+/-]{{0,254}}))?", re.ASCII)
SHARD = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)


class Remote(NamedTuple):
    """A model of the hub: its commit (the revision asked for where the hub says none), its config, its headers if asked for."""

    id: str
    revision: str
    config: dict[str, Any]
    checkpoint: Checkpoint | None
    notes: tuple[str, ...]


def _split(text: str) -> tuple[str, str] | None:
    """Repository and revision."""
    found = ID.fullmatch(text)
    if found is None or "--" in found["id"] or ".." in text or found["id"].endswith(".git"):
        return None
    return found["id"], found["revision"] or "main"


def is_hub_id(text: str) -> bool:
    """Whether the text is ``org/name`` or ``org/name@revision`` as the hub allows it."""
    return _split(text) is not None


def fetch(text: str, *, tensors: bool) -> Remote:
    """The config of a model on the hub and, if asked for, the headers of its safetensors files.

    Raises SourceError for what cannot be read (no client, no network, no such repository, no access, no config) and SpecError
    for files with a mistake in them.
    """
    name = _split(text)
    if name is None:
        raise SourceError(f"{shown(text)} is no hub id; allowed: org/name and org/name@revision")
    notes: list[str] = []
    repository = Repository(*name)
    try:
        raw = repository.text(CONFIG, CONFIG_LIMIT)
    except Unreachable as error:
        if not repository.go_offline():
            raise
        notes.append(f"{error}; read from the cache instead")
        raw = repository.text(CONFIG, CONFIG_LIMIT)
    if raw is None:
        raise repository.without(CONFIG)
    config = json_text.loads(raw, f"{repository.source}/{CONFIG}")
    if not isinstance(config, dict):
        raise fault("is no JSON object", f"{repository.source}/{CONFIG}")
    repository.keep(CONFIG, raw)
    checkpoint = _checkpoint(repository) if tensors else None
    if tensors and checkpoint is None:
        why = "offline, and no safetensors headers in the cache" if repository.offline else f"no {SINGLE} and no {INDEX}"
        notes.append(f"{repository.source}: {why}; counts come from the config")
    return Remote(repository.id, repository.commit or repository.revision, config, checkpoint, tuple(notes))


def _checkpoint(repository: Repository) -> Checkpoint | None:
    """All headers as one checkpoint, or None if the repository or the cache has none; as transformers, one file before many."""
    single = _part(repository, SINGLE)
    if single is not None:
        return single
    raw = repository.text(INDEX, safetensors.MAX_READ)
    if raw is None:
        return None
    source = f"{repository.source}/{INDEX}"
    owner = safetensors.weight_map(raw, source)
    repository.keep(INDEX, raw)
    names = sorted(set(owner.values()))
    if len(names) > MAX_SHARDS:
        raise fault(f"{len(names):,} files; allowed: {MAX_SHARDS:,}", source, "weight_map")
    strange = next((name for name in names if not SHARD.fullmatch(name)), None)
    if strange is not None:
        raise fault(f"{shown(strange)} is no plain file name", source, "weight_map")
    pool = ThreadPoolExecutor(WORKERS)
    try:
        parts = list(pool.map(lambda name: _part(repository, name), names))
    finally:
        pool.shutdown(cancel_futures=True)
    shards = {name: part for name, part in zip(names, parts, strict=True) if part is not None}
    if len(shards) < len(names):
        if repository.offline:
            return None
        raise fault(f"names {names[parts.index(None)]}, which the repository does not have", source)
    whole = joined(repository.source, list(shards.values()))
    safetensors.agree(owner, shards, source)
    return whole


def _part(repository: Repository, name: str) -> Checkpoint | None:
    """The header of one file."""
    found = repository.header(name)
    return found and safetensors.checkpoint(found.data, found.size, f"{repository.source}/{name}")
