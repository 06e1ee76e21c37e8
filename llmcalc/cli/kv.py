"""llmcalc kv: what inference keeps per token and at a context."""

from __future__ import annotations

from llmcalc.cli import options as o


def kv(
    models: o.Models = None,
    family: o.Family = None,
    ctx: o.Context = None,
    batch: o.Batch = 1,
    kv_dtype: o.KvDtype = "bf16",
    encoder_ctx: o.EncoderContext = None,
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """KV cache: per token and at a context; windows capped, latents for MLA, states apart."""
    from llmcalc import resolve
    from llmcalc.engines import kv as engine
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import show_bytes

    form = o.form_of(form, json)
    asked, asked_encoder = o.context(ctx), o.context(encoder_ctx, "--encoder-ctx")
    chosen, named = resolve.chosen(models, family)
    if not named:
        # An encoder keeps nothing; a table of zeros helps nobody.
        chosen = [m for m in chosen if m.blueprint.caches and not m.blueprint.unknown_cache]
    results, rows, notes, figures = [], [], [], []
    for m in chosen:
        tokens = resolve.context_of(asked, m.blueprint)
        encoder = m.blueprint.encoder_tokens(asked_encoder, tokens)
        size = engine.size(m.blueprint, tokens, batch, kv_dtype, encoder)
        results.append({
            "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "ctx": tokens, "encoder_ctx": encoder,
            "batch": batch, "kv_dtype": kv_dtype,
            "kv_bytes": size.kv_bytes, "bytes_per_token": size.bytes_per_token,
            "bytes_per_token_windowed": size.bytes_per_token_windowed, "state_bytes": size.state_bytes,
            "cross_bytes": size.cross_bytes, "index_bytes": size.index_bytes, "total_bytes": size.total,
            "convention": engine.convention(m.blueprint),
        })  # fmt: skip
        rows.append((
            o.label(m.blueprint), f"{tokens:,}", show_bytes(size.bytes_per_token, unit), show_bytes(size.kv_bytes, unit),
            show_bytes(size.state_bytes + size.cross_bytes + size.index_bytes, unit), show_bytes(size.total, unit),
        ))  # fmt: skip
        if named:
            notes += o.beyond(m.name, tokens, m.blueprint)
            notes.append(f"{m.name}: {engine.convention(m.blueprint)}")
            if size.bytes_per_token_windowed != size.bytes_per_token:
                grows = show_bytes(size.bytes_per_token_windowed, unit)
                notes.append(f"{m.name}: until the windows are full a token adds {grows}, then the figure shown")
        if explain:
            if any(engine.entries(m.blueprint, "kv")):
                figures.append(o.figure(m, engine.explain_rate(m.blueprint, kv_dtype)))
            figures += [
                o.figure(m, engine.explain(m.blueprint, tokens, batch, kv_dtype, encoder, group))
                for group in ("kv", "cross", "state", "index")
                if any(engine.entries(m.blueprint, group))
            ]
    if not named:
        notes.append("windowed layers capped at their window; latents for MLA; cross-attention and states under 'other'")
    notes += o.about(chosen)
    columns = ("model", ">context", ">per token", ">KV cache", ">?other", ">?total")
    title = f"KV cache, {kv_dtype}, batch {batch}"
    inputs = {
        "models": models or [], "family": family, "ctx": asked or resolve.DEFAULT_CONTEXT, "batch": batch, "kv_dtype": kv_dtype,
        "encoder_ctx": asked_encoder,
    }  # fmt: skip
    document = Document("kv", inputs, results, [Table(title, columns, rows)], notes, figures)
    render(document, form, explain=explain, unit=unit)
    return 0
