"""llmcalc flops: FLOPs of a pass over a context, of training on it, and of decoding a token at it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from llmcalc.cli import options as o

Mask = Annotated[
    Literal["full", "causal"],
    typer.Option("--mask", help="Attention counted over the whole square, or over the pairs that a causal mask and windows leave."),
]  # fmt: skip


def flops(
    models: o.NamedModels,
    ctx: o.Context = None,
    batch: o.Batch = 1,
    mask: Mask = "full",
    encoder_ctx: o.EncoderContext = None,
    explain: o.Explain = False,
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """FLOPs: forward, backward, training, prefill and per decoded token."""
    from llmcalc import resolve
    from llmcalc.engines import flops as engine
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import show_flops

    form = o.form_of(form, json)
    asked, asked_encoder = o.context(ctx), o.context(encoder_ctx, "--encoder-ctx")
    chosen = resolve.models(models)
    results, rows, notes, figures = [], [], [], []
    for m in chosen:
        tokens = resolve.context_of(asked, m.blueprint)
        encoder = m.blueprint.encoder_tokens(asked_encoder, tokens)
        c = engine.count(m.blueprint, tokens, batch, mask=mask, encoder_context=encoder)
        results.append({
            "model": m.name, "estimate": m.blueprint.estimate, "ctx": tokens, "encoder_ctx": encoder, "batch": batch,
            "forward_flops": c.forward, "backward_flops": c.backward, "training_flops": c.training,
            "prefill_flops": c.prefill, "decode_flops_per_token": c.decode_per_token,
            "forward_full_flops": c.forward_full, "forward_causal_flops": c.forward_causal,
            "vision_flops_per_image": c.vision_per_image,
        })  # fmt: skip
        step = "-" if c.decode_per_token is None else show_flops(c.decode_per_token)
        rows.append((
            o.label(m.blueprint), f"{tokens:,}", show_flops(c.forward_full), show_flops(c.forward_causal),
            show_flops(c.training), show_flops(c.prefill), step,
        ))  # fmt: skip
        notes += o.beyond(m.name, tokens, m.blueprint)
        if m.blueprint.unknown_cache:
            notes.append(f"{m.name}: without the attention over its context: {m.blueprint.unknown_cache}")
        if c.vision_per_image:
            notes.append(f"{m.name}: text only; an image adds {show_flops(c.vision_per_image)} in the vision tower")
        if explain:
            opened = [
                engine.explain(m.blueprint, tokens, batch, mask=mask, encoder_context=encoder),
                *engine.explain_training(c.forward),
                engine.explain(m.blueprint, tokens, batch, mask=mask, encoder_context=encoder, prefill=True),
            ]
            if m.blueprint.generates:
                opened.append(engine.explain_decode(m.blueprint, tokens, batch, encoder_context=encoder))
            figures += [o.figure(m, figure) for figure in opened]
    notes.append(f"a product of m x k and k x n costs 2mkn; backward is twice forward; training and prefill with the {mask} mask")
    notes += o.about(chosen)
    columns = ("model", ">context", ">forward, full", ">?causal", ">training", ">?prefill", ">per decoded token")
    title = f"FLOPs of {batch} sequence{'s' if batch > 1 else ''}"
    inputs = {
        "models": models, "ctx": asked or resolve.DEFAULT_CONTEXT, "batch": batch, "mask": mask, "encoder_ctx": asked_encoder,
    }  # fmt: skip
    render(Document("flops", inputs, results, [Table(title, columns, rows)], notes, figures), form, explain=explain)
    return 0
