"""What the oracle found, kept in tests/data/oracle/: one line per model type, a base and what single changes to it do.

A line holds ``model_type``, ``architecture``, ``config`` (the keys given to the class, everything else at its default), the base's
``total``, ``embedding``, ``lm_head``, ``active``, ``router_buffers``, ``cache`` (see ``states.cache``; absent where it could not be
read) and ``flops`` (of ``FLOPS_TOKENS`` tokens), and ``rows``: ``set`` (dotted keys changed), ``architecture`` where it is another,
and those figures that are not the base's. The first line says which versions were asked. Reading needs neither of them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "oracle"
MATRIX = FOLDER / "matrix.jsonl"
FIGURES = ("total", "embedding", "lm_head", "active", "router_buffers")
FLOPS_TOKENS = 32


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The config with dotted keys set: ``{"text_config.hidden_size": 48}``."""
    result = copy.deepcopy(config)
    for path, value in changes.items():
        *outer, last = path.split(".")
        place = result
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = copy.deepcopy(value)
    return result


def line(value: Any) -> str:
    """Compact JSON, keys as given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def pack(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the file out of full records, the base first: each has ``set`` and the figures."""
    base, *rest = records
    packed = {key: value for key, value in base.items() if key != "set"}
    rows = []
    for record in rest:
        keys = ("architecture", *FIGURES, "cache", "flops")
        rows.append({"set": record["set"]} | {key: record[key] for key in keys if key in record and record[key] != base.get(key)})
        if "cache" in base and "cache" not in record:
            rows[-1]["cache"] = None
    return packed | {"rows": rows}


def rows(path: Path = MATRIX) -> Iterator[dict[str, Any]]:
    """Every row in full: ``model_type``, ``set``, ``config`` (with ``model_type`` and ``architectures``), figures, ``cache`` and
    ``flops`` (None where unread)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for text in lines[1:]:
        base = json.loads(text)
        changes = base.pop("rows")
        flops = base.pop("flops", None)
        for row in [{"set": {}, "flops": flops}, *changes]:
            full = {"cache": None, "flops": None} | base | row
            if "architecture" in row:
                full["cache"] = None  # nobody read the cache of another class than the base's
            config = changed(base["config"], row["set"])
            full["config"] = {"model_type": base["model_type"], "architectures": [full["architecture"]], **config}
            yield full


def versions(path: Path = MATRIX) -> dict[str, Any]:
    """What the file was made with: ``transformers`` and ``torch``; ``failed``: model type -> why no config of it could be built."""
    with path.open(encoding="utf-8") as file:
        found: dict[str, Any] = json.loads(file.readline())
    return found
