"""llmcalc models, gpus, quants: what the catalogue holds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmcalc.cli import options as o

Search = Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Only names that contain this.", show_default=False)]


def _matching(kind: str, text: str | None) -> list[Any]:
    from llmcalc.specs import catalogue

    def names(entry: catalogue.Entry) -> list[str]:
        data = entry.data
        return [entry.name, data.get("title", ""), *data.get("aliases", ()), *data.get("hub", ()), *data.get("group", ())]

    wanted = catalogue.plain(text or "")
    return [e for e in catalogue.entries(kind).values() if any(wanted in catalogue.plain(name) for name in names(e))]


def models(text: Search = None, family: o.Family = None, form: o.Format = "table", json: o.Json = False) -> int:
    """The models of the catalogue."""
    from llmcalc import resolve
    from llmcalc.engines import params as engine
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import show_count

    form = o.form_of(form, json)
    matching = {entry.name: entry for entry in _matching("models", text)}
    known = [m for m in resolve.whole_catalogue(family) if m.name in matching]
    closed = [e for e in matching.values() if e.data.get("status") == "unpublished" and family in (None, e.data["family"])]
    results, rows = [], []
    for m in known:
        c = engine.count(m.blueprint)
        results.append({
            "model": m.name, "family": m.spec.family, "title": m.spec.title, "status": m.spec.status, "total": c.total,
            "active": c.active, "layers": m.spec.layers, "hidden": m.spec.hidden, "context": m.spec.context,
            "aliases": m.spec.aliases, "hub": m.spec.hub,
        })  # fmt: skip
        rows.append((
            o.label(m.blueprint), m.spec.family, show_count(c.total), show_count(c.active) if c.active != c.total else "",
            str(m.spec.layers), f"{m.spec.hidden:,}", f"{m.spec.context:,}" if m.spec.context else "-",
        ))  # fmt: skip
    for entry in closed:
        results.append({
            "model": entry.name, "family": entry.data["family"], "title": entry.data.get("title"), "status": "unpublished",
            "total": None, "active": None, "layers": None, "hidden": None, "context": None,
            "aliases": entry.data.get("aliases", []), "hub": [],
        })  # fmt: skip
        rows.append((entry.name, entry.data["family"], "not published", "", "", "", ""))
    columns = ("model", "family", ">parameters", ">active", ">?layers", ">?hidden", ">?context")
    notes = [] if rows else [f"no model's name contains {text!r}"]
    title = f"{len(rows)} models"
    render(Document("models", {"text": text, "family": family}, results, [Table(title, columns, rows)], notes, []), form)
    return 0


def gpus(text: Search = None, unit: o.Unit = "GiB", form: o.Format = "table", json: o.Json = False) -> int:
    """The GPUs of the catalogue: memory that a process gets, bandwidth, peak rates, price."""
    from llmcalc import hardware
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.units import show_bytes

    form = o.form_of(form, json)
    results, rows = [], []
    found = [hardware.gpu(entry.name) for entry in _matching("gpus", text)]
    for card in sorted(found, key=lambda g: (g.spec.vendor, g.spec.architecture, g.spec.marketed_gb, g.name)):
        spec = card.spec
        peak = spec.tflops.bf16 or spec.tflops.fp16
        price = min((p.usd_per_hour for p in spec.prices), default=None)
        results.append({
            "gpu": card.name, "title": spec.title, "vendor": spec.vendor, "architecture": spec.architecture,
            "usable_bytes": card.usable_bytes, "usable_source": card.usable_source, "marketed_gb": spec.marketed_gb,
            "bandwidth_bytes_per_second": spec.bandwidth_gb_s * 1e9, "peak_16bit_flops_per_second": peak * 1e12 if peak else None,
            "tdp_watts": spec.tdp_w, "dollars_per_hour": price, "verified": spec.verified, "unverified": spec.unverified,
        })  # fmt: skip
        measured = "" if spec.cuda_bytes is not None else " *" if spec.driver_bytes is not None else " **"
        rows.append((
            card.name, spec.title, show_bytes(card.usable_bytes, unit) + measured, f"{spec.bandwidth_gb_s:,.0f} GB/s",
            f"{peak:,.0f} TFLOP/s" if peak else "-", f"{spec.tdp_w} W" if spec.tdp_w else "-",
            f"${price:.2f}/h" if price else "-",
        ))  # fmt: skip
    columns = ("GPU", "?card", ">usable memory", ">bandwidth", ">dense 16-bit", ">?power", ">?price from")
    notes = [
        "usable memory is what CUDA reports to a process; * what the driver lists; ** as marketed",
        "llmcalc show NAME: all values, which of them are verified, and their sources",
    ]
    if not rows:
        notes = [f"no GPU's name contains {text!r}"]
    render(
        Document(
            "gpus", {"text": text}, results, [Table(f"{len(rows)} GPU{'s' if len(rows) != 1 else ''}", columns, rows)], notes, []
        ),
        form,
    )
    return 0


def quants(text: Search = None, form: o.Format = "table", json: o.Json = False) -> int:
    """The quantisations of the catalogue: exact bits per weight of a tensor in each format."""
    from llmcalc import resolve
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.specs import catalogue

    form = o.form_of(form, json)
    results, rows = [], []
    for entry in _matching("quants", text):
        _, spec = catalogue.quant_spec(entry.name)
        bits = resolve.format_bits(spec.format)
        touched = ", ".join(dict.fromkeys(t for rule in spec.rules if rule.instead_of is None for t in rule.tensors))
        results.append({
            "quant": entry.name, "title": spec.title, "kind": spec.kind, "bits_per_weight": bits, "tensors": touched,
            "runtimes": spec.runtimes, "aliases": spec.aliases,
        })  # fmt: skip
        rows.append((bits, (entry.name, spec.kind, f"{bits:.4g} bits", touched)))
    rows.sort(key=lambda row: (-row[0], row[1]))
    columns = ("quantisation", "kind", ">per weight", "tensors it sets")
    notes = [
        "bits per weight of a 4096 x 4096 tensor in the format, scales included;"
        " llmcalc weights MODEL --quant NAME gives the whole model's"
    ]
    table = Table(f"{len(rows)} quantisations", columns, [row for _, row in rows])
    render(Document("quants", {"text": text}, results, [table], notes, []), form)
    return 0
