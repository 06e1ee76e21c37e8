"""A training step on many GPUs as tables and results: what each pipeline stage's rank holds, and what it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcalc.blueprint.parts import Blueprint
    from llmcalc.engines.layout import Layout
    from llmcalc.engines.parallel import Parallel, Stage
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.traffic import Traffic
    from llmcalc.report.document import Table


def spread(blueprint: Blueprint, recipe: Recipe, layout: Layout, unit: str = "GiB") -> tuple[dict[str, Any], list[Table]]:
    """The result's keys and the tables. Raises UsageError and NoAnswer as the engines do."""
    from llmcalc.engines.parallel import plan
    from llmcalc.engines.traffic import traffic

    found = plan(blueprint, recipe, layout)
    sent = traffic(blueprint, recipe, layout, found.fullest.stage)
    result = {
        "gpus": layout.gpus, "layout": layout._asdict(), "stages": [_stage(stage) for stage in found.stages],
        "fullest_stage": found.fullest.stage, "peak_bytes": found.fullest.peak_bytes, "imbalance": found.imbalance,
        "traffic": [{**row._asdict(), "sent": row.sent} for row in sent],
    }  # fmt: skip
    return result, [_memory(found, unit), _sent(sent, found.fullest, unit)]


def _stage(stage: Stage) -> dict[str, Any]:
    held, kept = stage.held, stage.activations
    return {
        "stage": stage.stage, "ranks": stage.ranks, "layers": stage.layers, "in_flight": list(stage.in_flight),
        "elements": held.elements, "parameter_bytes": held.parameters, "gradient_bytes": held.gradients,
        "optimizer_bytes": held.optimizer, "buffer_bytes": held.buffers, "gathered_bytes": held.gathered, "host_bytes": held.host,
        "padding": held.padding, "input_bytes": stage.training.input_bytes, "placeholder_bytes": stage.placeholders,
        "activation_bytes": kept.kept,
        "activation_parts": {"layers": kept.layers, "embedding": kept.embedding, "head": kept.head}, "passing_bytes": kept.passing,
        "peak_bytes": stage.peak_bytes,
    }  # fmt: skip


def _memory(found: Parallel, unit: str) -> Table:
    """A row for each pipeline stage, whose ranks are alike; the one that decides is set off."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes

    def size(value: int) -> str:
        return show_bytes(value, unit)

    layout, fullest = found.layout, found.fullest
    degrees = {"tensor": layout.tp, "pipeline": layout.pp, "data": layout.dp, "context": layout.cp, "expert": layout.ep}
    said = ", ".join(f"{name} {ranks}" for name, ranks in degrees.items() if ranks > 1) or "one"
    zero = "" if layout.level == 0 else ", fsdp" if layout.zero == "fsdp" else f", ZeRO-{layout.zero}"
    columns = ("stage", ">?GPUs", ">layers", ">in flight", ">weights", ">?gradients", ">?optimizer", ">activations", ">?passing",
               ">peak", "")  # fmt: skip
    rows = [
        (
            str(stage.stage), str(stage.ranks), str(stage.layers), "+".join(map(str, stage.in_flight)), size(stage.held.parameters),
            size(stage.held.gradients), size(stage.held.optimizer), size(stage.activations.kept),
            size(stage.activations.passing + stage.held.gathered + stage.placeholders), size(stage.peak_bytes),
            "decides" if stage is fullest and len(found.stages) > 1 else "",
        )
        for stage in found.stages
    ]  # fmt: skip
    return Table(f"{layout.gpus} GPUs: {said}{zero}, {layout.schedule}", columns, rows, frozenset({fullest.stage}))


def _sent(sent: list[Traffic], stage: Stage, unit: str) -> Table:
    """What a rank of the fullest stage sends in a step."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes

    rows = [
        (
            row.what,
            row.collective,
            row.link,
            str(row.ranks),
            f"{row.calls:,}",
            show_bytes(row.carried, unit),
            show_bytes(row.sent, unit),
        )
        for row in sent
    ]
    columns = ("sent", "collective", "along", ">ranks", ">calls", ">?carried", ">sent by each")
    return Table(f"Traffic of a step, per rank of stage {stage.stage}", columns, rows)
