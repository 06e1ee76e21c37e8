"""A rule of thumb, and how a figure in it is judged against ours.

A figure holds where it is within the tolerance or rounds to what is said; it is loose up to a tenth off, and wrong beyond that. Of
several figures the worst decides. A range, or a figure that people mean in several ways, is held against all our readings: it holds
where it covers all of them, is loose where it overlaps with them or lies among them, and is wrong where it misses them.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import yaml

from tests.conftest import DATA

VERDICTS = ("holds", "loose", "wrong", "unknowable")
TOLERANCE = 0.02
FAR = 0.10
SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "%": 0.01}
FIGURE = re.compile(r"(\d[\d,]*)(?:\.(\d+))?(e[+-]?\d+)?([KMBT%](?![A-Za-z]))?")


class Found(NamedTuple):
    """Our figure, in the shape of the claim's ``truth``; the verdict; and a sentence with the exact figures. ``given`` are those
    keys of a truth that no arithmetic leads to: they are put in."""

    ours: Any
    verdict: str
    text: str
    given: tuple[str, ...] = ()


class Claim(NamedTuple):
    """A row of ``claims.yaml``. ``said`` checks that a figure is judged that the claim has."""

    id: str
    claim: str
    truth: Any = None
    tolerance: float = TOLERANCE
    verdict: str | None = None
    unit: str = ""
    note: str = ""

    def said(self, figure: str) -> tuple[float, float]:
        """The first number of a piece of the claim's text, and half a unit of its last digit."""
        if figure not in self.claim:
            raise ValueError(f"{self.id}: {figure!r} is not in {self.claim!r}")
        match = FIGURE.search(figure)
        assert match is not None, figure
        whole, decimals, power, scale = match.groups(default="")
        by = SCALES[scale] * float(f"1{power}" if power else "1")
        return float(f"{whole.replace(',', '')}.{decimals or 0}") * by, 0.5 * 10 ** -len(decimals) * by

    def near(self, figure: str, ours: float) -> str:
        """Within the claim's tolerance of ours, or what ours rounds to."""
        value, half = self.said(figure)
        off = abs(ours - value)
        return "holds" if off <= max(self.tolerance * ours, half) else "loose" if off <= FAR * ours else "wrong"

    def exactly(self, figure: str, ours: float) -> str:
        """A count: said to the last digit, it has to be right to the last digit."""
        value, _ = self.said(figure)
        return "holds" if ours == value else "loose" if abs(ours - value) <= FAR * ours else "wrong"

    def among(self, figure: str, readings: Iterable[float]) -> str:
        """A figure that may be meant in several ways."""
        found = sorted(readings)
        if all(self.near(figure, reading) == "holds" for reading in found):
            return "holds"
        met = found[0] <= self.said(figure)[0] <= found[-1] or any(self.near(figure, reading) != "wrong" for reading in found)
        return "loose" if met else "wrong"


def span(low: float, high: float, readings: Iterable[float]) -> str:
    """A range against that of our readings: it covers it, overlaps with it, or misses it. Its ends are rounded, and read so."""
    found = sorted(readings)
    low, high = low * (1 - TOLERANCE), high * (1 + TOLERANCE)
    if low <= found[0] and found[-1] <= high:
        return "holds"
    return "loose" if found[0] <= high and low <= found[-1] else "wrong"


def least(said: int, ours: int) -> str:
    """A number that is said to be the least: loose where it is enough and a smaller one is, too."""
    return "holds" if said == ours else "loose" if said > ours else "wrong"


def worst(*verdicts: str) -> str:
    """Of several figures the one that is furthest off decides."""
    return max(verdicts, key=VERDICTS.index)


def holds(condition: bool) -> str:
    """What is either so or not."""
    return "holds" if condition else "wrong"


Check = Callable[[Claim], Found]


def claims() -> list[Claim]:
    """All rows."""
    rows = yaml.safe_load((DATA / "claims.yaml").read_text(encoding="utf-8"))
    return [Claim(**row) for row in rows]
