"""The file of measurements: what a row has, appending to it so that no row is ever half there, and what is done already."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from validation.cases import Case

Row = dict[str, Any]

STATUSES = ("ok", "oom", "skipped", "failed", "timeout")
# Where and with what, filled in once per run; null where there is none of it.
PLACE = (
    "device", "gpu", "gpu_memory_bytes", "driver", "cuda", "torch", "transformers", "peft", "bitsandbytes", "python", "platform",
    "allocator", "power_limit_watts", "clock_mhz",
)  # fmt: skip
KEYS = ("id", "status", "reason", "date", "seconds", "case", "config", *PLACE, "measured")
# What a measurement has. Bytes of a phase are null without CUDA.
MEASURED = {
    "train": ("model_class", "parameters", "trainable", "kernels", "losses", "points", "phases", "times", "rates"),
    "decode": ("model_class", "parameters", "kernels", "cache_class", "cache_bytes", "points", "phases", "times", "rates"),
}
POINT = ("allocated_bytes", "requested_bytes", "reserved_bytes", "cuda_used_bytes", "smi_used_bytes")
PHASE = ("allocated_bytes", "requested_bytes", "peak_allocated_bytes", "peak_requested_bytes", "peak_reserved_bytes")
POINTS = ("context", "workspace", "load", "ready", "end")
PHASES = {"train": ("first_step", "forward", "backward", "step", "whole"), "decode": ("prefill", "decode", "whole")}
TIMES = {"train": ("forward", "backward", "step", "whole"), "decode": ("prefill", "token")}


def faults(row: Row) -> list[str]:
    """What is wrong with a row, one sentence each; none for a row as it should be."""
    found = [f"{key} is missing" for key in KEYS if key not in row] + [f"{key} is unknown" for key in row if key not in KEYS]
    if found:
        return found
    if row["status"] not in STATUSES:
        found.append(f"status {row['status']!r} is none of {', '.join(STATUSES)}")
    if row["status"] != "ok":
        return found if row["reason"] else [*found, "a case that gave no figures says why"]
    kind, measured = row["case"]["kind"], row["measured"]
    found += [f"measured.{key} is missing" for key in MEASURED[kind] if key not in measured]
    if found:
        return found
    for group, names, keys in (("points", POINTS, POINT), ("phases", PHASES[kind], PHASE)):
        for name in names:
            record = measured[group].get(name, {})
            found += [f"measured.{group}.{name}.{key} is missing" for key in keys if key not in record]
            if row["device"] == "cuda":  # requested bytes and nvidia-smi may be missing there too, the rest not
                may = ("smi_used_bytes", "requested_bytes", "peak_requested_bytes")
                bare = [key for key in keys if key not in may and not isinstance(record.get(key), int)]
                found += [f"measured.{group}.{name}.{key} is no number" for key in bare]
    found += [f"measured.times.{name} is no time" for name in TIMES[kind] if not measured["times"].get(f"{name}_seconds", 0) > 0]
    return found


def load(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file. A last line that was cut off is no row.

    Raises ValueError, with the line, for a line before it that is not JSON.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
            break
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a row is an object")
        found.append(row)
    return found


def append(path: Path, row: Row) -> None:
    """Add a row: one write, flushed to the disk. A line that an earlier run left cut off is dropped first."""
    line = json.dumps(row, allow_nan=False) + "\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        text = path.read_bytes()
        tail = text[text.rfind(b"\n") + 1 :]
        if tail:
            try:
                json.loads(tail)
                line = "\n" + line
            except ValueError:
                os.ftruncate(handle, len(text) - len(tail))
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement: the case, the card and the libraries."""
    return (row["id"], *(row[name] for name in ("gpu", "torch", "transformers", "peft", "bitsandbytes")))


def latest(rows: list[Row]) -> list[Row]:
    """One row per measurement, the last, in the order of the first."""
    return list({key(row): row for row in rows}.values())


def left(wanted: list[Case], rows: list[Row], place: Row, *, retry: bool = False) -> list[Case]:
    """The cases that have no row on this card with these libraries; with ``retry`` also those whose row is a failure."""
    here = {row["id"]: row["status"] for row in rows if key(row) == key({**place, "id": row["id"]})}
    done = {name for name, status in here.items() if not retry or status in ("ok", "oom")}
    return [case for case in wanted if case.id not in done]
