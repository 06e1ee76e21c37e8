"""Fit the efficiencies of ``specs/train_efficiency.json`` on half of the measured steps, and say how far off both halves are.

    python -m benchmarks.fit_train_speed [ROUNDS]

The rows and their halves are tests/train_speed.py's. What is minimised is the mean of |log(predicted / measured)|, cut off at log 2
so that no outlier pulls; one parameter after the other is moved by a factor that shrinks. Spreads are the 10th and the 90th
percentile of measured / predicted over the rows that are only scored, dense models and those with routed experts apart.
"""

import json
import math
import statistics
import sys
from pathlib import Path

from llmcalc.specs import train_efficiency
from tests.fitting import descend
from tests.train_speed import Case, cases, summary

FILE = Path(__file__).parents[1] / "specs" / "train_efficiency.json"
MOST = math.log(2)


def loss(found: list[Case]) -> float:
    """The mean error."""
    return sum(min(MOST, abs(math.log(case.predicted().seconds / case.measured))) for case in found) / len(found)


def places() -> list[dict[str, float]]:
    """Where fitted values stand."""
    data = train_efficiency.data()
    return [data["fitted"], *(part[kind] for part in data["classes"] for kind in ("fitted", "rates"))]


def fit(rounds: int) -> None:
    """Move the fitted values in place; cases read them through the catalogue."""
    found = [case for case in cases() if case.fitted]
    values = [(place, key) for place in places() for key in place]
    descend(values, lambda: loss(found), train_efficiency.SHARES, rounds)


def spread(found: list[Case]) -> list[float]:
    """The 10th and the 90th percentile of measured / predicted."""
    tenths = statistics.quantiles([case.measured / case.predicted().seconds for case in found], n=10, method="inclusive")
    return [round(tenths[0], 2), round(tenths[-1], 2)]


def main(rounds: int) -> None:
    """Fit, write the file, print the errors."""
    data = train_efficiency.data()
    fit(rounds)
    for place in places():
        place.update({key: float(f"{value:.3g}") for key, value in place.items()})
    data["measured_on"] = sorted({case.row["gpu"] for case in cases()})
    scored = [case for case in cases() if not case.fitted]
    data["spread"] = spread([case for case in scored if not case.routed])
    data["experts_spread"] = spread([case for case in scored if case.routed])
    FILE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    for fitted in (True, False):
        count, middle, most, within = summary([case for case in cases() if case.fitted is fitted])
        who = "fitted" if fitted else "other"
        print(f"{who:7} {count:4} steps, median {middle:6.1%}, 90% {most:6.1%}, within 20% {within:6.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
