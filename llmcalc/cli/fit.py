"""llmcalc fit: does it fit on a GPU, with how much context, how many sequences, or how many GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from llmcalc.report.document import Table

Gpus = Annotated[
    list[str] | None,
    typer.Option("--gpu", metavar="NAME", help="GPU (llmcalc gpus); may be given several times.", show_default=False),
]
Count = Annotated[int, typer.Option("--gpus", min=1, max=4096, metavar="N", help="How many of them.")]
Reserve = Annotated[
    str,
    typer.Option("--reserve", metavar="BYTES", help="Kept free on each GPU: CUDA context, workspaces, allocator slack."),
]


def fit(
    models: o.Models = None,
    family: o.Family = None,
    gpu: Gpus = None,
    gpus: Count = 1,
    quant: o.Quant = None,
    dtype: o.Dtype = None,
    ctx: o.Context = None,
    batch: o.Batch = 1,
    kv_dtype: o.KvDtype = "bf16",
    encoder_ctx: o.EncoderContext = None,
    reserve: Reserve = "1GiB",
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Does it fit: weights, KV cache and a stated reserve against a GPU's usable memory. Exit 1 if a named model does not."""
    from llmcalc import resolve
    from llmcalc.engines import fit as engine
    from llmcalc.errors import UsageError
    from llmcalc.report.document import Document
    from llmcalc.report.render import render
    from llmcalc.units import parse_bytes, show_bytes

    form = o.form_of(form, json)
    if not gpu:
        raise UsageError("name a GPU: --gpu a100-80 (llmcalc gpus lists them)")
    asked, asked_encoder = o.context(ctx), o.context(encoder_ctx, "--encoder-ctx")
    kept = parse_bytes(reserve, "--reserve")
    cards = [resolve.gpu(name) for name in gpu]
    chosen, named = resolve.chosen(models, family)
    if not named:
        # Of these nobody knows what a cache takes; asked for by name they are refused.
        chosen = [m for m in chosen if not m.blueprint.unknown_cache]
    results: list[dict[str, Any]] = []
    notes, figures = [], []
    native: dict[str, list[str]] = {}
    for m in chosen:
        tokens = resolve.context_of(asked, m.blueprint)
        method, stored = resolve.stored_as(m, quant, dtype)
        if quant is None and method.rules:
            native.setdefault(stored, []).append(m.name)
        demand = engine.Demand(m.blueprint, method, dtype or "", kv_dtype, kept, asked_encoder)
        for card in cards:
            answer = engine.fit(demand, card.usable_bytes, gpus=gpus, context=tokens, batch=batch)
            results.append({
                "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "gpu": card.name,
                "quant": method.name, "dtype": dtype or m.blueprint.dtype, "runtime": "transformers", "ctx": tokens, "batch": batch,
                "fits": answer.fits, "required_bytes": answer.load.required_bytes, "available_bytes": answer.available_bytes,
                "spare_bytes": answer.available_bytes - answer.load.required_bytes,
                "weight_bytes": answer.load.weight_bytes, "kv_bytes": answer.load.kv_bytes,
                "activation_bytes": answer.load.activation_bytes, "overhead_bytes": answer.load.overhead_bytes,
                "deciding_gpu": answer.deciding_gpu + 1, "total_weight_bytes": demand.weight_bytes,
                "total_kv_bytes": demand.cache_bytes(tokens, batch), "kv_tokens": answer.kv_tokens,
                "trained_context": m.blueprint.context, "max_context": answer.max_context, "max_batch": answer.max_batch,
                "gpus": gpus, "min_gpus": answer.min_gpus,
            })  # fmt: skip
            if explain:
                opened = engine.explain(demand, card.usable_bytes, gpus=gpus, context=tokens, batch=batch)
                figures.append(o.figure(m, opened, f" on {card.name}"))
        if named:
            notes += o.beyond(m.name, tokens, m.blueprint)
    notes += [f"{', '.join(names)}: published in {stored}; --dtype bf16 for 16 bits" for stored, names in native.items()]
    notes += [f"{card.name}: {show_bytes(card.usable_bytes, unit)} usable, {card.usable_source}" for card in cards]
    notes += [f"{card.name}: {card.spec.note}" for card in cards if card.spec.note and not card.is_measured]
    spread = f"; the layers stand on {gpus} GPUs in order, and the fullest decides" if gpus > 1 else ""
    exact = "weights and cache are exact, the working set of a forward pass is an estimate, the reserve of "
    notes.append(f"{exact}{show_bytes(kept, unit)} per GPU is stated{spread}")
    notes += o.about(chosen)
    alone = named and len(results) == 1
    inputs = {
        "models": models or [], "family": family, "gpu": [card.name for card in cards], "gpus": gpus, "quant": quant,
        "dtype": dtype, "ctx": asked or resolve.DEFAULT_CONTEXT, "batch": batch, "kv_dtype": kv_dtype,
        "encoder_ctx": asked_encoder, "reserve_bytes": kept,
    }  # fmt: skip
    table = _one(results[0], unit) if alone else _many(results, unit)
    render(Document("fit", inputs, results, [table], notes, figures), form, explain=explain, unit=unit)
    return 1 if named and not all(result["fits"] for result in results) else 0


def _bound(value: int | None, show: Callable[[int], str] = str) -> str:
    """A bound as shown: a dash where there is none, 0 where nothing fits."""
    return "-" if value is None else show(value)


def _verdict(result: dict[str, Any], unit: str) -> str:
    from llmcalc.units import show_bytes

    spare = result["spare_bytes"]
    return f"fits, {show_bytes(spare, unit)} spare" if result["fits"] else f"no, {show_bytes(-spare, unit)} over"


def _stored(result: dict[str, Any]) -> str:
    return str(result["dtype"] if result["quant"] == "none" else result["quant"])


def _one(result: dict[str, Any], unit: str) -> Table:
    """One model on one kind of GPU: what needs how much, and what would fit."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes, show_context

    gpus, verdict = result["gpus"], _verdict(result, unit)
    fullest = f"GPU {result['deciding_gpu']} of {gpus}" if gpus > 1 else result["gpu"]
    enough = "no number: a layer and the reserve are too much for one" if result["min_gpus"] is None else f"{result['min_gpus']}"
    certain = "estimated" if result["estimate"] else "exact"
    # What the model was trained for, or what the memory holds, whichever is less.
    limit = "as trained" if result["max_context"] == result["trained_context"] else "by memory" if result["max_context"] else ""
    rows = [
        (f"weights, {_stored(result)}", show_bytes(result["weight_bytes"], unit), certain),
        (f"cache, {result['ctx']:,} tokens x {result['batch']}", show_bytes(result["kv_bytes"], unit), certain),
        ("working set", show_bytes(result["activation_bytes"], unit), "estimated"),
        ("reserve", show_bytes(result["overhead_bytes"], unit), "stated"),
        (f"needed on {fullest}", show_bytes(result["required_bytes"], unit), ""),
        (f"usable on one {result['gpu']}", show_bytes(result["available_bytes"], unit), ""),
        ("verdict", verdict, ""),
        (f"largest context, batch {result['batch']}", _bound(result["max_context"], lambda n: f"{n:,} tokens"), limit),
        (f"largest batch, context {show_context(result['ctx'])}", _bound(result["max_batch"]), ""),
        ("GPUs it takes", enough, ""),
    ]
    title = f"{o.marked(result['model'], result['estimate'])} on {gpus} x {result['gpu']}"
    return Table(title, ("", ">", ""), rows, frozenset({4, 6}), {verdict: "good" if result["fits"] else "bad"})


def _many(results: list[dict[str, Any]], unit: str) -> Table:
    """A row for each model and kind of GPU."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes, show_context

    cards = list(dict.fromkeys(result["gpu"] for result in results))
    card = ("GPU",) if len(cards) > 1 else ()
    columns = ("model", *card, ">?weights", ">?cache", ">needed", "verdict", ">spare", ">max context", ">?max batch", ">GPUs")
    rows = [
        (
            o.marked(r["model"], r["estimate"]), *((r["gpu"],) if card else ()), show_bytes(r["weight_bytes"], unit),
            show_bytes(r["kv_bytes"], unit), show_bytes(r["required_bytes"], unit), "fits" if r["fits"] else "no",
            show_bytes(r["spare_bytes"], unit), _bound(r["max_context"], show_context), _bound(r["max_batch"]),
            _bound(r["min_gpus"]),
        )
        for r in results
    ]  # fmt: skip
    marks = {"fits": "good", "no": "bad"}
    gpus = results[0]["gpus"] if results else 1
    quants, contexts = {_stored(r) for r in results}, {r["ctx"] for r in results}
    stored = quants.pop() if len(quants) == 1 else "as published"
    context = show_context(contexts.pop()) if len(contexts) == 1 else f"up to {show_context(max(contexts, default=0))}"
    where = f"{gpus} x {cards[0]}" if len(cards) == 1 else f"{gpus} of each GPU"
    batch = results[0]["batch"] if results else 1
    return Table(f"{stored} on {where}, context {context}, batch {batch}", columns, rows, marks=marks)
