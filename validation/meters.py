"""Memory and time of phases, as CUDA's allocator, its driver and its events tell them. Without CUDA bytes are null."""

from __future__ import annotations

import os
import subprocess
import time
from statistics import median
from typing import Any

import torch

from validation import rows

STATISTICS = {
    "allocated_bytes": "allocated_bytes.all.current",
    "requested_bytes": "requested_bytes.all.current",
    "reserved_bytes": "reserved_bytes.all.current",
    "peak_allocated_bytes": "allocated_bytes.all.peak",
    "peak_requested_bytes": "requested_bytes.all.peak",
    "peak_reserved_bytes": "reserved_bytes.all.peak",
}
Record = dict[str, int | None]


def smi(*fields: str) -> list[str | None]:
    """What nvidia-smi says of the card in use; nulls where there is no nvidia-smi or it does not know."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", "-i", card, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return [None] * len(fields)
    values = [value.strip() for value in said.split(",")]
    return [None if value.startswith("[") or not value else value for value in values][: len(fields)]


def smi_used() -> int | None:
    """Bytes in use on the card, every process counted."""
    (used,) = smi("memory.used")
    return None if used is None else int(used) * 2**20


class Meter:
    """Points (what is held at a moment) and phases (what was held at most between start and stop, and how long it took)."""

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device == "cuda"
        self.points: dict[str, Record] = {}
        self.phases: dict[str, Record] = {}
        self.spans: dict[str, list[tuple[Any, Any]]] = {}
        self.opened: dict[str, Any] = {}

    def held(self, *names: str) -> Record:
        """Figures of the caching allocator by our names for them; null for those that this release does not keep."""
        known = torch.cuda.memory_stats() if self.cuda else {}
        return {name: known.get(STATISTICS[name]) for name in names}

    def point(self, name: str) -> None:
        """Note what is held now: by tensors in blocks of 512 bytes, as asked for, by the allocator, on the card."""
        used = None
        if self.cuda:
            torch.cuda.synchronize()
            free, total = torch.cuda.mem_get_info()
            used = total - free
        held = self.held("allocated_bytes", "requested_bytes", "reserved_bytes")
        self.points[name] = {**held, "cuda_used_bytes": used, "smi_used_bytes": smi_used() if self.cuda else None}

    def start(self, name: str) -> None:
        """A phase begins: peaks count from here."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        self.opened[name] = self.now()

    def stop(self, name: str) -> None:
        """A phase ends. One that is run several times in a step has its largest peaks, and the last of what stood at its end."""
        self.spans.setdefault(name, []).append((self.opened.pop(name), self.now()))
        record = self.held(*rows.PHASE)
        before = self.phases.get(name)
        self.phases[name] = record if before is None else {**record, **_largest([before, record])}

    def whole(self, *names: str) -> Record:
        """The peaks of several phases that follow each other; what is held at the end of the last."""
        records = [self.phases[name] for name in names]
        return {**records[-1], **_largest(records)}

    def forget(self, *names: str) -> None:
        """Drop what was noted of these phases."""
        for name in names:
            self.phases.pop(name, None)
            self.spans.pop(name, None)

    def now(self) -> Any:
        """A mark in the stream of the GPU; without one, seconds."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, name: str) -> list[float]:
        """How long each run of a phase took."""
        if not self.cuda:
            return [end - start for start, end in self.spans[name]]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in self.spans[name]]

    def median(self, name: str) -> float:
        """The median of these."""
        return median(self.seconds(name))


def _largest(records: list[Record]) -> Record:
    peaks = [key for key in records[0] if key.startswith("peak_")]
    found: Record = {}
    for key in peaks:
        values = [value for record in records if (value := record[key]) is not None]
        found[key] = max(values) if values else None
    return found
