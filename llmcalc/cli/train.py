"""llmcalc train: the memory of one training or fine-tuning step, on a GPU or on many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcalc.cli import options as o
from llmcalc.cli import train_objective as a
from llmcalc.cli import train_options as t

if TYPE_CHECKING:
    from llmcalc.engines.training import Training

DEFAULT_SEQ, DEFAULT_RANK = 2048, 8
TARGETS = {"ia3": ("k", "v", "down")}


def train(
    models: o.Models = None,
    family: o.Family = None,
    seq: t.Seq = None,
    micro_batch: t.MicroBatch = None,
    precision: t.Precision = "bf16",
    optimizer: t.Optimizer = "adamw",
    method: t.Method = None,
    rank: t.Rank = None,
    targets: t.Targets = None,
    adapter_dtype: t.AdapterDtype = "fp32",
    lora_dropout: t.LoraDropout = 0.0,
    kbit_prepare: t.KbitPrepare = False,
    attention: t.Attention = None,
    recompute: t.Recompute = "none",
    accumulate: t.Accumulate = None,
    loss: t.Loss = "plain",
    compile_: t.Compile = False,
    no_dropout: t.NoDropout = False,
    foreach: t.Foreach = False,
    state_embeddings: t.StateEmbeddings = None,
    keep_logits: t.KeepLogits = False,
    objective: a.Name = None,
    reference: a.Reference = None,
    precomputed: a.Precomputed = False,
    samples: a.Samples = None,
    prompt: a.Prompt = None,
    response: a.Response = None,
    value: a.Value = None,
    reward_model: a.RewardModel = None,
    teacher: a.Teacher = None,
    colocate: a.Colocate = None,
    engine_utilization: a.EngineUtilization = None,
    frozen_dtype: a.FrozenDtype = None,
    gpu: t.GpuName = None,
    gpus: t.Gpus = None,
    tp: t.Tp = 1,
    pp: t.Pp = 1,
    cp: t.Cp = 1,
    ep: t.Ep = 1,
    dp: t.Dp = None,
    zero: t.Zero = None,
    shard: t.Shard = None,
    offload: t.Offload = None,
    reduce_dtype: t.ReduceDtype = None,
    shard_dtype: t.ShardDtype = None,
    sequence_parallel: t.SequenceParallel = False,
    schedule: t.Schedule = "1f1b",
    chunks: t.Chunks = 1,
    reserve: t.Reserve = "1GiB",
    solve: t.Solve = None,
    methods: t.Methods = False,
    plot: t.Plot = None,
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Memory of one training step: weights, gradients, optimizer, activations, and where the peak is. Exit 1 if it does not fit."""
    from llmcalc import hardware, resolve
    from llmcalc.cli import train_parallel, train_plot, train_solve, train_tables, train_time
    from llmcalc.engines import stages, training
    from llmcalc.engines.layout import Layout
    from llmcalc.engines.recipe import ITEMS, Recipe
    from llmcalc.engines.train_solve import RANKED, Ask, Solution
    from llmcalc.errors import NoAnswer, UsageError
    from llmcalc.report.document import Document
    from llmcalc.report.render import render
    from llmcalc.units import parse_bytes, show_bytes

    form = o.form_of(form, json)
    train_solve.check(solve, {"micro-batch": micro_batch, "rank": rank, "method": method, "gpus": gpus or dp}, gpu)
    asked, kept = o.context(seq, "--seq"), parse_bytes(reserve, "--reserve")
    card = None if gpu is None else hardware.gpu(gpu)
    layout = train_parallel.layout_of(
        Layout(
            tp, pp, 1, cp, ep, zero or ("fsdp" if solve == "gpus" else "0"), sequence_parallel, schedule, chunks, 1, offload or "",
            shard or 0, reduce_dtype or "", shard_dtype or "",
        ),
        gpus, dp,
    )  # fmt: skip
    goal = a.asked(
        objective, reference=reference, precomputed=precomputed, samples=samples, prompt=prompt, response=response, value=value,
        reward_model=reward_model, teacher=teacher, colocate=colocate, engine_utilization=engine_utilization,
        frozen_dtype=frozen_dtype, card_bytes=None if card is None else card.usable_bytes,
    )  # fmt: skip
    chosen, named = resolve.chosen(models, family)
    compared = methods or (named and gpu is not None and method is None and solve is None)
    if plot is not None:
        train_plot.check(plot, chosen, named=named, gpus=layout.gpus, objective=goal.name)
    if methods and not named:
        raise UsageError("--methods compares the ways to train a model: name one")
    method, micro_batch, rank = method or "full", micro_batch or 1, rank or DEFAULT_RANK
    kernel = attention or ("efficient" if precision == "fp32" else "flash")
    recipe = Recipe(
        DEFAULT_SEQ, micro_batch, precision, optimizer, foreach, state_embeddings or "", method, rank, _targets(targets, method),
        ITEMS[adapter_dtype], lora_dropout, kbit_prepare, kernel, recompute, accumulate or pp, keep_logits, not no_dropout, loss,
        compile_,
    )  # fmt: skip
    if solve != "method":
        recipe.check()
    results: list[dict[str, Any]] = []
    notes, figures = [], []
    unknown: list[str] = []
    budget = None if card is None else card.usable_bytes - kept
    progress, timer = train_solve.Progress(), train_time.Timer(card, recipe, goal.name)
    times = []
    for m in chosen:
        own = recipe._replace(seq=asked or min(DEFAULT_SEQ, m.blueprint.context or DEFAULT_SEQ))
        blueprint = resolve.as_trained(m)
        said = targets is not None
        try:
            ask = Ask(blueprint, layout, progress, goal)
            if solve is None or budget is None:
                found = Solution(None, None, own, layout, ask(own))
            else:
                found = train_solve.solved(solve, ask, blueprint, own, budget, limit=asked, targets_said=said)
            ways = train_solve.ways(ask, blueprint, own, budget, kept, attention, targets_said=said) if compared else []
        except (NoAnswer, UsageError):
            if named or len(unknown) == len(chosen) - 1:
                raise
            unknown.append(m.name)
            continue
        finally:
            progress.done()
        own, over = found.recipe, ask.over(found.layout)
        spread, aligned = over.plan(own), over.aligned(own)
        required = found.answer.peak_bytes + kept
        fits = None if card is None else required <= card.usable_bytes
        time = timer.time(blueprint, own, spread.layout)
        times.append(time if fits else None)
        results.append({
            "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "seq": own.seq,
            "micro_batch": own.micro_batch, "method": own.method, "rank": own.rank if own.method in RANKED else None,
            **_figures(found.answer, spread.fullest.training), **a.figures(aligned),
            **train_parallel.figures(ask.aligning.policy, aligned.recipe, spread, named=named and goal.name == "sft"),
            "gpu": None if card is None else card.name, "available_bytes": None if card is None else card.usable_bytes,
            "required_bytes": required, "fits": fits, **train_time.figures(time),
            "solved": found.value, "solve_limit": found.limit, "methods": ways,
        })  # fmt: skip
        if named and solve:
            notes.append(train_solve.note(m.name, solve, found))
        if named:
            notes += o.beyond(m.name, aligned.recipe.seq, m.blueprint) + a.notes(m.name, aligned, spread.layout.gpus)
            if blueprint is not m.blueprint:
                notes.append(f"{m.name}: with the head of masked language modelling, and no pooler")
        if named and own.precision != "megatron" and results[-1]["peak_kernel"] == stages.KERNELS:
            notes.append(f"{m.name}: {train_parallel.SWITCHED}")
        if named and own.autocast and spread.layout.level == 3 and spread.layout.gpus > 1:
            notes.append(f"{m.name}: {train_parallel.COPIES}")
        held = results[-1]["reserved_bytes"]
        if named and fits and card is not None and held is not None and held > card.usable_bytes:
            notes.append(f"{m.name}: {train_parallel.FULL}")
        if plot is not None:
            train_plot.step(plot, blueprint, own, results[-1], unit)
            notes.append(f"{m.name}: drawn in {plot}")
        if explain:
            alone = spread.layout.gpus == 1
            opened = training.explain(blueprint, own) if alone else [stages.explain(stage) for stage in spread.stages]
            if goal.name != "sft":
                opened = [aligned.explain()]
            figures += [o.figure(m, figure) for figure in opened]
    if card is not None:
        notes.append(f"{card.name}: {show_bytes(card.usable_bytes, unit)} usable, {card.usable_source}")
    if unknown:
        notes.append(f"not known what training keeps, or not to be divided so; left out: {', '.join(unknown)}")
    held = "the CUDA context, library workspaces and allocator slack are not in the peak"
    if any(result["gpus"] > 1 for result in results):
        held = "the CUDA context, library workspaces, NCCL's buffers and allocator slack are not in the peak"
    rules = {
        "Megatron's kernels" if result["peak_kernel"] == stages.KERNELS else "torch's eager mode and transformers"
        for result in results
    }
    notes.append(f"{', '.join(rules)}; {held}; {show_bytes(kept, unit)} is kept for them where --gpu asks for a verdict")
    notes += o.about(chosen)
    inputs = {
        "models": models or [], "family": family, "seq": asked or DEFAULT_SEQ, "micro_batch": micro_batch, "precision": precision,
        "optimizer": optimizer, "method": method, "rank": rank, "targets": list(recipe.targets), "adapter_dtype": adapter_dtype,
        "lora_dropout": lora_dropout, "kbit_prepare": kbit_prepare, "attention": kernel, "recompute": recompute,
        "accumulate": recipe.accumulate, "loss": loss, "compile": compile_, "dropout": not no_dropout, "foreach": foreach,
        "state_embeddings": state_embeddings, "keep_logits": keep_logits, **a.inputs(goal),
        "gpu": gpu, "gpus": layout.gpus, "tp": tp, "pp": pp,
        "cp": cp, "ep": ep, "dp": layout.dp, "zero": layout.zero, "shard": shard, "offload": offload, "reduce_dtype": reduce_dtype,
        "shard_dtype": shard_dtype, "sequence_parallel": sequence_parallel, "schedule": schedule, "chunks": chunks,
        "reserve_bytes": kept, "solve": solve, "plot": plot,
    }  # fmt: skip
    alone = named and len(results) == 1
    first = train_tables.one(results[0], aligned.recipe, unit, solve) if alone else train_tables.many(results, recipe, unit, solve)
    tables = [first, *(train_tables.ways(result, unit) for result in results if result["methods"])]
    if named:
        tables += [table for result in results for table in train_parallel.tables(result, unit)]
        for result, time in zip(results, times, strict=True):
            tables += [] if time is None else [train_time.table(time, f"{result['gpus']:,} x {result['gpu']}")]
        notes += timer.notes(shown=any(times), gpus=max((result["gpus"] for result in results), default=1))
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


def _figures(answer: Training, update: Training) -> dict[str, Any]:
    """The keys of a result that the engine gives. With an objective the peak is that of the whole step, not of the update alone."""
    return {
        "parameter_bytes": answer.parameter_bytes, "buffer_bytes": answer.buffer_bytes, "input_bytes": answer.input_bytes,
        "gradient_bytes": answer.gradient_bytes, "optimizer_bytes": answer.optimizer_bytes,
        "activation_bytes": answer.activation_bytes, "forward_peak_bytes": update.peaks["forward"],
        "backward_peak_bytes": update.peaks["backward"], "step_peak_bytes": update.peaks["step"],
        "peak_bytes": answer.peak_bytes, "peak_phase": answer.peak_phase, "peak_parts": answer.parts, "peak_kernel": answer.kernel,
        "trainable": answer.trainable, "total": answer.total, "trainable_share": answer.trainable / answer.total,
    }  # fmt: skip
