"""llmcalc compute: from work and speed to time, energy and money of a training run, or back from a deadline or a budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from llmcalc.cli import options as o


def _text(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


def _finite(value: float | None) -> float | None:
    """Bounds let nan through, which is below and above none."""
    if value is not None and value != value:
        raise typer.BadParameter("nan is not a number")
    return value


def _number(name: str, metavar: str, text: str, most: float = 1e15, least: float = 1e-9) -> Any:
    return typer.Option(*name.split(), min=least, max=most, metavar=metavar, help=text, show_default=False, callback=_finite)


Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="As for params; or --params.", show_default=False)]
Params = Annotated[str | None, _text("--params", "N", "Parameters, in place of a MODEL: 70B.")]
Active = Annotated[str | None, _text("--active", "N", "With --params: those that a token uses (mixtures).")]
Tokens = Annotated[str | None, _text("--tokens", "D", "Training tokens: 15T. As published unless anything else settles it.")]
Flops = Annotated[str | None, _text("--flops", "C", "The model's training FLOPs, in place of model and tokens.")]
GpuName = Annotated[str | None, _text("--gpu", "NAME", "On which GPU (llmcalc gpus).")]
Gpus = Annotated[int | None, typer.Option("--gpus", min=1, max=10**7, metavar="N", help="On how many.", show_default=False)]
Mfu = Annotated[float | None, _number("--mfu", "SHARE", "Share of the dense peak that the model's FLOPs reach.", 1.0)]
Hfu = Annotated[float | None, _number("--hfu", "SHARE", "Or share that all FLOPs reach, recomputation too.", 1.0)]
Rate = Annotated[float | None, _number("--tflops", "TFLOP/S", "Or achieved rate of a GPU, recomputation too.")]
Speed = Annotated[float | None, _number("--tokens-per-second", "T", "Or tokens per second of one GPU.")]
Iteration = Annotated[float | None, _number("--iteration", "S", "Or seconds of an iteration of --batch-tokens on --gpus.")]
BatchTokens = Annotated[str | None, _text("--batch-tokens", "B", "Tokens of an iteration: 4M.")]
Hours = Annotated[str | None, _text("--gpu-hours", "H", "GPU-hours, 2.788M: what MFU they mean, or how many tokens they buy.")]
Days = Annotated[
    float | None, _number("--days --deadline", "DAYS", "Time there is: how many GPUs, or with --gpus how many tokens.")
]
Budget = Annotated[str | None, _text("--budget", "DOLLARS", "Money there is, 5M: how many tokens; with --tokens, is it enough.")]
Price = Annotated[float | None, _number("--price", "DOLLARS", "Per GPU-hour; the catalogue's quotes unless said.")]
Power = Annotated[float | None, _number("--power", "WATTS", "Average power of a GPU; its TDP unless said.")]
Pue = Annotated[float | None, _number("--pue", "FACTOR", "Overhead of the data centre; 1, the GPUs alone, unless said.", 10, 1)]
Carbon = Annotated[str, typer.Option("--carbon", metavar="KG|GRID", help="kg CO2 per kWh, or a grid: us, world, france ...")]
Seq = Annotated[str | None, _text("--seq", "TOKENS", "Tokens of a sequence, as --ctx elsewhere. For attention's FLOPs.")]
By = Annotated[
    Literal["6nd", "attention", "matmul"], typer.Option("--convention", help="6 N D; and attention; or products that run.")
]
Count = Annotated[Literal["total", "non-embedding"], typer.Option("--count", help="What N counts in 6 N D.")]
Mask = Annotated[Literal["full", "causal"], typer.Option("--mask", help="Attention over the square, or what a causal mask leaves.")]
Again = Annotated[Literal["none", "selective", "full"], typer.Option("--recompute", help="What the backward pass computes again.")]
Precision = Annotated[
    Literal["16-bit", "fp8", "fp4", "tf32", "fp32"], typer.Option("--precision", help="The dense peak that MFU is a share of.")
]


def _degree(name: str, text: str) -> Any:
    return typer.Option(name, min=1, max=10**6, metavar="N", help=text, show_default=False)


Tp = Annotated[int | None, _degree("--tp", "Tensor parallelism. With a layout and --gpus, MFU is estimated from it.")]
Pp = Annotated[int | None, _degree("--pp", "Pipeline stages.")]
Dp = Annotated[int | None, _degree("--dp", "Data parallelism; what --gpus leaves unless said.")]
Cp = Annotated[int | None, _degree("--cp", "Context parallelism.")]
Ep = Annotated[int | None, _degree("--ep", "Expert parallelism; it divides --dp x --cp.")]
MicroBatch = Annotated[int | None, _degree("--micro-batch", "Sequences in one pass; 1 unless said.")]


def compute(
    models: Models = None,
    params: Params = None,
    active: Active = None,
    tokens: Tokens = None,
    flops: Flops = None,
    gpu: GpuName = None,
    gpus: Gpus = None,
    mfu: Mfu = None,
    hfu: Hfu = None,
    tflops: Rate = None,
    tokens_per_second: Speed = None,
    iteration: Iteration = None,
    batch_tokens: BatchTokens = None,
    gpu_hours: Hours = None,
    days: Days = None,
    budget: Budget = None,
    price: Price = None,
    power: Power = None,
    pue: Pue = None,
    carbon: Carbon = "us",
    seq: Seq = None,
    convention: By = "6nd",
    count: Count = "total",
    mask: Mask = "full",
    recompute: Again = "none",
    precision: Precision = "16-bit",
    tp: Tp = None,
    pp: Pp = None,
    dp: Dp = None,
    cp: Cp = None,
    ep: Ep = None,
    micro_batch: MicroBatch = None,
    explain: o.Explain = False,
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Training runs: FLOPs, GPU-hours, days, energy, CO2, cost; back from a deadline or a budget. Exit 1 if it cannot be met."""
    from llmcalc import hardware, resolve
    from llmcalc.cli import compute_layout as layouts
    from llmcalc.cli import training_run as parts
    from llmcalc.engines import compute as engine
    from llmcalc.errors import UsageError
    from llmcalc.report.document import Document
    from llmcalc.report.render import render
    from llmcalc.units import parse_count

    form = o.form_of(form, json)
    if sum(bool(way) for way in (models, params, flops)) > 1:
        raise UsageError("give one of MODEL, --params and --flops")
    if active is not None and params is None:
        raise UsageError("--active goes with --params; a MODEL knows its own")
    if tokens is not None and not (models or params):
        raise UsageError("--tokens needs a MODEL or --params to train on them")
    if recompute != "none" and not (models or params):
        raise UsageError("--recompute needs a MODEL or --params: what is computed again is a matter of the model")
    card = None if gpu is None else hardware.gpu(gpu)
    terms = parts.terms(card, price, power, pue, carbon, precision)
    speeds = {"mfu": mfu, "hfu": hfu, "hardware_flops": tflops and tflops * 1e12, "tokens": tokens_per_second, "": iteration}
    batch = None if batch_tokens is None else parse_count(batch_tokens, "--batch-tokens")
    speed = parts.speed({unit: value for unit, value in speeds.items() if value is not None}, batch, gpus)
    spread = layouts.Spread(tp, pp, dp, cp, ep, micro_batch)
    if spread.asked and (not models or card is None or speed is not None or gpu_hours is not None):
        raise UsageError("a layout tells how fast a MODEL trains on a --gpu: give both, and no speed or --gpu-hours")
    gpus = spread.gpus(gpus, 1 if card is None else card.spec.devices)
    asked = None if tokens is None else parse_count(tokens, "--tokens")
    work = None if flops is None else parse_count(flops, "--flops")
    hours = None if gpu_hours is None else parse_count(gpu_hours, "--gpu-hours")
    money = None if budget is None else float(parse_count(budget, "--budget"))
    given = engine.Question(None, terms.site, asked, work, hours, gpus, days, money, speed, batch)
    results, figures, answers = [], [], []
    notes: list[str] = []
    context = o.context(seq, "--seq")
    m: resolve.Model | None
    for m in (*resolve.models(models or []),) or (None,):
        n, of, length = parts.size(m, params, active, count, context, causal=mask == "causal")
        question = given
        if n is not None:
            question = given._replace(work=engine.per_token(convention, recompute, n, of))
            published = m.spec.published.tokens if m is not None and m.spec.published else None
            if asked is None and not (hours or money or (gpus and days)) and published is not None and m is not None:
                question = question._replace(tokens=published)
                notes.append(f"{m.name}: {published:,} tokens, as published")
        told = None
        if spread.asked and m is not None and card is not None and gpus is not None and length is not None and question.work:
            work_of = question.work.model
            told = layouts.estimate(m, card, spread, gpus, length, batch, recompute, precision, work_of, terms.site.peak or 0.0)
            notes += told.notes
        speeds_of = (question.speed,) * 3 if told is None else told.speeds
        question = question._replace(speed=speeds_of[0])
        three = [
            engine.answer(question._replace(speed=rate), cost, share)
            for rate, cost, share in zip(speeds_of, terms.prices, (engine.MFU.likely, engine.MFU.high, engine.MFU.low), strict=True)
        ]
        kinds = parts.kinds(question, three[0], m is not None and m.blueprint.estimate, power, price, carbon)
        result = {
            "model": m and m.name, "estimate": m is not None and m.blueprint.estimate, "params": n and int(n),
            "flops_convention": convention, "count": count, "mask": mask, "recompute": recompute, "seq": length,
            "gpu": card and card.name, "precision": precision, "peak_flops": terms.site.peak,
            **parts.figures(three), "layout": told and told.layout._asdict(), "bound": told and told.step.bound,
            "bubble_share": told and told.step.bubble_share, "flops_per_token": question.work and parts.plain(question.work.model),
            "hardware_flops_per_token": question.work and parts.plain(question.work.hardware),
            "power_watts": terms.site.watts, "pue": terms.site.pue, "carbon_kg_per_kwh": terms.site.kg_per_kwh,
            "price_dollars_per_gpu_hour": terms.prices[0], "kinds": kinds,
        }  # fmt: skip
        results.append(result)
        answers.append(three[0])
        if explain:
            sources = {**terms.sources, "training_flops": parts.rule(convention, count, mask, recompute, length)}
            opened = engine.explain(three[0], sources, kinds)
            name = "run" if m is None else m.name
            figures += [o.figure(m, each) if m is not None and each.unit == "FLOP" else (name, each) for each in opened]
    notes = [*dict.fromkeys(notes), *(terms.notes if any(a.gpu_hours is not None for a in answers) else [])]
    if any(a.training_flops is not None for a in answers) and not flops:
        notes.append(parts.rule(convention, count, mask, recompute, results[0]["seq"]))
    if any(a.assumed for a in answers):
        notes.append(f"MFU {100 * engine.MFU.likely:g}% is assumed, from {100 * engine.MFU.low:g} to {100 * engine.MFU.high:g}%: "
                     + engine.MFU.source)  # fmt: skip
    impossible = [a for a in answers if (a.mfu or 0) > 1 or (a.hfu or 0) > 1]
    notes += [f"no: it takes {100 * max(a.mfu, a.hfu):.4g}% of the peak" for a in impossible]
    inputs = {
        "models": models or [], "params": params, "active": active, "tokens": asked, "flops": work, "gpu": card and card.name,
        "gpus": gpus, "mfu": mfu, "hfu": hfu, "tflops": tflops, "tokens_per_second": tokens_per_second, "iteration": iteration,
        "batch_tokens": batch, "gpu_hours": hours, "days": days, "budget": money, "price": price, "power": power,
        "pue": terms.site.pue, "carbon": carbon, "seq": context, "convention": convention, "count": count, "mask": mask,
        "recompute": recompute, "precision": precision, **spread._asdict(),
    }  # fmt: skip
    table = parts.one(results[0]) if len(results) == 1 else parts.many(results)
    render(Document("compute", inputs, results, [table], notes, figures), form, explain=explain)
    return 1 if impossible or any(a.within_deadline is False or a.within_budget is False for a in answers) else 0
