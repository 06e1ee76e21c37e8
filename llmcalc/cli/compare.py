"""llmcalc compare: models side by side, and the differences that explain the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmcalc.resolve import Model

# What a spec says about where it comes from explains no figure.
ABOUT = {"title", "family", "aliases", "hub", "sources", "status", "note", "published"}
NONE = "-"


def compare(
    models: o.NamedModels,
    ctx: o.Context = None,
    kv_dtype: o.KvDtype = "bf16",
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Side by side: parameters, cache, FLOPs, context; and the fields in which the models differ."""
    from llmcalc import resolve
    from llmcalc.errors import UsageError
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import show_bytes, show_count, show_flops

    form = o.form_of(form, json)
    asked = o.context(ctx)
    if len(models) < 2:
        raise UsageError("compare takes at least two models")
    chosen = resolve.models(models)
    # One context for all, so that figures compare: as asked, else what the shortest of them takes.
    tokens = asked if asked is not None else min(resolve.context_of(None, m.blueprint) for m in chosen)
    results = [_figures(m, tokens, kv_dtype) for m in chosen]

    def byte_count(value: float) -> str:
        return show_bytes(value, unit)

    def row(title: str, key: str, show: Callable[[float], str]) -> tuple[str, ...]:
        return title, *_beside([r[key] for r in results], show)

    rows = [
        row("parameters", "total", show_count),
        row("active per token", "active", show_count),
        *(
            (f"  {part}", *_beside([r["parts"][part] for r in results], show_count))
            for part in results[0]["parts"]
            if any(r["parts"][part] for r in results)
        ),
        row("weights as published", "weight_bytes", byte_count),
        row("KV per token", "bytes_per_token", byte_count),
        row(f"KV at {tokens:,}", "kv_bytes", byte_count),
        row("states", "state_bytes", byte_count),
        row(f"cross-attention at {tokens:,}", "cross_bytes", byte_count),
        row("index of sparse attention", "index_bytes", byte_count),
        row("FLOPs to decode a token", "decode_flops_per_token", show_flops),
        row("FLOPs to read a token, causal", "forward_flops_per_token", show_flops),
        row("trained context", "context", lambda n: f"{int(n):,}"),
    ]
    names = tuple(f">{o.label(m.blueprint)}" for m in chosen)
    fields = [_fields(m) for m in chosen]
    every = list(dict.fromkeys(key for said in fields for key in said))
    unlike = [key for key in every if len({_shown(said.get(key)) for said in fields}) > 1]
    alike = [f"{key} {_shown(fields[0][key])}" for key in every if key not in unlike]
    title = f"Compared at {tokens:,} tokens, cache in {kv_dtype}"
    told = [r for r in rows if set(r[1:]) - {NONE, "0 B"}]
    differing = [(key, *(_shown(said.get(key)) for said in fields)) for key in unlike]
    tables = [Table(title, ("", *names), told, frozenset({0}))]
    if differing:
        tables.append(Table("What differs in their shape", ("field", *names), differing))
    notes = [f"the same in all: {', '.join(alike)}"] if alike else []
    if asked is None and tokens < resolve.DEFAULT_CONTEXT:
        notes.append(f"at {tokens:,} tokens, the shortest of their trained contexts; --ctx sets another")
    notes += [f"{m.name}: the cache is not known: {m.blueprint.unknown_cache}" for m in chosen if m.blueprint.unknown_cache]
    for m in chosen:
        notes += o.beyond(m.name, tokens, m.blueprint)
    for result, said in zip(results, fields, strict=True):
        result["differs"] = {key: said.get(key) for key in unlike}
    inputs = {"models": models, "ctx": tokens, "kv_dtype": kv_dtype}
    render(Document("compare", inputs, results, tables, notes + o.about(chosen), []), form, unit=unit)
    return 0


def _beside(values: list[Any], show: Callable[[float], str]) -> tuple[str, ...]:
    """Figures in a row, all but the first with their ratio to it."""
    first = values[0]

    def cell(value: Any) -> str:
        if value is None:
            return NONE
        ratio = f" ({value / first:.2f}x)" if first and value != first else ""
        return show(value) + ratio

    return tuple(map(cell, values))


def _figures(m: Model, tokens: int, kv_dtype: str) -> dict[str, Any]:
    """What is compared of one model. Null where a model has no such thing."""
    from llmcalc import resolve
    from llmcalc.engines import flops, kv, params, weights

    b = m.blueprint
    encoder = b.encoder_tokens(None, tokens)
    count = params.count(b)
    held = None if b.unknown_cache else kv.size(b, tokens, 1, kv_dtype, encoder)
    work = flops.count(b, tokens, encoder_context=encoder, mask="causal") if b.ops else None
    method, stored = resolve.stored_as(m, None, None)
    return {
        "model": m.name,
        "estimate": b.estimate,
        "ctx": tokens,
        "total": count.total,
        "active": count.active,
        "embedding": count.embedding,
        "lm_head": count.lm_head,
        "parts": count.parts,
        "stored_as": stored,
        "weight_bytes": weights.size(b, method).weight_bytes,
        "bytes_per_token": None if held is None else held.bytes_per_token,
        "kv_bytes": None if held is None else held.kv_bytes,
        "state_bytes": None if held is None else held.state_bytes,
        "cross_bytes": None if held is None else held.cross_bytes,
        "index_bytes": None if held is None else held.index_bytes,
        "decode_flops_per_token": None if work is None else work.decode_per_token,
        "forward_flops_per_token": None if work is None else work.forward / tokens,
        "context": b.context,
    }


def _fields(m: Model) -> dict[str, Any]:
    """Every field of the model's shape that its spec says, dotted; without defaults, and of lists of tensors the names."""

    def dotted(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in data.items():
            if isinstance(value, dict):
                yield from dotted(value, f"{prefix}{key}.")
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                yield prefix + key, ", ".join(str(item.get("name", "?")) for item in value)
            else:
                yield prefix + key, value

    said = dict(dotted(_said(m.spec)))
    heads, hidden = said.get("heads"), said.get("hidden")
    if heads and "mla.kv_rank" not in said:
        said.setdefault("kv_heads", heads)
    usual = {"activation": "silu", "head_dim": hidden // heads if heads and hidden else None, "tied_head": False}
    return {key: value for key, value in said.items() if key not in usual or value != usual[key]}


def _shown(value: Any) -> str:
    """A field's value as YAML writes it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:,}" if isinstance(value, int) and value > 9999 else NONE if value is None else str(value)


def _said(record: Any) -> dict[str, Any]:
    """What a record says beyond the format's defaults, nested records as mappings."""

    def plain(value: Any) -> Any:
        if hasattr(value, "__dict__"):
            return _said(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    # A validated record holds its class's defaults (type: decoder), one of the catalogue only what its file says.
    said = {key: value for key, value in vars(record).items() if value != getattr(type(record), key, None)}
    return {key: plain(value) for key, value in said.items() if key not in ABOUT}
