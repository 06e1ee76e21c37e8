"""The table of published runs and scaling laws beside what llmcalc makes of them.

    python -m tests.runs        writes docs/runs.md anew

A row of ``tests/data/compute.jsonl`` or ``scaling.jsonl`` has a command (SPEC stands for the model in ``spec``), what was
``measured`` under our keys, how far off we may be (``within``), and an ``explanation`` where that is more than rounding.
"""

import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from llmcalc.cli.main import main
from tests.conftest import DATA, records

PAGE = DATA.parents[1] / "docs" / "runs.md"
INTRO = """# Published runs and scaling laws, recomputed

Every published figure that arithmetic can be checked against, beside what llmcalc makes of it, and nothing left out. Written by
`python -m tests.runs` from `tests/data/compute.jsonl` and `tests/data/scaling.jsonl`, which name the source of each row; a
test holds the page to them. Where the two differ by more than rounding, the last column says why.
"""
HEAD = ("| case | figure | published | llmcalc | off | why |", "| --- | --- | ---: | ---: | ---: | --- |")


def answer(command: str, row: dict[str, Any]) -> dict[str, Any]:
    """The first result of a row's command."""
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_text(row.get("spec", ""), encoding="utf-8")
        try:
            with redirect_stdout(out):
                main([command, *row["command"].replace("SPEC", str(path)).split(), "--json"])
        except SystemExit as stopped:
            if stopped.code:
                raise ValueError(f"{row['id']}: exit {stopped.code}") from None
    found: dict[str, Any] = json.loads(out.getvalue())["results"][0]
    return found


def _number(key: str, value: float) -> str:
    if key in ("mfu", "hfu"):
        return f"{100 * value:.2f}%"
    return f"{value:.4g}" if value < 1e5 else f"{value:.3e}"


def _off(key: str, ours: float, published: float) -> str:
    share = key in ("mfu", "hfu")
    percent = round(100 * ((ours - published) if share else (ours / published - 1)), 2) + 0.0  # no -0.00
    return f"{percent:+.2f}" + (" points" if share else "%")


def lines(command: str) -> Iterator[str]:
    """The table of one command's rows."""
    yield from HEAD
    name = {"compute": "compute.jsonl", "chinchilla": "scaling.jsonl"}[command]
    for row in records(name):
        if "command" in row:
            result = answer(command, row)
            for key, published in row["measured"].items():
                cells = (row["id"], key, _number(key, published), _number(key, result[key]), _off(key, result[key], published))
                yield "| " + " | ".join((*cells, row.get("explanation", ""))) + " |"


def page() -> str:
    """The whole page."""
    runs, laws = "\n".join(lines("compute")), "\n".join(lines("chinchilla"))
    return f"{INTRO}\n## Runs: `llmcalc compute`\n\n{runs}\n\n## Laws: `llmcalc chinchilla`\n\n{laws}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
