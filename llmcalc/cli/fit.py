"""llmcalc fit: does it fit on a GPU, with how much context, how many sequences, or how many GPUs; and solved for one of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from llmcalc.cli.fit_rows import Question

Number = Annotated[int | None, typer.Option("--gpus", min=1, max=4096, metavar="N", help="How many of them.", show_default="1")]
Reserve = Annotated[
    str | None,
    typer.Option(
        "--reserve",
        metavar="BYTES",
        help="Kept free on each GPU, without --runtime: context, workspaces, slack.",
        show_default="1GiB",
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime", metavar="NAME[@VERSION]", help="As vllm, sglang, llama.cpp or transformers holds a model.", show_default=False
    ),
]
Utilization = Annotated[
    float | None,
    typer.Option("--utilization", min=0.01, max=1.0, help="Share of the memory that the runtime takes.", show_default="by version"),
]
Tensor = Annotated[int | None, typer.Option("--tp", min=1, max=1024, metavar="N", help="Tensor parallelism.", show_default=False)]
Pipeline = Annotated[int | None, typer.Option("--pp", min=1, max=1024, metavar="N", help="Pipeline stages.", show_default=False)]
Experts = Annotated[int | None, typer.Option("--ep", min=1, max=1024, metavar="N", help="Expert parallelism.", show_default=False)]
Data = Annotated[int | None, typer.Option("--dp", min=1, max=1024, metavar="N", help="Data parallelism.", show_default=False)]
GpuLayers = Annotated[
    int | None, typer.Option("--ngl", min=0, max=10_000, metavar="N", help="llama.cpp: layers on GPUs.", show_default="all")
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--ubatch",
        min=1,
        max=2**20,
        metavar="TOKENS",
        help="Prompt tokens read at once (vLLM's max_num_batched_tokens).",
        show_default="by runtime",
    ),
]
Sequences = Annotated[
    int | None,
    typer.Option("--max-num-seqs", min=1, max=2**20, metavar="N", help="vLLM: sequences it prepares for.", show_default="by GPU"),
]
Pool = Annotated[
    str | None,
    typer.Option(
        "--kv-memory", metavar="BYTES", help="vLLM, SGLang: memory of the cache per GPU, in place of the rest.", show_default=False
    ),
]
Flash = Annotated[
    bool | None,
    typer.Option("--flash-attention/--no-flash-attention", help="llama.cpp: flash attention.", show_default="flash-attention"),
]
Solve = Annotated[
    Literal["context", "batch", "gpus", "gpu", "quant", "model"] | None,
    typer.Option(
        "--solve",
        help="Largest context, largest batch, fewest GPUs, cheapest GPU, best quantisation, or largest model that fits.",
        show_default=False,
    ),
]
ValueDtype = Annotated[
    str | None, typer.Option("--value-dtype", help="Element type of the cached values, where another.", show_default=False)
]
StateDtype = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    typer.Option("--state-dtype", help="vLLM, SGLang: element type of recurrent states.", show_default="fp32"),
]
Eager = Annotated[bool, typer.Option("--enforce-eager", help="vLLM: no CUDA graphs.")]


def fit(
    models: o.Models = None,
    family: o.Family = None,
    gpu: o.Gpus = None,
    gpus: Number = None,
    quant: o.Quant = None,
    dtype: o.Dtype = None,
    ctx: o.Context = None,
    batch: o.Batch = 1,
    kv_dtype: o.KvDtype = "bf16",
    value_dtype: ValueDtype = None,
    state_dtype: StateDtype = None,
    encoder_ctx: o.EncoderContext = None,
    reserve: Reserve = None,
    runtime: Runtime = None,
    utilization: Utilization = None,
    tp: Tensor = None,
    pp: Pipeline = None,
    ep: Experts = None,
    dp: Data = None,
    ngl: GpuLayers = None,
    ubatch: MicroBatch = None,
    max_num_seqs: Sequences = None,
    kv_memory: Pool = None,
    flash_attention: Flash = None,
    enforce_eager: Eager = False,
    solve: Solve = None,
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Does it fit: weights, cache and working memory against a GPU's memory, on its own or as a runtime serves it.

    Exit 1 if a named model does not fit, or --solve finds nothing.
    """
    from llmcalc import hardware, resolve
    from llmcalc.cli import fit_rows, fit_tables
    from llmcalc.errors import UsageError
    from llmcalc.report.document import Document
    from llmcalc.report.render import render
    from llmcalc.units import parse_bytes

    form = o.form_of(form, json)
    cards, found = _cards(gpu, solve)
    serving = hardware.runtime(runtime) if runtime else None
    degrees = {"tp": tp, "pp": pp, "ep": ep, "dp": dp}
    only = {"utilization": utilization, "ngl": ngl, "ubatch": ubatch, "max-num-seqs": max_num_seqs, "kv-memory": kv_memory,
            "value-dtype": value_dtype, "state-dtype": state_dtype,
            "enforce-eager": enforce_eager or None, "flash-attention": flash_attention, **degrees}  # fmt: skip
    _check(only, serving, reserve)
    kept = parse_bytes(reserve, "--reserve") if reserve else fit_rows.RESERVE
    question = fit_rows.Question(
        quant=quant, dtype=dtype, context=o.context(ctx), batch=batch, kv_dtype=kv_dtype, value_dtype=_dtype(value_dtype),
        state_dtype=state_dtype,
        encoder=o.context(encoder_ctx, "--encoder-ctx"), reserve=kept, gpus=gpus or found, runtime=serving, utilization=utilization,
        degrees=degrees, ngl=ngl, ubatch=ubatch, sequences=max_num_seqs,
        pool=parse_bytes(kv_memory, "--kv-memory") if kv_memory else None, flash=flash_attention is not False, eager=enforce_eager,
    )  # fmt: skip
    chosen, named = resolve.chosen(models, family)
    if solve == "quant" and quant is not None:
        raise UsageError("--solve quant looks for the quantisation; leave --quant out")
    if solve:
        from llmcalc.cli import fit_solve

        rows, notes = fit_solve.solved(question, solve, chosen, cards, named=named)
    else:
        rows, notes = fit_rows.rows(question, chosen, cards, named=named)
    figures = [fit_rows.figure(row) for row in rows] if explain else []
    results = [row.result for row in rows]
    notes += fit_rows.notes(question, chosen, rows, cards, unit, named=named)
    inputs = {
        "models": models or [], "family": family, "gpu": [card.name for card in cards], "gpus": gpus or found or 1, "quant": quant,
        "dtype": dtype, "ctx": question.context or resolve.DEFAULT_CONTEXT, "batch": batch, "kv_dtype": kv_dtype,
        "encoder_ctx": question.encoder, "reserve_bytes": kept, "runtime": runtime, "solve": solve,
        **{key.replace("-", "_"): value for key, value in only.items()},
        "flash_attention": flash_attention is not False,
    }  # fmt: skip
    one = len(results) == 1 and (named or solve is not None)
    tables = []
    if form != "json" and results:
        tables = [fit_tables.one(results[0], unit) if one else fit_tables.many(results, unit)]
    render(Document("fit", inputs, results, tables, notes, figures), form, explain=explain, unit=unit)
    if solve:
        return 0 if results and all(result["fits"] for result in results) else 1
    return 1 if named and not all(result["fits"] for result in results) else 0


def _cards(names: list[str] | None, solve: str | None) -> tuple[list[Any], int | None]:
    """The GPUs asked for, and how many of them this machine has where it was asked."""
    from llmcalc import hardware
    from llmcalc.errors import UsageError

    if not names:
        if solve == "gpu":
            from llmcalc.specs import catalogue

            return [hardware.gpu(name) for name in catalogue.entries("gpus")], None
        raise UsageError("name a GPU: --gpu a100-80 (llmcalc gpus lists them)")
    return o.gpus_named(names)


def _check(only: dict[str, Any], serving: Any, reserve: str | None) -> None:
    """Raises UsageError for options that belong to another way of holding a model, and a share that is no number."""
    from llmcalc.errors import UsageError

    if only["utilization"] != only["utilization"]:
        raise UsageError("--utilization nan is not a number")
    if serving is None:
        for name, value in only.items():
            if value is not None:
                raise UsageError(f"--{name} is for a runtime: name one, --runtime vllm")
        return
    if reserve is not None:
        raise UsageError("--reserve is for fit without --runtime; a runtime keeps what it keeps")
    homes = {
        "ngl": ("cells",), "max-num-seqs": ("paged",), "enforce-eager": ("paged",), "kv-memory": ("paged", "static"),
        "state-dtype": ("paged", "static"), "ubatch": ("paged", "cells"), "value-dtype": ("paged", "static", "cells"),
        "flash-attention": ("cells",),
    }  # fmt: skip
    for name, kinds in homes.items():
        if only[name] is not None and serving.kind not in kinds:
            raise UsageError(f"--{name} is not for --runtime {serving.name}")


def _dtype(name: str | None) -> str | None:
    from llmcalc.engines.kv import CACHE_BITS
    from llmcalc.errors import UsageError

    if name is not None and name not in CACHE_BITS:
        raise UsageError(f"--value-dtype: found {name!r}, allowed: {', '.join(CACHE_BITS)}")
    return name


__all__ = ["Question", "fit"]
