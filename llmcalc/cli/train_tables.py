"""How ``llmcalc train`` shows a step: one model opened into parts, a row for each of many, and the ways to train one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcalc.cli import options as o
from llmcalc.engines.train_solve import RANKED
from llmcalc.report.document import Table
from llmcalc.units import show_bytes, show_count

if TYPE_CHECKING:
    from llmcalc.engines.recipe import Recipe

BARS = 24
SOLVED = {
    "micro-batch": "largest micro-batch that fits", "seq": "longest sequence that fits", "rank": "largest rank that fits",
    "method": "method that fits", "gpus": "fewest GPUs that fit it",
}  # fmt: skip


def title(recipe: Recipe, tokens: str) -> str:
    """What is trained, and on what."""
    adapted = f"{recipe.method} of rank {recipe.rank}" if recipe.method in RANKED else recipe.method
    return (
        f"{adapted}, {recipe.precision}, {recipe.optimizer}, {recipe.micro_batch} x {tokens} tokens, {recipe.attention} attention"
    )


def one(result: dict[str, Any], recipe: Recipe, unit: str, solve: str | None = None) -> Table:
    """One model: what the peak is made of, with a bar for each part, and the phases."""
    peak = result["peak_bytes"]
    models = {copy["role"]: f", {copy['model']}" for copy in result["copies"]}
    rows = [
        (name + models.get(name, ""), show_bytes(size, unit), o.share(size, peak), "#" * round(BARS * size / peak))
        for name, size in result["peak_parts"].items()
        if size or name != "gathered"
    ]
    phases = [(phase["phase"], phase["bytes"], phase["why"]) for phase in result["phases"]]
    at = result["peak_kernel"] if phases or not result["peak_kernel"] else f"in {result['peak_kernel']}"
    rows.append((f"peak, {result['peak_phase']}", show_bytes(peak, unit), "", at))
    strong = {len(rows) - 1}
    for phase, size, why in phases or [(name, result[f"{name}_peak_bytes"], "") for name in ("forward", "backward", "step")]:
        if phase != result["peak_phase"]:
            rows.append((f"{phase} peak", show_bytes(size, unit), o.share(size, peak), why))
    rows.append(("activations kept for backward", show_bytes(result["activation_bytes"], unit), "", ""))
    if result["reserved_bytes"]:
        rows.append(("reserved by torch's allocator", show_bytes(result["reserved_bytes"], unit), "", "after a few steps"))
    if result["host_bytes"]:
        rows.append(("in host memory, per GPU", show_bytes(result["host_bytes"], unit), "", ""))
    of_all = ("", "") if phases else (o.share(result["trainable"], result["total"]), "of all parameters")
    rows.append(("trained", show_count(result["trainable"]), *of_all))
    marks = {}
    if result["fits"] is not None:
        spare = result["available_bytes"] - result["required_bytes"]
        verdict = f"fits, {show_bytes(spare, unit)} spare" if result["fits"] else f"no, {show_bytes(-spare, unit)} over"
        rows.append((f"on {result['gpu']}", show_bytes(result["available_bytes"], unit), "", verdict))
        strong.add(len(rows) - 1)
        marks[verdict] = "good" if result["fits"] else "bad"
    if solve is not None:
        rows.append((SOLVED[solve], value(result["solved"]), "", ""))
        strong.add(len(rows) - 1)
    tokens = f"{result['seq']:,}"
    goal = "" if result["objective"] == "sft" else f"{result['objective']}, "
    heading = f"{o.marked(result['model'], result['estimate'])}: {goal}{title(recipe, tokens)}"
    if result["gpus"] > 1:
        heading += f", a GPU of stage {result['fullest_stage']}" if len(result["stages"]) > 1 else ", each GPU"
    return Table(heading, ("", ">", ">of the peak", ""), rows, frozenset(strong), marks)


def many(results: list[dict[str, Any]], recipe: Recipe, unit: str, solve: str | None = None) -> Table:
    """A row for each model."""
    verdict = ("verdict",) if results and results[0]["fits"] is not None else ()
    columns = (
        "model",
        ">?tokens",
        ">trained",
        ">?weights",
        ">?gradients",
        ">?optimizer",
        ">activations",
        ">peak",
        "phase",
        *verdict,
        *((f">{SOLVED[solve]}",) if solve else ()),
    )
    rows = [
        (
            o.marked(r["model"], r["estimate"]), f"{r['seq']:,}", show_count(r["trainable"]),
            show_bytes(r["parameter_bytes"], unit),
            show_bytes(r["gradient_bytes"], unit), show_bytes(r["optimizer_bytes"], unit), show_bytes(r["activation_bytes"], unit),
            show_bytes(r["peak_bytes"], unit), r["peak_phase"], *(("fits" if r["fits"] else "no",) if verdict else ()),
            *((value(r["solved"]),) if solve else ()),
        )
        for r in results
    ]  # fmt: skip
    lengths = {r["seq"] for r in results}
    tokens = f"{lengths.pop():,}" if len(lengths) == 1 else f"up to {max(lengths, default=recipe.seq):,}"
    heading = title(recipe, tokens)
    if solve is not None:
        heading = f"{SOLVED[solve]}: {recipe.precision}, {recipe.optimizer}, {recipe.attention} attention"
    return Table(heading, columns, rows, marks={"fits": "good", "no": "bad"})


def value(solved: int | str | None) -> str:
    """What was found, or that nothing was."""
    return "none" if solved is None else f"{solved:,}" if isinstance(solved, int) else solved


def ways(result: dict[str, Any], unit: str) -> Table:
    """The usual ways to train a model: the peak of each and, where a GPU was named, the longest sequence that fits."""
    fitted = result["available_bytes"] is not None
    columns = ("", "recompute", ">?trained", ">peak", "?phase", *(("verdict", ">longest sequence") if fitted else ()))
    rows = [
        (
            way["name"], way["recompute"], show_count(way["trainable"]), show_bytes(way["peak_bytes"], unit), way["peak_phase"],
            *(("fits" if way["fits"] else "no", value(way["max_seq"])) if fitted else ()),
        )
        for way in result["methods"]
    ]  # fmt: skip
    where = f" on {result['gpu']}" if fitted else ""
    heading = f"{o.marked(result['model'], result['estimate'])}{where}"
    heading += f": ways to train, {result['micro_batch']} x {result['seq']:,} tokens"
    return Table(heading, columns, rows, marks={"fits": "good", "no": "bad"})
