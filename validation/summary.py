"""What was measured beside what llmcalc predicts for the same config and options, asked through its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from validation.rows import Row
from validation.run import ROOT

GIB = 2**30
# The kernels of torch by what llmcalc calls what they keep; cuDNN's keeps what flash does.
KERNELS = {"flash": "flash", "cudnn": "flash", "efficient": "efficient"}
HEADER = ("case", "status", "peak GiB", "llmcalc", "error", "kept GiB", "llmcalc", "error", "reserved", "card", "tokens/s")


def kernel(row: Row) -> str | None:
    """The attention that llmcalc is asked for: the case's, or what torch chose where it was left the choice."""
    if row["case"]["attention"] != "sdpa":
        return str(row["case"]["attention"])
    called = row["measured"].get("kernels", [])
    return next((known for word, known in KERNELS.items() if any(f"_{word}_attention" in name for name in called)), None)


def question(row: Row, config: str) -> list[str] | None:
    """The arguments of llmcalc that ask for what the row measured; None for what it cannot be asked."""
    case = row["case"]
    if case["kind"] == "decode":
        context = case["seq"] + case["new_tokens"]
        return ["kv", config, "--ctx", str(context), "--batch", str(case["micro_batch"]), "--kv-dtype", case["precision"], "--json"]
    attention = kernel(row)
    if attention is None:
        return None
    optimizer = case["optimizer"].removesuffix("-foreach")
    options: dict[str, Any] = {
        "seq": case["seq"], "micro-batch": case["micro_batch"], "precision": case["precision"], "optimizer": optimizer,
        "method": case["method"], "attention": attention, "recompute": case["recompute"], "accumulate": case["accumulate"],
    }  # fmt: skip
    if case["method"] == "lora":
        options |= {"rank": case["rank"], "targets": case["targets"], "adapter-dtype": case["adapter_dtype"]}
    found = ["train", config, *(part for name, value in options.items() for part in (f"--{name}", str(value))), "--json"]
    return [*found, "--foreach"] if case["optimizer"] == "adamw-foreach" else found


def ask(arguments: list[str]) -> dict[str, Any] | None:
    """The result that llmcalc gives; None where it refuses or has no such command."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-m", "llmcalc", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found: dict[str, Any] = json.loads(done.stdout)["results"][0]
    return found


def predicted(row: Row) -> dict[str, Any] | None:
    """What llmcalc says of a row's case."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        named = {"architectures": [row["measured"]["model_class"]]} if "model_class" in row["measured"] else {}
        config.write_text(json.dumps({**row["config"], **named}), encoding="utf-8")
        arguments = question(row, str(config))
        return None if arguments is None else ask(arguments)


def measured(row: Row) -> dict[str, int | None]:
    """Bytes to compare, workspaces of libraries taken off: the peak, and what is kept.

    Kept is what a forward pass leaves for the backward pass, or the cache. Null without CUDA, and where gradients of earlier
    passes stand beside it. Bytes as asked for where the release counts them, else in blocks of 512.
    """
    m = row["measured"]
    peak = _bytes(m["phases"]["whole"], "peak_requested_bytes", "peak_allocated_bytes")
    held = _bytes(m["points"]["workspace"], "requested_bytes", "allocated_bytes")
    own = None if peak is None or held is None else peak - held
    if row["case"]["kind"] == "decode":
        return {"peak": own, "kept": m["cache_bytes"]}
    ready = _bytes(m["points"]["ready"], "requested_bytes", "allocated_bytes")
    after = _bytes(m["phases"]["forward"], "requested_bytes", "allocated_bytes")
    alone = row["case"]["accumulate"] == 1
    return {"peak": own, "kept": after - ready if alone and after is not None and ready is not None else None}


def _bytes(record: dict[str, int | None], *names: str) -> int | None:
    return next((value for name in names if (value := record.get(name)) is not None), None)


def line(row: Row, said: dict[str, Any] | None) -> tuple[str, ...]:
    """A row of the table."""
    say, train = said or {}, row["case"]["kind"] == "train"
    peak, kept = (say.get("peak_bytes"), say.get("activation_bytes")) if train else (None, say.get("kv_bytes"))
    if row["status"] != "ok":  # without memory: what llmcalc says should be more than the card has
        return (row["id"], row["status"], *_pair(None, peak), *_pair(None, kept), "-", "-", "-")
    m, found = row["measured"], measured(row)
    rate = m["rates"]["tokens_per_second" if train else "decode_tokens_per_second"]
    return (
        row["id"], row["status"], *_pair(found["peak"], peak), *_pair(found["kept"], kept),
        _gib(m["phases"]["whole"]["peak_reserved_bytes"]), _gib(m["points"]["end"]["cuda_used_bytes"]), f"{rate:,.0f}",
    )  # fmt: skip


def _pair(real: int | None, said: int | None) -> tuple[str, str, str]:
    error = "-" if not real or said is None else f"{100 * (said - real) / real:+.2f}%"
    return _gib(real), _gib(said), error


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / GIB:.3f}"


def table(found: list[Row]) -> list[str]:
    """The lines of the table, columns aligned."""
    lines = [HEADER, *(line(row, predicted(row) if row["status"] in ("ok", "oom") else None) for row in found)]
    widths = [max(len(each[column]) for each in lines) for column in range(len(HEADER))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(each, widths, strict=True))
        ).rstrip()
        for each in lines
    ]
