"""Runs cases one after the other, each in a process of its own, and adds a row for each. Imports neither torch nor llmcalc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from validation.cases import Case
from validation.rows import Row, append, faults, left, load

ROOT = Path(__file__).parents[1]
# Nothing is fetched: models are made from values. Both tools are to count cards alike.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
Say = Callable[[str], None]


def ask(what: str, device: str, limit: float) -> dict[str, Any]:
    """What a worker answers; where it gives no answer, status and reason say why."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **OFFLINE, "PYTHONPATH": path}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "validation.worker", what, device, str(out)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return {"status": "timeout", "reason": f"no answer in {limit:.0f} s", "measured": {}}
        if not out.exists():
            said = (done.stderr.strip().splitlines() or ["said nothing"])[-1]
            return {"status": "failed", "reason": f"exit {done.returncode}: {said[:500]}", "measured": {}}
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def place(device: str) -> Row:
    """The card and the libraries that workers see. Raises RuntimeError where they see none."""
    found = ask("PLACE", device, 300)
    if "status" in found:
        raise RuntimeError(f"cannot measure on {device}: {found['reason']}")
    return found


def measure(case: Case, here: Row, limit: float) -> Row:
    """A case's row."""
    began, date = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    answer = ask(json.dumps(case._asdict()), here["device"], limit)
    row = {
        "id": case.id,
        "status": answer["status"],
        "reason": answer["reason"],
        "date": date,
        "seconds": round(time.monotonic() - began, 1),
        "case": case._asdict(),
        "config": case.config,
        **here,
        "measured": answer["measured"],
    }
    wrong = faults(row)
    return {**row, "status": "failed", "reason": "; ".join(wrong)} if wrong else row


def all_of(wanted: list[Case], here: Row, out: Path, minutes: float, limit: float, say: Say, *, retry: bool = False) -> int:
    """Measure what has no row yet until it is done or the time is up; the number of cases without figures.

    A case is not begun when less than a tenth of its limit is left, and is given no more than what is left.
    """
    stop = time.monotonic() + 60 * minutes
    todo = left(wanted, load(out), here, retry=retry)
    say(f"{here['gpu'] or here['device']}: {len(wanted)} cases, {len(wanted) - len(todo)} done before, {len(todo)} to do")
    bad = 0
    for number, case in enumerate(todo):
        remaining = stop - time.monotonic()
        if remaining < limit / 10:
            say(f"the time is up: {len(todo) - number} left; the same command goes on")
            return bad + len(todo) - number
        row = measure(case, here, min(limit, remaining))
        if row["status"] == "timeout" and remaining < limit:
            say(f"the time is up in {case.id}: {len(todo) - number} left; the same command goes on")
            return bad + len(todo) - number
        append(out, row)
        bad += row["status"] not in ("ok", "oom")
        say(f"{row['status']:8} {row['seconds']:6.1f} s  {case.id}" + (f"  ({row['reason']})" if row["reason"] else ""))
    return bad
