"""Compares what is kept with what the libraries say now: class defaults, the base of every type in the matrix, and the published
models, whose catalogue entries are compared with the same figures by the ordinary tests."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.oracle.results import FIGURES, FOLDER, MATRIX, rows


def published() -> list[dict[str, Any]]:
    """The records of published models: configs with what they came to."""
    return [json.loads(line) for line in (FOLDER.parent / "models.jsonl").read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Prints every difference; gives 1 where there is one."""
    import transformers

    from tests.oracle.make_defaults import TARGET, dump, make
    from tests.oracle.matrix import ask
    from tests.oracle.oracle import build, counts

    transformers.logging.set_verbosity(50)
    different = 0
    if dump(make()) != TARGET.read_text(encoding="utf-8"):
        different += 1
        sys.stdout.write(f"{TARGET.name}: not what the classes say now; run defaults\n")
    asked = 0
    for row in rows(MATRIX):
        if row["set"]:
            continue
        asked += 1
        figures = ask(row["config"], row["architecture"], with_cache=False)
        for name in FIGURES:
            if figures[name] != row[name]:
                different += 1
                sys.stdout.write(f"{row['architecture']}: {name} is {figures[name]}, kept is {row[name]}\n")
    for row in published():
        asked += 1
        figures = counts(build(row["config"], row["architecture"]))
        for name in FIGURES:
            if (figures[name] or 0) != row[name]:
                different += 1
                sys.stdout.write(f"{row['model']}: {name} is {figures[name]}, kept is {row[name]}\n")
    sys.stdout.write(f"{asked} models asked, {different} differences\n")
    return 1 if different else 0
