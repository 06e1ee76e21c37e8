"""A figure opened: its value, formula, the numbers put in, its source, and then its parts, indented."""

from __future__ import annotations

from collections.abc import Iterator

from llmcalc.quantity import Number, Quantity
from llmcalc.units import show_bytes, show_count, show_flops


def number(value: Number) -> str:
    """A value in full: whole numbers exactly, others to twelve digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.12g}"


def rounded(figure: Quantity, unit: str) -> str:
    """The value as people read it, where that differs from the value in full."""
    if figure.unit == "bytes":
        return show_bytes(figure.value, unit) if figure.value >= 1024 else ""
    if abs(figure.value) < 10_000:
        return ""
    return show_flops(figure.value) if figure.unit == "FLOP" else show_count(figure.value)


def lines(figure: Quantity, unit: str = "GiB", depth: int = 0) -> Iterator[str]:
    """The figure as indented text, one fact a line."""
    indent = "  " * depth
    short = rounded(figure, unit)
    about = [text for text in (short, "" if figure.kind == "exact" else figure.kind, figure.note) if text]
    yield f"{indent}{figure.label} = {number(figure.value)} {figure.unit}" + (f"  ({', '.join(about)})" if about else "")
    if figure.formula:
        numbers = ", ".join(f"{name} = {number(value)}" for name, value in figure.numbers.items())
        yield f"{indent}    = {figure.formula}" + (f"   with {numbers}" if numbers else "")
    elif figure.parts:
        yield f"{indent}    = the sum of its {len(figure.parts)} parts" if len(figure.parts) > 1 else f"{indent}    = its one part"
    if figure.source:
        yield f"{indent}    source: {figure.source}"
    for part in figure.parts:
        yield from lines(part, unit, depth + 1)
