"""llmcalc weights: bytes of the weights under a quantisation, tensor by tensor."""

from __future__ import annotations

from typing import Annotated

import typer

from llmcalc.cli import options as o

Quants = Annotated[
    str | None,
    typer.Option(
        "--quant",
        metavar="NAME",
        help="Quantisation (llmcalc quants), or all for a table of them; as published unless said.",
        show_default=False,
    ),
]  # fmt: skip


def weights(
    models: o.NamedModels,
    quant: Quants = None,
    dtype: o.Dtype = None,
    explain: o.Explain = False,
    unit: o.Unit = "GiB",
    form: o.Format = "table",
    json: o.Json = False,
) -> int:
    """Weights in memory and on disk under a quantisation, and the bits per weight it comes to."""
    from llmcalc import resolve
    from llmcalc.engines import weights as engine
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.specs import catalogue
    from llmcalc.units import show_bytes

    form = o.form_of(form, json)
    chosen = resolve.models(models)
    results, rows, figures, notes = [], [], [], []
    for m in chosen:
        if quant == "all":
            stored = [(resolve.method(name), name) for name in catalogue.entries("quants")]
        else:
            stored = [resolve.stored_as(m, quant, dtype)]
            if quant is None and stored[0][0].rules:
                notes.append(f"{m.name}: published in {stored[0][1]}; --dtype bf16 for 16 bits")
        sized = [(method, word, engine.size(m.blueprint, method, dtype or "")) for method, word in stored]
        for method, word, size in sorted(sized, key=lambda found: -found[2].weight_bytes):
            results.append({
                "model": m.name, "estimate": m.blueprint.estimate, "quant": method.name, "dtype": dtype or m.blueprint.dtype,
                "weight_bytes": size.weight_bytes, "file_bytes": size.weight_bytes, "bits_per_weight": size.bits_per_weight,
                "parts": size.parts,
            })  # fmt: skip
            rows.append((
                o.label(m.blueprint), word, show_bytes(size.weight_bytes, unit), show_bytes(size.weight_bytes, "GB"),
                f"{size.bits_per_weight:.3f} bits",
            ))  # fmt: skip
            if explain:
                figures.append(o.figure(m, engine.explain(m.blueprint, method, dtype or "")))
    columns = ("model", "quantisation", ">in memory", ">on disk", ">per weight")
    tables = [Table("Weights", columns, rows)]
    if len(results) == 1:
        result = results[0]
        parts: dict[str, int] = result["parts"]  # type: ignore[assignment]
        total = sum(parts.values())
        split = [(part, show_bytes(n, unit), o.share(n, total)) for part, n in parts.items()]
        tables.append(Table("By component", ("component", ">bytes", ">share"), split))
    notes.append("on disk: the tensors, without the file's header; bits per weight over all parameters, the unquantised too")
    notes += o.about(chosen)
    inputs = {"models": models, "quant": quant, "dtype": dtype}
    render(Document("weights", inputs, results, tables, notes, figures), form, explain=explain, unit=unit)
    return 0
