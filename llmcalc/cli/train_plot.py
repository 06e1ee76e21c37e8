"""llmcalc train --plot: the memory through a step as a picture, drawn with matplotlib where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcalc.cli.options import marked
from llmcalc.errors import UsageError, printable
from llmcalc.units import show_bytes

if TYPE_CHECKING:
    from llmcalc.blueprint.parts import Blueprint
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.train_trace import Course

FORMS = {".svg": "svg", ".png": "png"}
UNITS = {"GiB": 2**30, "GB": 10**9}
# Okabe and Ito's palette, which people who see few colours can tell apart.
COLOURS = {
    "parameters": "#0072B2", "buffers": "#999999", "inputs": "#000000", "optimizer": "#56B4E9", "gradients": "#E69F00",
    "gathered": "#F0E442", "activations": "#009E73", "temporaries": "#D55E00",
}  # fmt: skip


def matplotlib() -> Any:
    """The class of figures, which draws without a screen. Raises UsageError where there is none."""
    try:
        return import_module("matplotlib.figure").Figure
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'llmcalc-sizing[plot]'") from None


def form(file: str) -> str:
    """What a file's name says it is. Raises UsageError for another kind."""
    found = FORMS.get(Path(file).suffix.lower())
    if found is None:
        raise UsageError(f"--plot {printable(file)}: found {Path(file).suffix or 'no suffix'!r}, allowed: {', '.join(FORMS)}")
    return found


def check(file: str, chosen: Sequence[Any], *, named: bool, gpus: int, objective: str) -> None:
    """Raises UsageError for what cannot be drawn, before anything is counted."""
    form(file)
    if not named or len(chosen) != 1:
        raise UsageError("--plot draws one step: name one model")
    if gpus > 1:
        raise UsageError(f"--plot draws a step on one GPU, not on {gpus}")
    if objective != "sft":
        raise UsageError(f"--plot draws an update, which --objective {objective} is more than")
    matplotlib()


def step(file: str, blueprint: Blueprint, recipe: Recipe, result: dict[str, Any], unit: str) -> None:
    """Draw the step of a result, against the GPU where one was named."""
    from llmcalc.cli.train_tables import title
    from llmcalc.engines.train_trace import course

    lines = {}
    if result["fits"] is not None:
        usable = result["available_bytes"]
        lines = {result["gpu"]: usable, "less the reserve": usable - result["required_bytes"] + result["peak_bytes"]}
    name = f"{marked(result['model'], result['estimate'])}: {title(recipe, f'{recipe.seq:,}')}"
    draw(file, course(blueprint, recipe), name, unit, lines)


def draw(file: str, course: Course, title: str, unit: str, lines: dict[str, int]) -> None:
    """Write the picture: parts stacked over the step's moments; ``lines`` are bytes to hold it against. Raises UsageError."""
    kind, one = form(file), UNITS[unit]
    figure = matplotlib()(figsize=(10, 5.6), layout="constrained")
    axes = figure.add_subplot()
    totals = course.totals
    peak = max(totals)
    moments = range(len(totals))
    # What cannot be seen gets no name in the legend either.
    shown = {name: sizes for name, sizes in course.parts.items() if 1000 * max(sizes) >= peak}
    axes.stackplot(
        moments, [[size / one for size in sizes] for sizes in shown.values()], labels=list(shown),
        colors=[COLOURS[name] for name in shown], linewidth=0,
    )  # fmt: skip
    at = totals.index(peak)
    # A little above, so that it hides nothing.
    axes.plot([at], [1.015 * peak / one], "kv", markersize=6, label=f"peak, {show_bytes(peak, unit)}")
    for (label, size), style in zip(lines.items(), ("-", "--"), strict=False):
        axes.axhline(size / one, color="black", linestyle=style, linewidth=1, label=f"{label}, {show_bytes(size, unit)}")
    for start in course.starts.values():
        axes.axvline(start, color="black", linestyle=":", linewidth=0.6)
    axes.set_xticks(list(course.starts.values()), list(course.starts), ha="left")
    axes.set_xlim(0, len(totals) - 1)
    axes.set_ylim(0, 1.08 * max([peak, *lines.values()]) / one)
    axes.set_ylabel(unit)
    axes.set_xlabel("allocations, in order")
    axes.set_title(printable(title), fontsize="medium", parse_math=False)
    figure.legend(loc="outside right upper", frameon=False, reverse=True)
    try:
        # The same picture is the same file: no date, and names that do not change.
        with import_module("matplotlib").rc_context({"svg.hashsalt": "llmcalc"}):
            figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    except OSError as error:
        raise UsageError(f"--plot {printable(file)}: {error.strerror or error}") from None
