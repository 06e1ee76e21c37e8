"""Efficiencies of runtimes by class of GPU: ``specs/efficiency.json``, which ``benchmarks/fit_speed.py`` writes.

A class says which GPUs it is for; the first that fits is taken, the last is for whatever is left. ``stated`` values are assumed,
``fitted`` ones measured. Kernels for some formats reach more or less: ``formats`` has factors, again the first that fits. A runtime
without classes of its own is ``like`` another.
"""

import json
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

from llmcalc.errors import UnknownName
from llmcalc.specs import catalogue
from llmcalc.specs.gpu import GpuSpec

SHARES = ("bandwidth", "cache")  # of a rate that nothing exceeds


class Found(NamedTuple):
    """What is known of a runtime on a GPU. ``layers_in_turn``: GPUs work one after the other, not together.

    Ranges are of measured / predicted; ``measured`` says whether a speed of this GPU is among those that they are of.
    """

    runtime: str
    name: str
    values: dict[str, float]
    rate: str
    layers_in_turn: bool
    host_bound: bool
    decode_range: tuple[float, float]
    prefill_range: tuple[float, float]
    measured: bool
    sources: tuple[str, ...]
    note: str


@cache
def data() -> dict[str, Any]:
    """The file."""
    found: dict[str, Any] = json.loads((catalogue.folder() / "efficiency.json").read_bytes())
    return found


def runtimes() -> dict[str, dict[str, Any]]:
    """Every runtime's part by name."""
    found: dict[str, dict[str, Any]] = data()["runtimes"]
    return found


def fits(match: dict[str, Any], spec: GpuSpec, quant: str) -> bool:
    """Whether a class is for this GPU and quantisation; a condition that it does not have always holds."""
    intensity = 1e3 * (spec.tflops.fp16 or spec.tflops.fp32 or 0) / spec.bandwidth_gb_s
    holds: dict[str, Callable[[], bool]] = {
        "vendors": lambda: spec.vendor in match["vendors"],
        "architectures": lambda: spec.architecture in match["architectures"],
        "memory": lambda: (spec.memory_type or "").startswith(match["memory"]),
        "unified": lambda: (spec.memory_type or "").endswith("unified") == match["unified"],
        "most_flops_per_byte": lambda: intensity <= match["most_flops_per_byte"],
        "quants": lambda: quant in match["quants"],
    }
    return all(holds[key]() for key in match)


def find(runtime: str, gpu: str, spec: GpuSpec, quant: str) -> Found:
    """A runtime's efficiencies on a GPU under a quantisation. Raises UnknownName."""
    key = runtime.strip().lower().split("@")[0]
    names = {catalogue.plain(alias): name for name, part in runtimes().items() for alias in (name, *part["aliases"])}
    name = names.get(catalogue.plain(key))
    if name is None:
        near = get_close_matches(key[:60], list(runtimes()), n=3)
        raise UnknownName("runtime", runtime, near, f"there are {', '.join(runtimes())}")
    own = runtimes()[name]
    like = runtimes()[own["like"]] if "like" in own else own
    chosen = next(c for c in like["classes"] if fits(c["match"], spec, quant))
    values = {**like["stated"], **like["fitted"], **chosen["stated"], **chosen["fitted"]}
    form = next((f for f in like["formats"] if fits(f["match"], spec, quant)), None)
    for key, factor in (form["fitted"] if form and chosen["fitted"] else {}).items():
        values[key] = min(1.0, values[key] * factor) if key in SHARES else values[key] * factor
    measured = gpu in own.get("measured_on", ())
    wide = data()["range_of_other_gpus"]["range"]
    decode, prefill = (like["decode_range"], like["prefill_range"]) if measured else (wide, wide)
    return Found(
        name, chosen["name"] + (f", {form['name']}" if form else ""), values, like.get("rates", {}).get(quant, chosen["rate"]),
        like["layers_in_turn"], like["host_bound"], (decode[0], decode[1]), (prefill[0], prefill[1]), measured,
        tuple(own["sources"]), "; ".join(n for n in (own.get("note"), chosen.get("note")) if n),
    )  # fmt: skip
