"""llmcalc show: one entry of the catalogue (or a spec file), opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from llmcalc.cli import options as o

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model, GPU or quantisation, or a spec file.")]


def show(name: Name, form: o.Format = "table", json: o.Json = False) -> int:
    """All that is known of a model, a GPU or a quantisation: values, tensors, rules, sources."""
    from llmcalc.errors import UnknownName, UsageError
    from llmcalc.report.document import Document
    from llmcalc.report.render import render
    from llmcalc.specs import catalogue

    form = o.form_of(form, json)
    shown = None
    for kind, opened in (("gpus", _gpu), ("quants", _quant)):
        try:
            entry = catalogue.find(kind, name)
        except UnknownName:
            continue
        except UsageError:
            if catalogue.plain(name) not in catalogue.index("models"):
                raise
            continue
        shown = opened(entry.name, entry.data)
        break
    result, tables, notes = shown or _model(name)
    render(Document("show", {"name": name}, [result], tables, notes, []), form)
    return 0


def flat(data: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested data as dotted fields."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, item in enumerate(value, 1):
                yield from flat(item, f"{prefix}{key}.{number}.")
        else:
            yield prefix + key, _word(value)


def _word(value: Any) -> str:
    """A value as YAML writes it; large numbers with their thousands apart."""
    if isinstance(value, list):
        return ", ".join(map(_word, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def _facts(title: str, data: dict[str, Any], skip: tuple[str, ...] = ()) -> Any:
    from llmcalc.report.document import Table

    kept = {key: value for key, value in data.items() if key not in skip}
    return Table(title, ("field", "value"), list(flat(kept)))


def _model(name: str) -> tuple[dict[str, Any], list[Any], list[str]]:
    from llmcalc import resolve
    from llmcalc.report.document import Table
    from llmcalc.specs import catalogue

    if resolve.is_spec_file(name):
        m, data = resolve.model(name), resolve.spec_data(name)
    else:
        entry = catalogue.find("models", name)
        data = entry.data
        if data.get("status") == "unpublished":
            return {"model": entry.name, "kind": "model", "spec": data, "tensors": []}, [_facts(f"{entry.name}, a model", data)], []
        m = resolve.model(entry.name)
    weights = m.blueprint.weights
    tensors = [
        (w.name, " x ".join(f"{int(x):,}" for x in w.shape), str(int(w.copies)) if w.copies != 1 else "",
         str(int(w.depth)) if w.layers else "", f"{w.elements:,}" if not w.tied_to else f"tied to {w.tied_to}",
         "buffer" if w.buffer else "")
        for w in weights
    ]  # fmt: skip
    result = {
        "model": m.name, "kind": "model", "spec": data,
        "tensors": [
            {"name": w.name, "part": w.part, "shape": [int(x) for x in w.shape], "copies": int(w.copies), "layers": list(w.layers),
             "elements": w.elements, "tied_to": w.tied_to or None, "buffer": w.buffer}
            for w in weights
        ],
    }  # fmt: skip
    columns = ("tensor", ">shape", ">copies", ">layers", ">elements", "")
    tables = [_facts(f"{m.name}, a model", data), Table("Tensors (rows first)", columns, tensors)]
    return result, tables, o.about([m])


def _gpu(name: str, data: dict[str, Any]) -> tuple[dict[str, Any], list[Any], list[str]]:
    from llmcalc import hardware

    card = hardware.gpu(name)
    notes = [f"{name}: {card.usable_bytes / 2**30:.2f} GiB usable, {card.usable_source}"]
    return {"gpu": name, "kind": "gpu", "usable_bytes": card.usable_bytes, "spec": data}, [_facts(f"{name}, a GPU", data)], notes


def _quant(name: str, data: dict[str, Any]) -> tuple[dict[str, Any], list[Any], list[str]]:
    from llmcalc import resolve
    from llmcalc.report.document import Table
    from llmcalc.specs import catalogue

    _, spec = catalogue.quant_spec(name)
    bits = resolve.format_bits(spec.format)
    rules = [(", ".join(rule.tensors), rule.format, _conditions(rule)) for rule in spec.rules]
    tables = [
        _facts(f"{name}, a quantisation", data, ("rules",)),
        Table("Rules, the first that fits", ("tensors", "format", "only"), rules),
    ]
    note = f"a tensor in {name}'s own format has {bits:.5g} bits per weight"
    return {"quant": name, "kind": "quant", "bits_per_weight": bits, "spec": data}, tables, [note]


def _conditions(rule: Any) -> str:
    """Where a rule holds, in words."""
    said = [
        f"where {rule.instead_of} does not divide the rows" if rule.instead_of else "",
        f"layers: {rule.layers}" if rule.layers else "",
        f"the first {rule.first}" if rule.first else "",
        f"counted: {rule.counted}" if rule.counted else "",
        "" if rule.tied is None else f"head {'tied' if rule.tied else 'not tied'}",
        "" if rule.moe is None else f"{'with' if rule.moe else 'without'} experts",
        f"{rule.experts} experts" if rule.experts else "",
        f"{rule.min_experts} experts or more" if rule.min_experts else "",
        f"{rule.min_groups} query heads per KV head or more" if rule.min_groups else "",
        f"{rule.depth} layers" if rule.depth else "",
        f"with {', '.join(rule.having)}" if rule.having else "",
        f"without {', '.join(rule.lacking)}" if rule.lacking else "",
    ]
    return ", ".join(text for text in said if text)
