"""The tables of fit: one answer opened, or a row for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmcalc.cli import options as o
from llmcalc.report.document import Table
from llmcalc.units import show_bytes, show_context


def _bound(value: int | None, show: Callable[[int], str] = str) -> str:
    """A bound as shown: a dash where there is none, 0 where nothing fits."""
    return "-" if value is None else show(value)


def _verdict(result: dict[str, Any], unit: str) -> str:
    spare = result["spare_bytes"]
    return f"fits, {show_bytes(spare, unit)} spare" if result["fits"] else f"no, {show_bytes(-spare, unit)} over"


def _stored(result: dict[str, Any]) -> str:
    return str(result["dtype"] if result["quant"] == "none" else result["quant"])


def _divided(result: dict[str, Any]) -> str:
    """How a runtime divides the model, where it does."""
    said = [f"{name.upper()} {result[name]}" for name in ("tp", "pp", "ep", "dp") if result.get(name, 1) > 1]
    return f" ({', '.join(said)})" if said else ""


def _pool(result: dict[str, Any], unit: str) -> list[tuple[str, str, str]]:
    """What the cache has room for, where the runtime keeps a pool; and what llama.cpp leaves with the host."""
    found = []
    if "pool_bytes" in result:
        tokens = _bound(result["kv_tokens"], lambda n: f"{n:,} tokens")
        found.append((f"room for the cache, {show_bytes(result['pool_bytes'], unit)}", tokens, "modelled"))
        if result["concurrency"] is not None:
            each = ", each replica" if result["dp"] > 1 else ""
            found.append((f"requests of {result['ctx']:,} tokens at once{each}", f"{result['concurrency']:.2f}", "modelled"))
    if "host_bytes" in result:
        found.append(("with the host", show_bytes(result["host_bytes"], unit), "modelled"))
    return found


def one(result: dict[str, Any], unit: str) -> Table:
    """One model on one kind of GPU: what needs how much, and what would fit."""
    gpus, verdict, served = result["gpus"], _verdict(result, unit), "per_gpu" in result
    fullest = f"GPU {result['deciding_gpu']} of {gpus}" if gpus > 1 else result["gpu"]
    enough = "no number: a layer and the reserve are too much for one" if result["min_gpus"] is None else f"{result['min_gpus']}"
    certain = "estimated" if result["estimate"] else result["kinds"]["weight_bytes"]
    # What the model was trained for, or what the memory holds, whichever is less.
    limit = "as trained" if result["max_context"] == result["trained_context"] else "by memory" if result["max_context"] else ""
    usable = f"{'taken' if 'pool_bytes' in result else 'usable'} on one {result['gpu']}"
    rows = [
        (f"weights, {_stored(result)}", show_bytes(result["weight_bytes"], unit), certain),
        (f"cache, {result['ctx']:,} tokens x {result['batch']}", show_bytes(result["kv_bytes"], unit), certain),
        ("working set", show_bytes(result["activation_bytes"], unit), "estimated"),
        ("overhead" if served else "reserve", show_bytes(result["overhead_bytes"], unit), "estimated" if served else "stated"),
        (f"needed on {fullest}", show_bytes(result["required_bytes"], unit), ""),
        (usable, show_bytes(result["available_bytes"], unit), ""),
        ("verdict", verdict, ""),
        *_pool(result, unit),
        (f"largest context, batch {result['batch']}", _bound(result["max_context"], lambda n: f"{n:,} tokens"), limit),
        (f"largest batch, context {show_context(result['ctx'])}", _bound(result["max_batch"]), ""),
        ("GPUs it takes", enough, ""),
    ]
    by = f", {result['runtime']}{_divided(result)}" if served else ""
    title = f"{o.marked(result['model'], result['estimate'])} on {gpus} x {result['gpu']}{by}"
    return Table(title, ("", ">", ""), rows, frozenset({4, 6}), {verdict: "good" if result["fits"] else "bad"})


def _same(values: set[str], else_: str) -> str:
    return values.pop() if len(values) == 1 else else_


def many(results: list[dict[str, Any]], unit: str) -> Table:
    """A row for each model and kind of GPU."""
    cards = list(dict.fromkeys(result["gpu"] for result in results))
    counts = {result["gpus"] for result in results}
    card = ("GPU",) if len(cards) > 1 else ()
    stored = {_stored(r) for r in results}
    quant = ("quant",) if len(stored) > 1 and len({r["model"] for r in results}) < len(results) else ()
    columns = (
        "model", *card, *quant, ">?weights", ">?cache", ">needed", "verdict", ">spare", ">max context", ">?max batch", ">GPUs",
    )  # fmt: skip
    rows = [
        (
            o.marked(r["model"], r["estimate"]), *((r["gpu"],) if card else ()), *((_stored(r),) if quant else ()),
            show_bytes(r["weight_bytes"], unit), show_bytes(r["kv_bytes"], unit), show_bytes(r["required_bytes"], unit),
            "fits" if r["fits"] else "no", show_bytes(r["spare_bytes"], unit), _bound(r["max_context"], show_context),
            _bound(r["max_batch"]), _bound(r["min_gpus"]),
        )
        for r in results
    ]  # fmt: skip
    marks = {"fits": "good", "no": "bad"}
    context, batch = (_same({show(r[key]) for r in results}, f"up to {show(max(r[key] for r in results))}")
                      for key, show in (("ctx", show_context), ("batch", str)))  # fmt: skip
    if len(counts) == 1:
        where = f"{counts.pop()} " + (f"x {cards[0]}" if len(cards) == 1 else "of each GPU")
    else:
        where = f"as many {cards[0] if len(cards) == 1 else 'of each GPU'} as it takes"
    by = f", {results[0]['runtime']}" if "per_gpu" in results[0] else ""
    return Table(f"{_same(stored, 'as published')} on {where}, context {context}, batch {batch}{by}", columns, rows, marks=marks)
