"""llmcalc weights: bytes of the weights under a quantisation, tensor by tensor."""

from __future__ import annotations

from typing import Annotated

import typer

from llmcalc.cli import options as o

Quants = Annotated[
    str | None,
    typer.Option("--quant", metavar="NAME", help="Quantisation (llmcalc quants), or all for a table of them.", show_default=False),
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
    if quant == "all":
        methods = [resolve.method(name) for name in catalogue.entries("quants")]
    else:
        methods = [resolve.method(quant) if quant else resolve.unquantised()]
    results, rows, figures = [], [], []
    for m in chosen:
        sized = sorted(
            ((method, engine.size(m.blueprint, method, dtype or "")) for method in methods), key=lambda pair: -pair[1].weight_bytes
        )
        for method, size in sized:
            own = dtype or m.blueprint.dtype
            results.append({
                "model": m.name, "estimate": m.blueprint.estimate, "quant": method.name, "dtype": own,
                "weight_bytes": size.weight_bytes, "file_bytes": size.weight_bytes, "bits_per_weight": size.bits_per_weight,
                "parts": size.parts,
            })  # fmt: skip
            rows.append((
                o.label(m.blueprint), method.name if method.rules else own, show_bytes(size.weight_bytes, unit),
                show_bytes(size.weight_bytes, "GB"), f"{size.bits_per_weight:.3f} bits",
            ))  # fmt: skip
            if explain:
                figures.append((m.name, engine.explain(m.blueprint, method, dtype or "")))
    columns = ("model", "quantisation", ">in memory", ">on disk", ">per weight")
    tables = [Table("Weights", columns, rows)]
    if len(results) == 1:
        result = results[0]
        parts: dict[str, int] = result["parts"]  # type: ignore[assignment]
        total = sum(parts.values())
        split = [(part, show_bytes(n, unit), o.share(n, total)) for part, n in parts.items()]
        tables.append(Table("By component", ("component", ">bytes", ">share"), split))
    notes = ["on disk: the tensors, without the file's header; bits per weight over all parameters, the unquantised too"]
    notes += o.estimates([m.blueprint for m in chosen])
    inputs = {"models": models, "quant": quant, "dtype": dtype}
    render(Document("weights", inputs, results, tables, notes, figures), form, explain=explain, unit=unit)
    return 0
