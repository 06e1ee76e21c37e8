"""llmcalc fit: does it fit on a GPU, with how much context, how many sequences, or how many GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from llmcalc.cli import options as o

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
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import parse_bytes, show_bytes, show_context

    form = o.form_of(form, json)
    if not gpu:
        raise UsageError("name a GPU: --gpu a100-80 (llmcalc gpus lists them)")
    asked, asked_encoder = o.context(ctx), o.context(encoder_ctx, "--encoder-ctx")
    kept = parse_bytes(reserve, "--reserve")
    cards = [resolve.gpu(name) for name in gpu]
    method = resolve.method(quant) if quant else resolve.unquantised()
    chosen, named = resolve.chosen(models, family)
    results, rows, notes, figures = [], [], [], []
    for m in chosen:
        tokens = resolve.context_of(asked, m.blueprint)
        encoder = o.encoder_tokens(asked_encoder, tokens, m.blueprint)
        demand = engine.Demand(m.blueprint, method, dtype or "", kv_dtype, kept, encoder)
        own = dtype or m.blueprint.dtype
        for card in cards:
            answer = engine.fit(demand, card.usable_bytes, gpus=gpus, context=tokens, batch=batch)
            spare = answer.available_bytes - answer.load.required_bytes
            results.append({
                "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "gpu": card.name,
                "quant": method.name, "dtype": own, "runtime": "transformers", "ctx": tokens, "batch": batch, "fits": answer.fits,
                "required_bytes": answer.load.required_bytes, "available_bytes": answer.available_bytes,
                "spare_bytes": spare, "weight_bytes": answer.load.weight_bytes, "kv_bytes": answer.load.kv_bytes,
                "activation_bytes": answer.load.activation_bytes, "overhead_bytes": answer.load.overhead_bytes,
                "deciding_gpu": answer.deciding_gpu, "total_weight_bytes": demand.weight_bytes,
                "total_kv_bytes": demand.cache_bytes(tokens, batch), "kv_tokens": answer.kv_tokens,
                "max_context": answer.max_context, "max_batch": answer.max_batch, "gpus": gpus, "min_gpus": answer.min_gpus,
            })  # fmt: skip
            verdict = f"fits, {show_bytes(spare, unit)} spare" if answer.fits else f"no, {show_bytes(-spare, unit)} over"
            rows.append((
                o.label(m.blueprint), *((card.name,) if len(cards) > 1 else ()), show_bytes(answer.load.weight_bytes, unit),
                show_bytes(answer.load.kv_bytes, unit), show_bytes(answer.load.required_bytes, unit), verdict,
                _most(answer.max_context, show_context), _most(answer.max_batch, str), _most(answer.min_gpus, str),
            ))  # fmt: skip
            if explain:
                stored = method.name if quant else own
                opened = engine.explain(demand, stored, card.usable_bytes, gpus=gpus, context=tokens, batch=batch)
                figures.append((f"{m.name} on {card.name}", opened))
        if named:
            notes += o.beyond(m.name, tokens, m.blueprint)
    for card in cards:
        notes.append(f"{card.name}: {show_bytes(card.usable_bytes, unit)} usable, {card.usable_source}")
    how = "weights and cache exact; working set of the forward pass and the reserve of "
    notes.append(f"{how}{show_bytes(kept, unit)} per GPU estimated" + ("; layers spread in order" if gpus > 1 else ""))
    notes += o.estimates([m.blueprint for m in chosen])
    per = "the fullest of " if gpus > 1 else ""
    title = f"{method.name if quant else 'As published'} on {per}{gpus} x {cards[0].name if len(cards) == 1 else 'GPU'}"
    title += f", context {show_context(asked or resolve.DEFAULT_CONTEXT)}, batch {batch}"
    columns = (
        "model", *(("GPU",) if len(cards) > 1 else ()), ">weights", ">KV", ">needed", "verdict", ">max ctx", ">max batch", ">GPUs",
    )  # fmt: skip
    marks = {row[-4]: ("good" if row[-4].startswith("fits") else "bad") for row in rows}
    inputs = {
        "models": models or [], "family": family, "gpu": [card.name for card in cards], "gpus": gpus, "quant": quant,
        "dtype": dtype, "ctx": asked or resolve.DEFAULT_CONTEXT, "batch": batch, "kv_dtype": kv_dtype,
        "encoder_ctx": asked_encoder, "reserve_bytes": kept,
    }  # fmt: skip
    document = Document("fit", inputs, results, [Table(title, columns, rows, marks=marks)], notes, figures)
    render(document, form, explain=explain, unit=unit)
    return 1 if named and not all(result["fits"] for result in results) else 0


def _most(value: int | None, show: Callable[[int], str]) -> str:
    """A bound as shown: a dash where there is none, and 0 where nothing fits."""
    return "-" if value is None else show(value)
