"""llmcalc params: parameters in total, active per token, and by component."""

from __future__ import annotations

from llmcalc.cli import options as o


def params(
    models: o.Models = None,
    family: o.Family = None,
    explain: o.Explain = False,
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Parameters: total, active per token, and by component with shares."""
    from llmcalc import resolve
    from llmcalc.engines import params as engine
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import show_count

    form = o.form_of(form, json)
    chosen, named = resolve.chosen(models, family)
    counts = [engine.count(m.blueprint) for m in chosen]
    results = [
        {
            "model": m.name, "family": m.spec.family, "estimate": m.blueprint.estimate, "total": c.total, "active": c.active,
            "embedding": c.embedding, "lm_head": c.lm_head, "router_buffers": c.router_buffers, "parts": c.parts,
            "active_parts": c.active_parts,
        }
        for m, c in zip(chosen, counts, strict=True)
    ]  # fmt: skip
    notes = o.about(chosen)
    tables = []
    rows: list[tuple[str, ...]]
    columns: tuple[str, ...]
    if named and len(chosen) == 1:
        (m,), (c,) = chosen, counts
        rows = [
            (part, f"{n:,}", show_count(n), o.share(n, c.total), f"{c.active_parts[part]:,}") for part, n in c.parts.items() if n
        ]
        rows.append(("total", f"{c.total:,}", show_count(c.total), "100.0%", f"{c.active:,}"))
        title = f"{o.label(m.blueprint)}: {show_count(c.total)} parameters"
        if c.active != c.total:
            title += f", {show_count(c.active)} active per token"
        columns = ("component", ">parameters", ">?", ">share", ">active")
        tables.append(Table(title, columns, rows, frozenset({len(rows) - 1})))
        if c.router_buffers:
            notes.append(f"{c.router_buffers:,} router correction biases are buffers: in the checkpoint, not in the total")
    else:
        rows = [
            (o.label(m.blueprint), m.spec.family, show_count(c.total), f"{c.total:,}", show_count(c.active),
             o.share(c.embedding + c.lm_head, c.total))
            for m, c in zip(chosen, counts, strict=True)
        ]  # fmt: skip
        columns = ("model", "?family", ">total", ">parameters", ">?active", ">?embedding + head")
        tables.append(Table("Parameters", columns, rows))
    figures = []
    if explain:
        for m in chosen:
            figures.append(o.figure(m, engine.explain(m.blueprint)))
            if any(w.used != w.copies for w in m.blueprint.weights):
                figures.append(o.figure(m, engine.explain(m.blueprint, active=True)))
    render(Document("params", {"models": models or [], "family": family}, results, tables, notes, figures), form, explain=explain)
    return 0
