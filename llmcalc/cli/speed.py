"""llmcalc speed: tokens per second, time to the first token and per token, what bounds it, what a million tokens cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmcalc.cli import options as o

Count = Annotated[
    int | None, typer.Option("--gpus", min=1, max=4096, metavar="N", help="How many of them; --tp unless said.", show_default=False)
]
Tensor = Annotated[
    int | None,
    typer.Option(
        "--tp", min=1, max=4096, metavar="N", help="GPUs that share each layer; all, where the runtime does.", show_default=False
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="vllm, sglang, llama.cpp, transformers or tensorrt-llm; llama.cpp for GGUF and Apple, else vllm.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="TOKENS",
        help="Tokens of a prompt; --ctx, where neither this nor --output is given.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", metavar="TOKENS", help="Tokens of an answer; speeds are its mean.", show_default=False)
]
Price = Annotated[
    float | None,
    typer.Option(
        "--price", min=0, max=1e9, metavar="DOLLARS", help="Per GPU-hour; the catalogue's quotes unless said.", show_default=False
    ),
]
DraftModel = Annotated[
    str | None, typer.Option("--draft", metavar="MODEL", help="A draft model, for speculative decoding.", show_default=False)
]
Acceptance = Annotated[
    float, typer.Option("--acceptance", min=0, max=1, metavar="SHARE", help="Probability that a drafted token is accepted.")
]
DraftTokens = Annotated[int, typer.Option("--draft-tokens", min=1, max=1024, metavar="N", help="Tokens drafted in a step.")]


def speed(
    models: o.Models = None,
    family: o.Family = None,
    gpu: o.Gpus = None,
    gpus: Count = None,
    tp: Tensor = None,
    quant: o.Quant = None,
    dtype: o.Dtype = None,
    kv_dtype: o.KvDtype = "bf16",
    ctx: o.Context = None,
    prompt: Prompt = None,
    output: Output = None,
    batch: o.Batch = 1,
    runtime: Runtime = None,
    price: Price = None,
    draft: DraftModel = None,
    acceptance: Acceptance = 0.7,
    draft_tokens: DraftTokens = 4,
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """How fast: prefill and decode by a roofline with measured efficiencies, each with its range; and what tokens cost."""
    from llmcalc import resolve
    from llmcalc.cli import speed_rows as rows
    from llmcalc.errors import UsageError
    from llmcalc.report.document import Document
    from llmcalc.report.render import render

    form = o.form_of(form, json)
    if not gpu:
        raise UsageError("name a GPU: --gpu h100-sxm (llmcalc gpus lists them)")
    for option, value in (("--price", price), ("--acceptance", acceptance)):
        if value is not None and value != value:
            raise UsageError(f"{option} nan is not a number")
    asked = rows.lengths(o.context(ctx), o.context(prompt, "--prompt"), o.context(output, "--output"))
    cards, here = o.gpus_named(gpu)
    count = gpus or tp or here or 1
    drafter = None if draft is None else resolve.model(draft)
    chosen, named = resolve.chosen(models, family)
    if not named:
        # Asked for by name these are refused.
        chosen = [m for m in chosen if m.blueprint.generates and m.blueprint.ops and not m.blueprint.unknown_cache]
    results: list[dict[str, Any]] = []
    notes: list[str] = []
    figures = []
    for m in chosen:
        first, answer = asked or (resolve.context_of(None, m.blueprint), 1)
        for card in cards:
            question = rows.Question(
                m, card, count, tp, quant, dtype, kv_dtype, first, answer, batch, runtime, price,
                drafter and (drafter, acceptance, draft_tokens),
            )  # fmt: skip
            found = rows.answer(question)
            results.append(found.result)
            notes += found.notes if named else [note for note in found.notes if not note.startswith(m.name)]
            if explain:
                figures += [o.figure(m, figure, f" on {card.name}") for figure in found.figures]
        if named:
            notes += o.beyond(m.name, first + answer, m.blueprint)
    notes += o.about(chosen)
    inputs = {
        "models": models or [], "family": family, "gpu": [card.name for card in cards], "gpus": count, "tp": tp,
        "quant": quant, "dtype": dtype, "kv_dtype": kv_dtype, "ctx": asked and sum(asked), "prompt": asked and asked[0],
        "output": asked and asked[1], "batch": batch, "runtime": runtime, "price": price, "draft": draft,
        "acceptance": acceptance if draft else None, "draft_tokens": draft_tokens if draft else None,
    }  # fmt: skip
    tables = rows.one(results[0], unit) if named and len(results) == 1 else [rows.many(results)]
    render(Document("speed", inputs, results, tables, list(dict.fromkeys(notes)), figures), form, explain=explain, unit=unit)
    return 0
