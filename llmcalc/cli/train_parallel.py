"""A training step on many GPUs as tables and results: what each pipeline stage's rank holds, and what it sends."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmcalc.errors import NoAnswer, UsageError

if TYPE_CHECKING:
    from llmcalc.blueprint.parts import Blueprint
    from llmcalc.engines.layout import Layout
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.stages import Parallel, Stage
    from llmcalc.report.document import Table


SWITCHED = (
    "divided layers are counted as Megatron's kernels keep them, in 16 bits, since this layout is not followed under torch's"
    " (--precision megatron says so; --zero 0, 1, 2 and fsdp without --ep are)"
)
COPIES = (
    "autocast keeps 16-bit copies of all weights through the forward pass; trainers that divide weights have --precision bf16 "
    "--shard-dtype fp32 instead"
)
FULL = (
    "torch's allocator would reserve more than the GPU has: it gives back what is free and asks anew, which takes time, and may "
    "find no whole block (PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True helps)"
)


def layout_of(layout: Layout, gpus: int | None, dp: int | None) -> Layout:
    """The layout with its data parallelism: as typed, or what the other degrees leave of all GPUs. Raises UsageError."""
    one = layout.tp * layout.pp * layout.cp
    if gpus is None:
        return layout._replace(dp=dp or 1)
    if gpus % one or (dp is not None and dp * one != gpus):
        degrees = " x ".join(
            f"--{name} {n}" for name, n in (("tp", layout.tp), ("pp", layout.pp), ("cp", layout.cp), ("dp", dp)) if n
        )
        raise UsageError(f"--gpus {gpus} is not {'a multiple of ' if dp is None else ''}{degrees}, {one * (dp or 1)}")
    return layout._replace(dp=gpus // one)


def figures(blueprint: Blueprint, recipe: Recipe, found: Parallel, *, named: bool = True) -> dict[str, Any]:
    """The keys of a result that say where what stands, and what goes over the links. torch's allocator is followed only
    where a model was named: it takes a while."""
    from llmcalc.engines.reserved import follows, reserved
    from llmcalc.engines.traffic import traffic

    fullest = found.fullest
    layout, held = found.layout, None
    if layout.gpus == 1:  # ZeRO divides by one
        layout = layout._replace(zero="fsdp" if layout.level == 3 else "0", shard=0)
    if named and follows(recipe, layout):
        with suppress(NoAnswer):
            held = reserved(blueprint, recipe, layout).reserved
    sent = traffic(blueprint, recipe, found.layout, fullest.stage) if found.layout.gpus > 1 else []
    return {
        "gpus": found.layout.gpus, "layout": found.layout._asdict(), "stages": [_stage(stage) for stage in found.stages],
        "fullest_stage": fullest.stage, "imbalance": found.imbalance, "reserved_bytes": held,
        "host_bytes": fullest.held.host,
        "traffic": [{**row._asdict(), "sent": row.sent} for row in sent],
    }  # fmt: skip


def tables(result: dict[str, Any], unit: str) -> list[Table]:
    """The stages of a result, and the traffic of the one that decides; nothing for one GPU."""
    return [_memory(result, unit), _sent(result, unit)] if result["gpus"] > 1 else []


def _stage(stage: Stage) -> dict[str, Any]:
    held, kept = stage.held, stage.activations
    return {
        "stage": stage.stage, "ranks": stage.ranks, "layers": stage.layers, "in_flight": list(stage.in_flight),
        "elements": held.elements, "parameter_bytes": held.parameters, "gradient_bytes": held.gradients,
        "optimizer_bytes": held.optimizer, "buffer_bytes": held.buffers, "gathered_bytes": stage.training.parts["gathered"],
        "host_bytes": held.host,
        "padding": held.padding, "input_bytes": stage.input_bytes, "placeholder_bytes": stage.placeholders,
        "activation_bytes": kept.kept,
        "activation_parts": {"layers": kept.layers, "embedding": kept.embedding, "head": kept.head}, "passing_bytes": kept.passing,
        "peak_bytes": stage.peak_bytes,
    }  # fmt: skip


def _memory(result: dict[str, Any], unit: str) -> Table:
    """A row for each pipeline stage, whose ranks are alike; the one that decides is set off."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes

    def size(value: int) -> str:
        return show_bytes(value, unit)

    columns = ("stage", ">?GPUs", ">layers", ">?in flight", ">weights", ">?gradients", ">?optimizer", ">activations", ">?passing",
               ">peak", "")  # fmt: skip
    stages, fullest = result["stages"], result["fullest_stage"]
    rows = [
        (
            str(stage["stage"]), f"{stage['ranks']:,}", str(stage["layers"]), "+".join(map(str, stage["in_flight"])),
            size(stage["parameter_bytes"]), size(stage["gradient_bytes"]), size(stage["optimizer_bytes"]),
            size(stage["activation_bytes"]), size(stage["passing_bytes"] + stage["gathered_bytes"] + stage["placeholder_bytes"]),
            size(stage["peak_bytes"]), "decides" if stage["stage"] == fullest and len(stages) > 1 else "",
        )
        for stage in stages
    ]  # fmt: skip
    return Table(title(result["layout"], result["gpus"]), columns, rows, frozenset({fullest}))


def title(layout: dict[str, Any], gpus: int) -> str:
    """How the GPUs divide the work."""
    degrees = {"tensor": "tp", "pipeline": "pp", "data": "dp", "context": "cp", "expert": "ep"}
    said = ", ".join(f"{name} {layout[degree]}" for name, degree in degrees.items() if layout[degree] > 1)
    zero = {"0": "", "fsdp": ", fsdp"}.get(layout["zero"], f", ZeRO-{layout['zero']}")
    schedule = f", {layout['schedule']}" if layout["pp"] > 1 else ""
    return f"{gpus:,} GPUs: {said}{zero}{schedule}"


def _sent(result: dict[str, Any], unit: str) -> Table:
    """What a rank of the fullest stage sends in a step."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes

    rows = [
        (
            row["what"], row["collective"], row["link"], str(row["ranks"]), f"{row['calls']:,}", show_bytes(row["carried"], unit),
            show_bytes(row["sent"], unit),
        )
        for row in result["traffic"]
    ]  # fmt: skip
    columns = ("sent", "?collective", "along", ">?ranks", ">?calls", ">?carried", ">sent by each")
    return Table(f"Traffic of a step, per GPU of stage {result['fullest_stage']}", columns, rows)
