"""llmcalc weights: bytes of the weights under a quantisation, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmcalc.cli import options as o

if TYPE_CHECKING:
    from llmcalc.engines.weights import Method
    from llmcalc.resolve import Model

Quants = Annotated[
    str | None,
    typer.Option(
        "--quant",
        metavar="NAME",
        help="Quantisation (llmcalc quants), or all for a table of them; as published unless said.",
        show_default=False,
    ),
]  # fmt: skip
SAFETENSORS = "on disk: tensors and header; bits per weight over all parameters, the unquantised too"
NOTICED = 0.005  # from where on an older file is worth a note
GGUF = "on disk: a GGUF header is an estimate, 40 bytes of tokenizer per vocabulary entry"


def _container(method: Method) -> str:
    """What the files of a method are."""
    from llmcalc.specs import catalogue

    if not method.rules:
        return "safetensors"
    return catalogue.quant_spec(method.name)[1].container or "safetensors"


def _earlier(m: Model, method: Method, dtype: str) -> tuple[int, str, str] | None:
    """Bytes of an older file of the same name, what such files are called, and the quantisation; None where it never changed."""
    from llmcalc import resolve
    from llmcalc.engines import files
    from llmcalc.specs import catalogue

    name = catalogue.quant_spec(method.name)[1].earlier if method.rules else None
    if name is None:
        return None
    older = resolve.method(name)
    return files.file_of(m.blueprint, older, dtype, _container(older)).file_bytes, catalogue.quant_spec(name)[1].title, name


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
    from llmcalc.engines import files
    from llmcalc.engines import weights as engine
    from llmcalc.report.document import Document, Table
    from llmcalc.report.render import render
    from llmcalc.specs import catalogue
    from llmcalc.units import show_bytes

    form = o.form_of(form, json)
    chosen = resolve.models(models)
    results, rows, figures, notes = [], [], [], []
    gguf, towers = False, []
    for m in chosen:
        if quant == "all":
            stored = [(resolve.method(name), name) for name in catalogue.entries("quants")]
        else:
            stored = [resolve.stored_as(m, quant, dtype)]
            if quant is None and stored[0][0].rules:
                notes.append(f"{m.name}: published in {stored[0][1]}; --dtype bf16 for 16 bits")
        found = []
        for method, word in stored:
            container = _container(method)
            size = engine.size(m.blueprint, method, dtype or "")
            file = files.file_of(m.blueprint, method, dtype or "", container)
            earlier = _earlier(m, method, dtype or "")
            if quant != "all" and earlier is not None and abs(earlier[0] / file.file_bytes - 1) > NOTICED:
                notes.append(f"{m.name}: {earlier[1]} are {show_bytes(earlier[0], 'GB')} on disk (--quant {earlier[2]})")
            found.append((method, word, size, file, container, earlier and earlier[0]))
        for method, word, size, file, container, before in sorted(found, key=lambda row: (-row[2].weight_bytes, row[1])):
            gguf |= container == "gguf"
            results.append({
                "model": m.name, "estimate": m.blueprint.estimate, "quant": method.name, "dtype": dtype or m.blueprint.dtype,
                "weight_bytes": size.weight_bytes, "file_bytes": file.file_bytes, "header_bytes": file.header_bytes,
                "projector_file_bytes": file.apart_bytes, "container": container, "bits_per_weight": file.bits_per_weight,
                "earlier_file_bytes": before,
                "parts": size.parts,
            })  # fmt: skip
            rows.append((
                o.label(m.blueprint), word, show_bytes(size.weight_bytes, unit), show_bytes(file.file_bytes, "GB"),
                f"{file.bits_per_weight:.3f} bits",
            ))  # fmt: skip
            if explain:
                figures.append(o.figure(m, engine.explain(m.blueprint, method, dtype or "")))
        apart = max(file.apart_bytes for *_, file, _, _ in found)
        if apart:
            towers.append(f"{m.name}: GGUF puts the vision tower in a file of its own (mmproj), {show_bytes(apart, 'GB')}")
    columns = ("model", "quantisation", ">in memory", ">on disk", ">per weight")
    tables = [Table("Weights", columns, rows)]
    if len(results) == 1:
        result = results[0]
        parts: dict[str, int] = result["parts"]  # type: ignore[assignment]
        total = sum(parts.values())
        split = [(part, show_bytes(n, unit), o.share(n, total)) for part, n in parts.items()]
        tables.append(Table("By component", ("component", ">bytes", ">share"), split))
    notes += [SAFETENSORS, *([GGUF] if gguf else []), *towers]
    notes += o.about(chosen)
    inputs = {"models": models, "quant": quant, "dtype": dtype}
    render(Document("weights", inputs, results, tables, notes, figures), form, explain=explain, unit=unit)
    return 0
