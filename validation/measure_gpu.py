"""Measures real training steps and real decoding on a CUDA card, a JSON line per case.

    python validation/measure_gpu.py --out rows.jsonl [--minutes 20] [--only PATTERN]
    python validation/measure_gpu.py --list
    python validation/measure_gpu.py --summary rows.jsonl
    python validation/measure_gpu.py --self-test

README.md beside this file says what rows mean. Exit 0: all done; 1: some gave no figures, or are left; 2: wrong use, no card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from validation import rows, run
from validation.cases import cases, chosen


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description="Measure real training steps and decoding on a CUDA card.")
    what = found.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FILE", help="measure, adding rows to FILE; what it has already is not run again")
    what.add_argument("--list", action="store_true", help="print the cases in the order they are run")
    what.add_argument("--summary", type=Path, metavar="FILE", help="print what was measured beside what llmcalc predicts")
    what.add_argument("--self-test", action="store_true", help="run tiny cases on the CPU and check their rows")
    found.add_argument("--only", metavar="PATTERN", help="cases whose id holds PATTERN; with a * in it, whose id matches it")
    found.add_argument("--minutes", type=float, default=20, metavar="N", help="stop after N minutes (20)")
    found.add_argument("--limit", type=float, default=240, metavar="SECONDS", help="stop a case after SECONDS (240)")
    found.add_argument("--retry", action="store_true", help="run again what failed, was skipped or timed out")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Do what the options say; the exit code."""
    options = parser().parse_args(arguments)
    wanted = chosen(options.only) if options.only else cases()
    if not wanted:
        print(f"no case is called like {options.only!r}; --list prints them", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(case.id for case in wanted))
        return 0
    if options.self_test:
        from validation import self_test

        return self_test.main()
    try:
        if options.summary:
            from validation import summary

            names = {case.id for case in wanted} if options.only else None
            found = [row for row in rows.load(options.summary) if names is None or row["id"] in names]
            print("\n".join(summary.table(rows.latest(found))))
            return 0 if found else 2
        here = run.place("cuda")
        bad = run.all_of(wanted, here, options.out, options.minutes, options.limit, _say, retry=options.retry)
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if bad else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
