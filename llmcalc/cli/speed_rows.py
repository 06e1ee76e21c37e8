"""What speed answers: one question put to the engine, and the tables that show it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any, NamedTuple

from llmcalc import hardware, resolve
from llmcalc.engines import kv, serving
from llmcalc.engines import speed as engine
from llmcalc.engines.demand import RESERVE_BYTES
from llmcalc.engines.roofline import Roofline
from llmcalc.engines.runtime_model import Known
from llmcalc.engines.runtimes import Case, Settings, Split
from llmcalc.engines.weights import size as weight_size
from llmcalc.errors import UsageError
from llmcalc.quantity import Quantity
from llmcalc.report.document import Table
from llmcalc.specs import catalogue

MOST_BATCH = 1024
MILLION = 1_000_000


class Question(NamedTuple):
    """A model on GPUs, as asked. ``draft`` is a model, its acceptance and the tokens it drafts."""

    model: resolve.Model
    card: hardware.Gpu
    gpus: int
    tp: int | None
    quant: str | None
    dtype: str | None
    kv_dtype: str
    prompt: int
    output: int
    batch: int
    runtime: str | None
    price: float | None
    draft: tuple[resolve.Model, float, int] | None


class Answer(NamedTuple):
    """A result, what there is to say about it, and the figures that open it."""

    result: dict[str, Any]
    notes: list[str]
    figures: list[Quantity]


def lengths(context: int | None, prompt: int | None, output: int | None) -> tuple[int, int] | None:
    """Tokens of prompt and answer; of --ctx alone a prompt that long and the next token. None: what the model's default is.

    Raises UsageError where they do not fit into --ctx.
    """
    if prompt is None and output is None:
        return None if context is None else (max(1, context), 1)
    found = (1 if prompt is None else prompt), (1 if output is None else output)
    if context is not None and sum(found) > context:
        raise UsageError(f"--prompt {found[0]} and --output {found[1]} are more than --ctx {context}")
    return found


def default_runtime(card: hardware.Gpu, quant: str) -> str:
    """llama.cpp for what it is the first to run, else vLLM."""
    files = catalogue.quant_spec(quant)[1].container if quant != "none" else None
    return "llama.cpp" if files == "gguf" or card.spec.vendor == "Apple" else "vllm"


def answer(q: Question) -> Answer:
    """One question answered. Raises UnknownName, UsageError, NoAnswer."""
    blueprint = q.model.blueprint
    method, _ = resolve.stored_as(q.model, q.quant, q.dtype)
    found = hardware.efficiencies(q.runtime or default_runtime(q.card, method.name), q.card, method.name)
    case = _case(q, found.runtime, method)
    machine = hardware.machine(
        found.runtime, q.card, method.name, q.gpus, case.split.tp if case and case.runtime.kind in serving.DIVIDING else q.tp
    )
    e = hardware.efficiency(found.runtime, q.card, method.name)
    roof = Roofline(blueprint, method, q.dtype or "", q.kv_dtype, machine.ranks)
    draft, notes = None, []
    if q.draft is not None:
        drafter, acceptance, drafted = q.draft
        how, _ = resolve.stored_as(drafter, None, None)
        draft = engine.Draft(Roofline(drafter.blueprint, how, "", q.kv_dtype, machine.ranks), acceptance, drafted)
        notes.append(f"a draft of {drafted} tokens, each accepted with probability {acceptance:g} (assumed unless --acceptance "
                     f"says it), yields {draft.expected:.2f} tokens a step")  # fmt: skip
    s = engine.speed(roof, machine, e, q.prompt, q.output, q.batch, draft)
    price, quoted = _price(q.card, q.price)
    fitting = _fitting(q, method, case)
    fits = fitting(q.batch)
    (low, high), (slow, fast) = e.decode_range, e.prefill_range
    hourly = None if price is None else price * q.gpus / 3600
    time = s.mean.time
    used = {key: value for key, value in found.values.items() if key in e._fields}
    result = {
        "model": q.model.name, "family": q.model.spec.family, "estimate": blueprint.estimate, "gpu": q.card.name, "gpus": q.gpus,
        "tp": machine.ranks, "quant": method.name, "dtype": q.dtype or blueprint.dtype, "kv_dtype": q.kv_dtype,
        "runtime": found.runtime, "ctx": q.prompt + q.output, "prompt": q.prompt, "output": q.output, "batch": q.batch,
        "fits": fits,
        "prefill_tokens_per_second": s.prefill, "prefill_tokens_per_second_low": s.prefill * slow,
        "prefill_tokens_per_second_high": s.prefill * fast,
        "decode_tokens_per_second": s.decode, "decode_tokens_per_second_low": s.decode * low,
        "decode_tokens_per_second_high": s.decode * high,
        "ttft_seconds": s.ttft, "ttft_seconds_low": s.ttft / fast, "ttft_seconds_high": s.ttft / slow,
        "tpot_seconds": s.tpot, "tpot_seconds_low": s.tpot / high, "tpot_seconds_high": s.tpot / low,
        "request_seconds": s.ttft + q.output * s.tpot, "bound": time.bound, "prefill_bound": s.prefill_bound,
        "step": {
            "weights_seconds": time.weights, "cache_seconds": time.cache, "compute_seconds": time.compute,
            "experts_seconds": time.experts, "link_seconds": time.link, "overhead_seconds": time.overhead,
            "draft_seconds": s.mean.draft_seconds, "tokens": s.mean.tokens,
        },
        "knee_batch": engine.knee(roof, machine, e, q.prompt + q.output / 2),
        "batches": _batches(q, roof, machine, e, draft, fitting),
        "price_dollars_per_gpu_hour": price,
        "dollars_per_million_tokens": hourly and hourly / s.decode * MILLION,
        "dollars_per_million_input_tokens": hourly and hourly / s.prefill * MILLION,
        "dollars_per_million_output_tokens": hourly and hourly / s.decode * MILLION,
        "efficiency": {"class": found.name, **used},
    }  # fmt: skip
    if not fits:
        held = f"as {found.runtime} holds it" if case else "weights and cache beside a reserve"
        notes.append(
            f"{q.model.name} does not fit on {q.gpus} x {q.card.name}, {held} (llmcalc fit); the speed is what it would be"
        )
    shown = f"decode {low:g} to {high:g}, prefill {slow:g} to {fast:g}"
    if found.measured:
        basis = f"measured / predicted, 10th to 90th percentile of the rows in docs/speed.md: {shown}"
    else:
        basis = f"no speed of it on a {q.card.name} was measured, so the range is wide: {shown} of the estimate"
    notes.append(f"estimated: efficiencies of {found.runtime} on {found.name}; {basis}")
    notes += [f"{found.runtime}: {found.note}"] if found.note else []
    notes += [f"{q.card.name}: {quoted}"] if quoted else []
    return Answer(result, notes, _opened(s, e, found))


def _price(card: hardware.Gpu, price: float | None) -> tuple[float | None, str]:
    """Dollars per GPU-hour as given, or the median of the catalogue's quotes, and in words."""
    _, said = hardware.hourly_prices(card, price)
    if said and price is None and card.spec.devices > 1:
        said += f", for its {card.spec.devices} devices"
    return card.usd_per_hour if price is None else price, said


def _case(q: Question, runtime: str, method: Any) -> Case | None:
    """The model as its runtime serves it; None where nobody has said how that allocates. Raises UsageError for a split that the
    runtime cannot have."""
    if runtime not in catalogue.entries("runtimes"):
        return None
    held, blueprint = hardware.runtime(runtime), q.model.blueprint
    divides = held.kind in serving.DIVIDING
    if q.gpus % (q.tp or 1):
        raise UsageError(f"--tp {q.tp} does not divide --gpus {q.gpus}")
    split = serving.split_over(blueprint, held.kind, q.gpus, Split(tp=q.tp or 1), ("tp",) if q.tp and divides else ())
    settings = Settings(kv_dtype=q.kv_dtype, encoder_context=blueprint.encoder_tokens(None, q.prompt) or None)
    return Case(
        blueprint, method, q.dtype or "", held, hardware.seen(q.card), split, settings, Known(blueprint, method, q.dtype or "")
    )


def _fitting(q: Question, method: Any, case: Case | None) -> Callable[[int], bool]:
    """Whether a batch fits: as the runtime lays it out, else weights and cache over all GPUs beside a reserve."""
    tokens = q.prompt + q.output
    if case is not None:
        made = serving.plan(case)
        return lambda batch: serving.fitting(made, tokens, batch)
    weights = weight_size(q.model.blueprint, method, q.dtype or "").weight_bytes
    encoder = q.model.blueprint.encoder_tokens(None, q.prompt)
    room = (q.card.usable_bytes - RESERVE_BYTES) * q.gpus
    return lambda batch: weights + kv.size(q.model.blueprint, tokens, batch, q.kv_dtype, encoder).total <= room


def _batches(
    q: Question, roof: Roofline, machine: engine.Machine, e: engine.Efficiency, draft: engine.Draft | None,
    fitting: Callable[[int], bool],
) -> list[dict[str, Any]]:  # fmt: skip
    """Powers of two up to what fits (and the one that was asked), at the middle of the answer."""
    sizes = list(takewhile(fitting, (1 << n for n in range(MOST_BATCH.bit_length()))))
    found = []
    for batch in sorted({*sizes, q.batch}):
        step = engine.step(roof, machine, e, q.prompt + q.output / 2, batch, draft)
        found.append({
            "batch": batch, "decode_tokens_per_second": batch / step.seconds_per_token, "tpot_seconds": step.seconds_per_token,
            "bound": step.time.bound, "fits": batch in sizes or fitting(batch),
        })  # fmt: skip
    return found


def _opened(s: engine.Speed, e: engine.Efficiency, found: Any) -> list[Quantity]:
    """The step in the middle of the answer as the sum of what it takes."""
    source = f"roofline; efficiencies of {found.runtime} on {found.name}: " + "; ".join(found.sources)

    def seconds(label: str, value: float, note: str = "") -> Quantity:
        return Quantity(label, value, "s", kind="estimated", note=note)

    time = s.mean.time
    if time.host_bound and time.total == time.overhead:
        parts = [seconds("launches", time.overhead, "the host launches slower than the GPU works")]
    else:
        if time.compute > time.weights + time.cache:
            parts = [seconds("compute", time.compute, f"{100 * e.compute:.0f}% of the peak")]
        else:
            parts = [
                seconds("weights", time.weights, f"{100 * e.bandwidth:.0f}% of the bandwidth"),
                seconds("cache", time.cache, f"{100 * e.cache:.0f}% of the bandwidth"),
            ]
        parts += [seconds("experts", time.experts, "what does not overlap")] if time.experts else []
        parts += [seconds("link", time.link)] if time.link else []
        parts += [] if time.host_bound else [seconds("overhead", time.overhead, f"{1e6 * e.layer_seconds:.0f} us a layer")]
    if s.mean.draft_seconds:
        parts.append(seconds("draft", s.mean.draft_seconds))
    return [
        Quantity.sum("step_seconds", "s", parts, source=source),
        Quantity("ttft_seconds", s.ttft, "s", kind="estimated", source=source),
    ]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def _range(result: dict[str, Any], key: str, show: Any) -> str:
    return f"{show(result[key + '_low'])} to {show(result[key + '_high'])}"


def _dollars(value: float | None) -> str:
    return "-" if value is None else f"${value:.3g}"


def one(r: dict[str, Any], unit: str) -> list[Table]:  # noqa: ARG001 - bytes are not shown
    """One model on one kind of GPU, and what batches make of it."""
    step = r["step"]
    parts = {name: step[f"{name}_seconds"] for name in ("weights", "cache", "compute", "experts", "link", "overhead", "draft")}
    spent = ", ".join(f"{name} {_seconds(value)}" for name, value in parts.items() if value)
    rows = [
        (f"prefill, {r['prompt']:,} tokens", f"{_rate(r['prefill_tokens_per_second'])} tokens/s",
         _range(r, "prefill_tokens_per_second", _rate)),
        ("decode", f"{_rate(r['decode_tokens_per_second'])} tokens/s", _range(r, "decode_tokens_per_second", _rate)),
        ("time to first token", _seconds(r["ttft_seconds"]), _range(r, "ttft_seconds", _seconds)),
        ("time per token", _seconds(r["tpot_seconds"]), _range(r, "tpot_seconds", _seconds)),
        (f"request, {r['output']:,} tokens out", _seconds(r["request_seconds"]), ""),
        ("decode is bound by", r["bound"], spent),
        ("prefill is bound by", r["prefill_bound"], ""),
        ("knee", f"batch {r['knee_batch']:,}", "a step takes twice as long as for one sequence"),
        ("a million tokens in", _dollars(r["dollars_per_million_input_tokens"]), ""),
        ("a million tokens out", _dollars(r["dollars_per_million_output_tokens"]), ""),
    ]  # fmt: skip
    how = r["dtype"] if r["quant"] == "none" else r["quant"]
    title = f"{r['model']}, {how}, on {r['gpus']} x {r['gpu']}, {r['runtime']}, batch {r['batch']}"
    batches = [
        (f"{b['batch']:,}", _rate(b["decode_tokens_per_second"]), _seconds(b["tpot_seconds"]), b["bound"])
        for b in r["batches"]
    ]  # fmt: skip
    return [
        Table(title, ("", ">", "range"), rows, frozenset({0, 1})),
        Table("decode by batch", (">batch", ">tokens/s", ">per token", "bound by"), batches),
    ]


def many(results: list[dict[str, Any]]) -> Table:
    """A row for each model and kind of GPU."""
    columns = ("model", "GPU", "?runtime", ">prefill tok/s", ">decode tok/s", ">?range", ">?first token", ">?per token",
               "?bound by", ">?$ / M out")  # fmt: skip
    rows = [
        (
            r["model"] + (" (estimate)" if r["estimate"] else ""), f"{r['gpus']} x {r['gpu']}", r["runtime"],
            _rate(r["prefill_tokens_per_second"]), _rate(r["decode_tokens_per_second"]),
            _range(r, "decode_tokens_per_second", _rate), _seconds(r["ttft_seconds"]), _seconds(r["tpot_seconds"]), r["bound"],
            _dollars(r["dollars_per_million_output_tokens"]),
        )
        for r in results
    ]  # fmt: skip
    return Table("speed, estimated", columns, rows)
