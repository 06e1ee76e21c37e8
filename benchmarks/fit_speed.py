"""Fit the efficiencies of ``specs/efficiency.json`` on half of the measured speeds, and say how far off both halves are.

    python -m benchmarks.fit_speed [ROUNDS]

The rows and their halves are tests/speed.py's. What is minimised is the mean of |log(predicted / measured)|, cut off at log 2 so
that no outlier pulls, a row's figures of a kind weighing as one; one parameter after the other is moved by a factor that shrinks.
Ranges are the 10th and the 90th percentile of measured / predicted over all rows of a runtime.
"""

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from llmcalc.specs import efficiency
from tests.fitting import descend
from tests.speed import Case, cases, summary

FILE = Path(__file__).parents[1] / "specs" / "efficiency.json"
MOST = math.log(2)


def loss(found: list[tuple[Case, float]]) -> float:
    """The mean error of weighted cases."""
    return sum(weight * min(MOST, abs(math.log(case.predicted() / case.measured))) for case, weight in found)


def weighted(found: list[Case]) -> list[tuple[Case, float]]:
    """A row counts once for each kind of figure that it has, however many it has of it."""
    count: dict[tuple[str, str], int] = {}
    for case in found:
        key = case.row["id"], case.kind
        count[key] = count.get(key, 0) + 1
    return [(case, 1 / count[case.row["id"], case.kind] / len(count)) for case in found]


def places(data: dict[str, Any]) -> list[dict[str, float]]:
    """Where a runtime's fitted values stand."""
    return [data["fitted"], *(part["fitted"] for part in (*data["classes"], *data["formats"]))]


def fit(data: dict[str, Any], name: str, rounds: int) -> None:
    """Move a runtime's fitted values in place; cases read them through the catalogue."""
    found = weighted([c for c in cases() if c.row["our_runtime"] == name and c.fitted])
    values = [(place, key) for place in places(data) for key in place]
    descend(values, lambda: loss(found), efficiency.SHARES, rounds)


def spread(found: list[Case]) -> list[float]:
    """The 10th and the 90th percentile of measured / predicted."""
    tenths = statistics.quantiles([case.measured / case.predicted() for case in found], n=10, method="inclusive")
    return [round(tenths[0], 2), round(tenths[-1], 2)]


def main(rounds: int) -> None:
    """Fit, write the file, print the errors."""
    runtimes = efficiency.runtimes()
    for name, data in runtimes.items():
        mine = [c for c in cases() if c.row["our_runtime"] == name]
        if not mine:
            continue
        fit(data, name, rounds)
        for place in places(data):
            place.update({key: float(f"{value:.3g}") for key, value in place.items()})
        data["measured_on"] = sorted({c.row["our_gpu"] for c in mine})
        data["decode_range"] = spread([c for c in mine if c.kind != "prefill"])
        if prefill := [c for c in mine if c.kind == "prefill"]:
            data["prefill_range"] = spread(prefill)
    FILE.write_text(json.dumps(efficiency.data(), indent=1) + "\n", encoding="utf-8")
    for kind in ("decode", "prefill", "request"):
        for fitted in (True, False):
            for name in ("", *runtimes):
                found = [c for c in cases() if c.kind == kind and c.fitted == fitted and name in ("", c.row["our_runtime"])]
                if found:
                    count, middle, most, within = summary(found)
                    who = f"{kind:8} {'fitted' if fitted else 'other':7} {name or 'all':13}"
                    print(f"{who} {count:4} figures, median {middle:6.1%}, 90% {most:6.1%}, within 30% {within:6.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
