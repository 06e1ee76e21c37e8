"""llmcalc train: the memory of one training or fine-tuning step on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from llmcalc.engines.recipe import Recipe
    from llmcalc.engines.training import Training
    from llmcalc.report.document import Table

Precision = Annotated[
    Literal["fp32", "bf16", "amp", "megatron"],
    typer.Option(
        "--precision",
        help="bf16: weights, gradients and states; amp: bf16 autocast over fp32 weights (over a bf16 base where an adapter is "
        "trained); megatron: bf16 weights, fp32 gradients and master copy.",
    ),
]
Optimizer = Annotated[
    Literal[
        "adamw", "adamw8bit", "paged-adamw", "paged-adamw8bit", "adafactor", "lion", "sgd", "sgd-momentum", "muon", "galore", "lomo"
    ],
    typer.Option("--optimizer", help="adamw is torch's fused one; paged states stand in host memory."),
]
Method = Annotated[
    Literal["full", "lora", "dora", "qlora", "ia3", "adapter", "prefix", "prompt", "ln", "bitfit", "head"],
    typer.Option("--method", help="What is trained: everything, an adapter beside a frozen base, or a part of the model."),
]
Rank = Annotated[
    int, typer.Option("--rank", min=1, max=2**20, metavar="N", help="LoRA's rank; the width of adapter; tokens of prefix, prompt.")
]
Targets = Annotated[
    str | None,
    typer.Option(
        "--targets", metavar="LIST", help="Linears to adapt: q,v or all or a list. q,v; for ia3 k,v,down.", show_default=False
    ),
]
AdapterDtype = Annotated[Literal["fp32", "bf16"], typer.Option("--adapter-dtype", help="Type of an adapter; peft makes it fp32.")]
Attention = Annotated[
    Literal["flash", "efficient", "eager"] | None,
    typer.Option("--attention", help="Kernel. flash, or efficient with fp32, which flash has not.", show_default=False),
]
Recompute = Annotated[
    Literal["none", "selective", "full"],
    typer.Option("--recompute", help="Recomputed in backward: nothing, attention's scores, or whole layers from their input."),
]
Seq = Annotated[
    str | None,
    typer.Option(
        "--seq", metavar="TOKENS", help="Tokens per sequence; 2048, or the trained context where shorter.", show_default=False
    ),
]
MicroBatch = Annotated[int, typer.Option("--micro-batch", min=1, max=2**20, metavar="N", help="Sequences in one pass.")]
Accumulate = Annotated[int, typer.Option("--accumulate", min=1, max=2**20, metavar="N", help="Passes whose gradients are summed.")]
Loss = Annotated[
    Literal["plain", "fused", "chunked"],
    typer.Option("--loss", help="plain: whole logits in fp32, as transformers does; fused with the head (Liger), or in chunks."),
]
GpuName = Annotated[
    str | None, typer.Option("--gpu", metavar="NAME", help="Does it fit on this GPU (llmcalc gpus).", show_default=False)
]
Reserve = Annotated[
    str, typer.Option("--reserve", metavar="BYTES", help="Kept free on the GPU: CUDA context, workspaces, allocator slack.")
]
LoraDropout = Annotated[float, typer.Option("--lora-dropout", min=0.0, max=0.999, metavar="P", help="Dropout before LoRA.")]
NoDropout = Annotated[bool, typer.Option("--no-dropout", help="Leave out the dropout that the model was published with.")]
KbitPrepare = Annotated[
    bool, typer.Option("--kbit-prepare", help="qlora: hold what is not quantised in fp32, as peft's helper does.")
]
Foreach = Annotated[bool, typer.Option("--foreach", help="AdamW's multi-tensor form, torch's default where it is not fused.")]
KeepLogits = Annotated[bool, typer.Option("--keep-logits", help="The caller keeps the model's outputs until the step.")]
StateEmbeddings = Annotated[
    Literal["fp32"] | None,
    typer.Option(
        "--state-embeddings", help="Keep embeddings out of 8-bit states, as transformers' Trainer does.", show_default=False
    ),
]
BARS = 24
DEFAULT_SEQ = 2048
TARGETS = {"ia3": ("k", "v", "down")}


def train(
    models: o.Models = None,
    family: o.Family = None,
    seq: Seq = None,
    micro_batch: MicroBatch = 1,
    precision: Precision = "bf16",
    optimizer: Optimizer = "adamw",
    method: Method = "full",
    rank: Rank = 8,
    targets: Targets = None,
    adapter_dtype: AdapterDtype = "fp32",
    lora_dropout: LoraDropout = 0.0,
    kbit_prepare: KbitPrepare = False,
    attention: Attention = None,
    recompute: Recompute = "none",
    accumulate: Accumulate = 1,
    loss: Loss = "plain",
    no_dropout: NoDropout = False,
    foreach: Foreach = False,
    state_embeddings: StateEmbeddings = None,
    keep_logits: KeepLogits = False,
    gpu: GpuName = None,
    reserve: Reserve = "1GiB",
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Memory of one training step: weights, gradients, optimizer, activations, and where the peak is. Exit 1 if it does not fit."""
    from llmcalc import hardware, resolve
    from llmcalc.engines import training as engine
    from llmcalc.engines.recipe import ITEMS, Recipe
    from llmcalc.errors import NoAnswer
    from llmcalc.report.document import Document
    from llmcalc.report.render import render
    from llmcalc.units import parse_bytes, show_bytes

    form = o.form_of(form, json)
    asked, kept = o.context(seq, "--seq"), parse_bytes(reserve, "--reserve")
    card = None if gpu is None else hardware.gpu(gpu)
    chosen, named = resolve.chosen(models, family)
    kernel = attention or ("efficient" if precision == "fp32" else "flash")
    recipe = Recipe(
        DEFAULT_SEQ, micro_batch, precision, optimizer, foreach, state_embeddings or "", method, rank, _targets(targets, method),
        ITEMS[adapter_dtype], lora_dropout, kbit_prepare, kernel, recompute, accumulate, keep_logits, not no_dropout, loss,
    )  # fmt: skip
    results: list[dict[str, Any]] = []
    notes, figures, unknown = [], [], []
    for m in chosen:
        own = recipe._replace(seq=asked or min(DEFAULT_SEQ, m.blueprint.context or DEFAULT_SEQ))
        blueprint = resolve.as_trained(m)
        try:
            answer = engine.count(blueprint, own)
        except NoAnswer:
            if named:
                raise
            unknown.append(m.name)
            continue
        required = answer.peak_bytes + kept
        results.append({
            "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "seq": own.seq, **_figures(answer),
            "gpu": None if card is None else card.name, "available_bytes": None if card is None else card.usable_bytes,
            "required_bytes": required, "fits": None if card is None else required <= card.usable_bytes,
        })  # fmt: skip
        if named:
            notes += o.beyond(m.name, own.seq, m.blueprint)
            if blueprint is not m.blueprint:
                notes.append(f"{m.name}: with the head of masked language modelling, and no pooler")
        if explain:
            figures += [o.figure(m, opened) for opened in engine.explain(blueprint, own)]
    if card is not None:
        notes.append(f"{card.name}: {show_bytes(card.usable_bytes, unit)} usable, {card.usable_source}")
    if unknown:
        notes.append(f"not known what training keeps, left out: {', '.join(unknown)}")
    held = "the CUDA context, library workspaces and allocator slack are not in the peak"
    notes.append(
        f"torch's eager mode and transformers; {held}; {show_bytes(kept, unit)} is kept for them where --gpu asks for a verdict"
    )
    notes += o.about(chosen)
    inputs = {
        "models": models or [], "family": family, "seq": asked or DEFAULT_SEQ, "micro_batch": micro_batch, "precision": precision,
        "optimizer": optimizer, "method": method, "rank": rank, "targets": list(recipe.targets), "adapter_dtype": adapter_dtype,
        "lora_dropout": lora_dropout, "kbit_prepare": kbit_prepare, "attention": kernel, "recompute": recompute,
        "accumulate": accumulate, "loss": loss, "dropout": not no_dropout, "foreach": foreach, "state_embeddings": state_embeddings,
        "keep_logits": keep_logits, "gpu": gpu, "reserve_bytes": kept,
    }  # fmt: skip
    alone = named and len(results) == 1
    table = _one(results[0], recipe, unit) if alone else _many(results, recipe, unit)
    render(Document("train", inputs, results, [table], notes, figures), form, explain=explain, unit=unit)
    return 1 if named and any(result["fits"] is False for result in results) else 0


def _targets(said: str | None, method: str) -> tuple[str, ...]:
    """The linears to adapt, as typed. Raises UsageError."""
    from llmcalc.errors import UsageError

    if said is None:
        return TARGETS.get(method, ("q", "v"))
    found = tuple(dict.fromkeys(name.strip() for name in said.split(",") if name.strip()))
    if not found:
        raise UsageError("--targets is empty: q,v or all or a list of linears")
    if "all" in found and len(found) > 1:
        raise UsageError("--targets all is every linear; name no others beside it")
    return found


def _figures(answer: Training) -> dict[str, Any]:
    """The keys of a result that the engine gives."""
    return {
        "parameter_bytes": answer.parameter_bytes, "buffer_bytes": answer.buffer_bytes, "input_bytes": answer.input_bytes,
        "gradient_bytes": answer.gradient_bytes, "optimizer_bytes": answer.optimizer_bytes,
        "activation_bytes": answer.activation_bytes, "forward_peak_bytes": answer.peaks["forward"],
        "backward_peak_bytes": answer.peaks["backward"], "step_peak_bytes": answer.peaks["step"],
        "peak_bytes": answer.peak_bytes, "peak_phase": answer.peak_phase, "peak_parts": answer.parts, "peak_kernel": answer.kernel,
        "trainable": answer.trainable, "total": answer.total, "trainable_share": answer.trainable / answer.total,
    }  # fmt: skip


def _title(recipe: Recipe, tokens: str) -> str:
    adapted = (
        recipe.method if recipe.method == "full" else f"{recipe.method} of rank {recipe.rank}" if recipe.adapts else recipe.method
    )
    return (
        f"{adapted}, {recipe.precision}, {recipe.optimizer}, {recipe.micro_batch} x {tokens} tokens, {recipe.attention} attention"
    )


def _one(result: dict[str, Any], recipe: Recipe, unit: str) -> Table:
    """One model: what the peak is made of, with a bar for each part, and the phases."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes, show_count

    peak = result["peak_bytes"]
    rows = [
        (name, show_bytes(size, unit), o.share(size, peak), "#" * round(BARS * size / peak))
        for name, size in result["peak_parts"].items()
    ]
    rows.append((f"peak, {result['peak_phase']}", show_bytes(peak, unit), "", f"in {result['peak_kernel']}"))
    strong = {len(rows) - 1}
    for phase in ("forward", "backward", "step"):
        if phase != result["peak_phase"]:
            size = result[f"{phase}_peak_bytes"]
            rows.append((f"{phase} peak", show_bytes(size, unit), o.share(size, peak), ""))
    rows.append(("activations kept for backward", show_bytes(result["activation_bytes"], unit), "", ""))
    rows.append(("trained", show_count(result["trainable"]), o.share(result["trainable"], result["total"]), "of all parameters"))
    marks = {}
    if result["fits"] is not None:
        spare = result["available_bytes"] - result["required_bytes"]
        verdict = f"fits, {show_bytes(spare, unit)} spare" if result["fits"] else f"no, {show_bytes(-spare, unit)} over"
        rows.append((f"on {result['gpu']}", show_bytes(result["available_bytes"], unit), "", verdict))
        strong.add(len(rows) - 1)
        marks[verdict] = "good" if result["fits"] else "bad"
    tokens = f"{result['seq']:,}"
    title = f"{o.marked(result['model'], result['estimate'])}: {_title(recipe, tokens)}"
    return Table(title, ("", ">", ">of the peak", ""), rows, frozenset(strong), marks)


def _many(results: list[dict[str, Any]], recipe: Recipe, unit: str) -> Table:
    """A row for each model."""
    from llmcalc.report.document import Table
    from llmcalc.units import show_bytes, show_count

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
    )
    rows = [
        (
            o.marked(r["model"], r["estimate"]), f"{r['seq']:,}", show_count(r["trainable"]),
            show_bytes(r["parameter_bytes"], unit),
            show_bytes(r["gradient_bytes"], unit), show_bytes(r["optimizer_bytes"], unit), show_bytes(r["activation_bytes"], unit),
            show_bytes(r["peak_bytes"], unit), r["peak_phase"], *(("fits" if r["fits"] else "no",) if verdict else ()),
        )
        for r in results
    ]  # fmt: skip
    lengths = {r["seq"] for r in results}
    tokens = f"{lengths.pop():,}" if len(lengths) == 1 else f"up to {max(lengths, default=DEFAULT_SEQ):,}"
    return Table(_title(recipe, tokens), columns, rows, marks={"fits": "good", "no": "bad"})
