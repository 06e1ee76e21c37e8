"""llmcalc train: the memory of one training or fine-tuning step on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from llmcalc.engines.training import Training

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
    Literal["full", "lora", "dora", "qlora", "ia3", "adapter", "prefix", "prompt", "ln", "bitfit", "head"] | None,
    typer.Option(
        "--method",
        help="What is trained: everything, an adapter beside a frozen base, or a part of the model. "
        "Where none is named, --gpu compares the usual ones.",
        show_default="full",
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank",
        min=1,
        max=2**20,
        metavar="N",
        help="LoRA's rank; the width of adapter; tokens of prefix, prompt.",
        show_default="8",
    ),
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
        "--seq",
        metavar="TOKENS",
        help="Tokens per sequence; 2048, or the trained context where shorter. With --solve seq the most to look at.",
        show_default=False,
    ),
]
MicroBatch = Annotated[
    int | None, typer.Option("--micro-batch", min=1, max=2**20, metavar="N", help="Sequences in one pass.", show_default="1")
]
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
Solve = Annotated[
    Literal["micro-batch", "seq", "rank", "method"] | None,
    typer.Option(
        "--solve",
        help="Largest micro-batch, sequence (in steps of 64 tokens, up to --seq or the trained context) or rank that fits on "
        "--gpu, or the first of full, lora and qlora that does.",
        show_default=False,
    ),
]
Methods = Annotated[bool, typer.Option("--methods", help="Compare the usual ways to train, whatever else is asked.")]
Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE", help="Draw the memory through the step: FILE.svg or FILE.png.", show_default=False),
]
DEFAULT_SEQ, DEFAULT_RANK = 2048, 8
TARGETS = {"ia3": ("k", "v", "down")}


def train(
    models: o.Models = None,
    family: o.Family = None,
    seq: Seq = None,
    micro_batch: MicroBatch = None,
    precision: Precision = "bf16",
    optimizer: Optimizer = "adamw",
    method: Method = None,
    rank: Rank = None,
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
    solve: Solve = None,
    methods: Methods = False,
    plot: Plot = None,
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Memory of one training step: weights, gradients, optimizer, activations, and where the peak is. Exit 1 if it does not fit."""
    from llmcalc import hardware, resolve
    from llmcalc.cli import train_plot, train_solve, train_tables
    from llmcalc.engines import training as engine
    from llmcalc.engines.recipe import ITEMS, Recipe
    from llmcalc.engines.train_solve import RANKED, Solution, asking
    from llmcalc.errors import NoAnswer, UsageError
    from llmcalc.report.document import Document
    from llmcalc.report.render import render
    from llmcalc.units import parse_bytes, show_bytes

    form = o.form_of(form, json)
    train_solve.check(solve, {"micro-batch": micro_batch, "rank": rank, "method": method}, gpu)
    asked, kept = o.context(seq, "--seq"), parse_bytes(reserve, "--reserve")
    card = None if gpu is None else hardware.gpu(gpu)
    chosen, named = resolve.chosen(models, family)
    compared = methods or (named and gpu is not None and method is None and solve is None)
    if plot is not None:
        train_plot.check(plot, chosen, named=named)
    if methods and not named:
        raise UsageError("--methods compares the ways to train a model: name one")
    method, micro_batch, rank = method or "full", micro_batch or 1, rank or DEFAULT_RANK
    kernel = attention or ("efficient" if precision == "fp32" else "flash")
    recipe = Recipe(
        DEFAULT_SEQ, micro_batch, precision, optimizer, foreach, state_embeddings or "", method, rank, _targets(targets, method),
        ITEMS[adapter_dtype], lora_dropout, kbit_prepare, kernel, recompute, accumulate, keep_logits, not no_dropout, loss,
    )  # fmt: skip
    results: list[dict[str, Any]] = []
    notes, figures, unknown = [], [], []
    budget = None if card is None else card.usable_bytes - kept
    progress = train_solve.Progress()
    for m in chosen:
        own = recipe._replace(seq=asked or min(DEFAULT_SEQ, m.blueprint.context or DEFAULT_SEQ))
        blueprint = resolve.as_trained(m)
        ask = asking(blueprint, progress)
        said = targets is not None
        try:
            if solve is None or budget is None:
                found = Solution(None, None, own, ask(own))
            else:
                found = train_solve.solved(solve, ask, blueprint, own, budget, limit=asked, targets_said=said)
            ways = train_solve.ways(ask, blueprint, own, budget, kept, attention, targets_said=said) if compared else []
        except NoAnswer:
            if named:
                raise
            unknown.append(m.name)
            continue
        finally:
            progress.done()
        own = found.recipe
        required = found.answer.peak_bytes + kept
        results.append({
            "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "seq": own.seq,
            "micro_batch": own.micro_batch, "method": own.method, "rank": own.rank if own.method in RANKED else None,
            **_figures(found.answer),
            "gpu": None if card is None else card.name, "available_bytes": None if card is None else card.usable_bytes,
            "required_bytes": required, "fits": None if card is None else required <= card.usable_bytes,
            "solved": found.value, "solve_limit": found.limit, "methods": ways,
        })  # fmt: skip
        if named and solve:
            notes.append(train_solve.note(m.name, solve, found))
        if named:
            notes += o.beyond(m.name, own.seq, m.blueprint)
            if blueprint is not m.blueprint:
                notes.append(f"{m.name}: with the head of masked language modelling, and no pooler")
        if plot is not None:
            train_plot.step(plot, blueprint, own, results[-1], unit)
            notes.append(f"{m.name}: drawn in {plot}")
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
        "solve": solve, "plot": plot,
    }  # fmt: skip
    alone = named and len(results) == 1
    first = train_tables.one(results[0], own, unit, solve) if alone else train_tables.many(results, recipe, unit, solve)
    tables = [first, *(train_tables.ways(result, unit) for result in results if result["methods"])]
    if compared and gpu is not None:
        notes.append(train_solve.LONGEST)
    render(Document("train", inputs, results, tables, notes, figures), form, explain=explain, unit=unit)
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
