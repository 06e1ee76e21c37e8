"""Compares what is kept with what the libraries say now: class defaults, and the base of every type in the matrix."""

from __future__ import annotations

import sys

from tests.oracle.results import FIGURES, MATRIX, rows


def main() -> int:
    """Prints every difference; gives 1 where there is one."""
    import transformers

    from tests.oracle.make_defaults import TARGET, dump, make
    from tests.oracle.matrix import ask

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
    sys.stdout.write(f"{asked} models asked, {different} differences\n")
    return 1 if different else 0
